"""Terms on labels and on what a teacher says, bound: each a function of what student and teacher say."""

from typing import assert_never

import torch
from torch import Tensor

from distil.losses.correlation import batch_correlation, class_correlation
from distil.losses.decoupled import decoupled_kl, normalised_label_kd
from distil.losses.divergence import generalised_jensen_shannon, reverse_kl, skew_kl, total_variation
from distil.losses.label import confidence_weighted, virtual_teacher_kl
from distil.losses.logit import (
    label_cross_entropy,
    logit_mse,
    soft_target_kl,
    standardised,
    teacher_label_cross_entropy,
)
from distil.losses.multi_level import class_gram_distance, example_gram_distance, multi_temperature_kl
from distil.losses.multilabel import binary_kl
from distil.losses.regression import attentive_imitation, bounded_regression, output_squared_error
from distil.losses.sparse import LargestClasses, draw_samples, largest_classes, sampled_kl, top_k_kl
from distil.objective.response_config import (
    AttentiveImitation,
    BinaryKl,
    BornAgain,
    BoundedRegression,
    Correlation,
    Decoupled,
    DivergenceTerm,
    JensenShannon,
    LabelledTerm,
    LogitMse,
    LogitTerm,
    MultiLevel,
    Normalised,
    NumberTerm,
    RegressionMse,
    ResponseTerm,
    ReverseKl,
    Sampled,
    SkewKl,
    SoftTargets,
    TeacherFree,
    TeacherLabels,
    TopK,
    TotalVariation,
    TrueLabels,
)
from distil.objective.term import Binding, BoundTerm, FunctionTerm, TermInput


def bind_response(term: ResponseTerm, binding: Binding) -> BoundTerm:
    """The term as a module.

    Raises:
        CompatibilityError: it names more classes than there are.
    """
    if isinstance(term, TopK) and term.k > binding.student.num_classes:
        raise binding.refuse(f"k is {term.k} and there are {binding.student.num_classes} classes; lower k")
    return FunctionTerm(lambda said: _value(term, said))


def _value(term: ResponseTerm, said: TermInput) -> Tensor:
    if isinstance(term, LabelledTerm):
        return _on_labels(term, said)
    if isinstance(term, DivergenceTerm):
        return _divergence(term, said)
    if isinstance(term, NumberTerm):
        return _on_numbers(term, said)
    return _on_logits(term, said)


def _on_labels(term: LabelledTerm, said: TermInput) -> Tensor:
    student, labels = said.student.logits, said.labels
    match term:
        case TrueLabels():
            return label_cross_entropy(student, labels, smoothing=term.smoothing)
        case TeacherFree():
            return virtual_teacher_kl(
                student, labels, correct_probability=term.correct_probability, temperature=term.temperature
            )
        case BornAgain():
            return confidence_weighted(student, said.teacher_logits, labels)
        case TeacherLabels():
            return teacher_label_cross_entropy(student, said.teacher_logits)
        case Decoupled():
            return decoupled_kl(
                *_pair(said, standardise=term.standardise),
                labels,
                target_weight=term.target_weight,
                others_weight=term.others_weight,
                temperature=term.temperature,
            )
        case Normalised():
            weights = {"others_weight": term.others_weight, "temperature": term.temperature}
            return normalised_label_kd(student, said.teacher_logits, labels, **weights)
        case _:
            assert_never(term)


def _divergence(term: DivergenceTerm, said: TermInput) -> Tensor:
    student, teacher = _pair(said, standardise=term.standardise)
    match term:
        case SoftTargets():
            return soft_target_kl(student, teacher, temperature=term.temperature)
        case ReverseKl():
            return reverse_kl(student, teacher, temperature=term.temperature)
        case JensenShannon():
            return generalised_jensen_shannon(
                student, teacher, temperature=term.temperature, teacher_share=term.teacher_share
            )
        case SkewKl():
            return skew_kl(student, teacher, temperature=term.temperature, skew=term.skew, direction=term.direction)
        case TotalVariation():
            return total_variation(student, teacher, temperature=term.temperature)
        case _:
            assert_never(term)


def _on_logits(term: LogitTerm, said: TermInput) -> Tensor:
    if isinstance(term, TopK) and said.teacher is not None and said.teacher.largest is not None:
        kept = LargestClasses(*said.teacher.largest)
        return top_k_kl(said.student.logits, kept, temperature=term.temperature, tail=term.tail)
    student, teacher = _pair(said, standardise=False)
    match term:
        case LogitMse():
            return logit_mse(student, teacher, centre=term.centre)
        case Correlation():
            return _correlation(term, student, teacher)
        case MultiLevel():
            return _multi_level(term, said)
        case BinaryKl():
            return binary_kl(student, teacher, temperature=term.temperature)
        case TopK():
            largest = largest_classes(teacher, k=term.k, temperature=term.temperature)
            return top_k_kl(student, largest, temperature=term.temperature, tail=term.tail)
        case Sampled():
            uniforms = torch.rand(len(teacher), term.num_samples, device=teacher.device)
            samples = draw_samples(
                teacher, uniforms=uniforms, temperature=term.temperature, proposal_power=term.proposal_power
            )
            return sampled_kl(student, samples, temperature=term.temperature)
        case _:
            assert_never(term)


def _on_numbers(term: NumberTerm, said: TermInput) -> Tensor:
    if isinstance(term, TopK) and said.teacher is not None and said.teacher.largest is not None:
        kept = LargestClasses(*said.teacher.largest)
        return top_k_kl(said.student.logits, kept, temperature=term.temperature, tail=term.tail)
    student, teacher = _pair(said, standardise=False)
    match term:
        case RegressionMse():
            return output_squared_error(student, teacher)
        case BoundedRegression():
            return bounded_regression(student, teacher, _targets(said), margin=term.margin)
        case AttentiveImitation():
            return attentive_imitation(student, teacher, _targets(said), normaliser=term.normaliser)
        case _:
            assert_never(term)


def _correlation(term: Correlation, student: Tensor, teacher: Tensor) -> Tensor:
    value = student.new_zeros(())
    if term.example_weight > 0:
        of_examples = class_correlation(student, teacher, temperature=term.temperature)
        value = value + term.example_weight * _mean(of_examples)
    if term.class_weight > 0:
        value = value + term.class_weight * batch_correlation(student, teacher, temperature=term.temperature)
    return value


def _multi_level(term: MultiLevel, said: TermInput) -> Tensor:
    student, teacher = _pair(said, standardise=False)
    value = student.new_zeros(())
    if term.instance_weight > 0:
        of_examples = multi_temperature_kl(*_pair(said, standardise=term.standardise), temperatures=term.temperatures)
        value = value + term.instance_weight * _mean(of_examples)
    if term.batch_weight > 0:
        value = value + term.batch_weight * example_gram_distance(student, teacher, temperatures=term.temperatures)
    if term.class_weight > 0:
        value = value + term.class_weight * class_gram_distance(student, teacher, temperatures=term.temperatures)
    return value


def _pair(said: TermInput, *, standardise: bool) -> tuple[Tensor, Tensor]:
    pair = said.student.logits, said.teacher_logits
    return (standardised(pair[0]), standardised(pair[1])) if standardise else pair


def _targets(said: TermInput) -> Tensor:
    """The numbers to predict, in the shape of the outputs; a single one may come without an axis of its own."""
    targets = said.labels if said.labels.is_floating_point() else said.labels.float()
    return targets.unsqueeze(-1) if targets.ndim == said.student.logits.ndim - 1 else targets


def _mean(values: Tensor) -> Tensor:
    return values.sum() / max(len(values), 1)
