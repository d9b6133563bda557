"""Losses as pure functions on tensors: unreduced where an example has a value, usable in anyone's training loop."""

from distil.losses.attention import attention_kl, attention_map_mse, qkv_relation_kl, value_relation_kl
from distil.losses.calibration import calibrated_distance, similarity_profile
from distil.losses.contrast import (
    info_nce,
    log_mean_similarity,
    noise_contrast,
    pair_margin,
    queue_contrast,
    supervised_contrast,
)
from distil.losses.correlation import batch_correlation, class_correlation
from distil.losses.decoupled import decoupled_kl, normalised_label_kd
from distil.losses.divergence import generalised_jensen_shannon, reverse_kl, skew_kl, total_variation
from distil.losses.factor import factor_distance
from distil.losses.feature import cosine_distance, neighbourhood_kl, normalised_squared_error
from distil.losses.label import confidence_weighted, virtual_teacher_kl
from distil.losses.logit import (
    label_cross_entropy,
    logit_mse,
    soft_target_kl,
    standardised,
    teacher_label_cross_entropy,
)
from distil.losses.map import channel_softmax_kl, flow_matrix, selectivity_mmd, spatial_attention_error
from distil.losses.margin import expected_negative_response, margin_squared_error
from distil.losses.masked import hide_at_random
from distil.losses.memory_flat import FlatLoss, FlatTerm, TeacherStates, memory_flat_loss, memory_flat_values
from distil.losses.multi_level import class_gram_distance, example_gram_distance, multi_temperature_kl
from distil.losses.multilabel import binary_cross_entropy, binary_kl
from distil.losses.output_head import OutputHead
from distil.losses.regression import attentive_imitation, bounded_regression, error_range, output_squared_error
from distil.losses.relation import (
    correlation_congruence,
    inter_channel_correlation,
    relation_angle,
    relation_distance,
    similarity_preserving,
)
from distil.losses.review import hierarchical_context_error
from distil.losses.smoothing import adjusted_smoothing, smoothed_targets, target_cross_entropy
from distil.losses.sparse import LargestClasses, SampledClasses, draw_samples, largest_classes, sampled_kl, top_k_kl
from distil.losses.squared_error import feature_squared_error
from distil.losses.variational import gaussian_negative_log_likelihood
from distil.losses.vocabulary import shared_logits, shared_mass

__all__ = [
    "FlatLoss",
    "FlatTerm",
    "LargestClasses",
    "OutputHead",
    "SampledClasses",
    "TeacherStates",
    "adjusted_smoothing",
    "attention_kl",
    "attention_map_mse",
    "attentive_imitation",
    "batch_correlation",
    "binary_cross_entropy",
    "binary_kl",
    "bounded_regression",
    "calibrated_distance",
    "channel_softmax_kl",
    "class_correlation",
    "class_gram_distance",
    "confidence_weighted",
    "correlation_congruence",
    "cosine_distance",
    "decoupled_kl",
    "draw_samples",
    "error_range",
    "example_gram_distance",
    "expected_negative_response",
    "factor_distance",
    "feature_squared_error",
    "flow_matrix",
    "gaussian_negative_log_likelihood",
    "generalised_jensen_shannon",
    "hide_at_random",
    "hierarchical_context_error",
    "info_nce",
    "inter_channel_correlation",
    "label_cross_entropy",
    "largest_classes",
    "log_mean_similarity",
    "logit_mse",
    "margin_squared_error",
    "memory_flat_loss",
    "memory_flat_values",
    "multi_temperature_kl",
    "neighbourhood_kl",
    "noise_contrast",
    "normalised_label_kd",
    "normalised_squared_error",
    "output_squared_error",
    "pair_margin",
    "qkv_relation_kl",
    "queue_contrast",
    "relation_angle",
    "relation_distance",
    "reverse_kl",
    "sampled_kl",
    "selectivity_mmd",
    "shared_logits",
    "shared_mass",
    "similarity_preserving",
    "similarity_profile",
    "skew_kl",
    "smoothed_targets",
    "soft_target_kl",
    "spatial_attention_error",
    "standardised",
    "supervised_contrast",
    "target_cross_entropy",
    "teacher_label_cross_entropy",
    "top_k_kl",
    "total_variation",
    "value_relation_kl",
    "virtual_teacher_kl",
]
