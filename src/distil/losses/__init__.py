"""Losses as pure functions on tensors: unreduced, one value per example, usable in anyone's training loop.

``distil.losses.soft_target_kl`` and its siblings are loaded from their modules on first use.
"""

from distil.losses.logit import label_cross_entropy, soft_target_kl, teacher_label_cross_entropy

__all__ = ["label_cross_entropy", "soft_target_kl", "teacher_label_cross_entropy"]
