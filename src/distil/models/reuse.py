"""A student that answers through its teacher's classifier: its own is replaced by a projector and a frozen copy."""

import copy
from collections.abc import Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from distil.core.errors import CompatibilityError, ModelError
from distil.core.inputs import Inputs
from distil.models.describe import first_tensor


class ReusedClassifier(nn.Module):
    """A projector from the student's features to the teacher's, then the teacher's classifier, which is not trained.

    The projector is a bottleneck of half the teacher's width. It is part of the student: trained, counted and shipped.
    Its initial weights come from torch's random state.

    Args:
        student_width: of the features before the student's own classifier.
        teacher_width: of those before the teacher's.
        num_classes: outputs of the classifier.
        bias: whether the teacher's classifier has one.
    """

    def __init__(self, student_width: int, teacher_width: int, num_classes: int, *, bias: bool = True) -> None:
        super().__init__()
        hidden = max(teacher_width // 2, 1)
        self.projector = nn.Sequential(
            *(nn.Linear(student_width, hidden, bias=False), nn.BatchNorm1d(hidden), nn.ReLU()),
            *(nn.Linear(hidden, hidden, bias=False), nn.BatchNorm1d(hidden), nn.ReLU()),
            nn.Linear(hidden, teacher_width),
        )
        self.classifier = nn.Linear(teacher_width, num_classes, bias=bias).requires_grad_(False)

    def forward(self, features: Float[Tensor, "batch width"]) -> Float[Tensor, "batch classes"]:
        return self.classifier(self.projector(features))


def reuse_classifier(
    student: nn.Module,
    teacher: nn.Module,
    example: Inputs,
    *,
    teacher_example: Inputs | None = None,
    class_order: Sequence[int] | None = None,
) -> nn.Module:
    """A copy of the student that answers through the teacher's classifier.

    The classifier of each is its last linear layer in the order of execution. Student and teacher are left as they are.

    Args:
        student: a network that ends in a linear layer.
        teacher: a trained one that does, too.
        example: an input of the student, one row or more.
        teacher_example: an input of the teacher; None: it takes the student's.
        class_order: for each class of the data, its number in the teacher's output; None: the same order.

    Returns:
        The copy, with a ``ReusedClassifier`` in place of its last linear layer, on the student's device.

    Raises:
        ModelError: one of them does not end in a linear layer.
        CompatibilityError: they answer for different numbers of classes.

    Source: Chen et al. 2022, arXiv:2203.14001, section 3. The paper projects maps before pooling by convolutions of
    1x1, 3x3 and 1x1; here the pooled features are projected by three linear layers, so that any two networks fit. The
    paper ends the projector in a ReLU, which suits a teacher whose features are not negative; here it ends linearly.
    """
    theirs = teacher.get_submodule(find_classifier(teacher, example if teacher_example is None else teacher_example))
    assert isinstance(theirs, nn.Linear)
    rows = list(range(theirs.out_features)) if class_order is None else list(class_order)
    reusing = with_classifier_of(
        student, example, teacher_width=theirs.in_features, num_classes=len(rows), bias=theirs.bias is not None
    )
    head = next(module for module in reusing.modules() if isinstance(module, ReusedClassifier))
    with torch.no_grad():
        head.classifier.weight.copy_(theirs.weight[rows])
        if theirs.bias is not None:
            head.classifier.bias.copy_(theirs.bias[rows])
    return reusing


def with_classifier_of(
    student: nn.Module, example: Inputs, *, teacher_width: int, num_classes: int, bias: bool = True
) -> nn.Module:
    """The same copy with weights of no meaning: for saved weights that are to be loaded where the teacher is not.

    Args:
        student: a network that ends in a linear layer.
        example: an input of it.
        teacher_width: of the features before the teacher's classifier.
        num_classes: outputs of that classifier.
        bias: whether it has one.

    Raises:
        ModelError: the student does not end in a linear layer.
        CompatibilityError: it answers for another number of classes.
    """
    name = find_classifier(student, example)
    ours = student.get_submodule(name)
    assert isinstance(ours, nn.Linear)
    if ours.out_features != num_classes:
        raise CompatibilityError(
            f"the student has {ours.out_features} classes and the teacher's classifier {num_classes}; both must answer "
            "for the same classes"
        )
    head = ReusedClassifier(ours.in_features, teacher_width, num_classes, bias=bias)
    head = head.to(ours.weight).train(ours.training)
    if not name:
        return head
    reusing = copy.deepcopy(student)
    reusing.set_submodule(name, head)
    return reusing


def find_classifier(model: nn.Module, example: Inputs) -> str:
    """The name of the last linear layer, whose output is the network's; "" where the network is that layer.

    Raises:
        ModelError: something else comes after it, or there is none.

    >>> find_classifier(nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 3)), torch.ones(1, 2))
    '2'
    """
    last: list[tuple[str, Any]] = []

    def note(name: str) -> Any:
        return lambda _, __, output: last.append((name, output))

    linear = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    handles = [module.register_forward_hook(note(name)) for name, module in linear.items()]
    try:
        with torch.no_grad(), _evaluating(model):
            answer = first_tensor(model(example))
    finally:
        for handle in handles:
            handle.remove()
    if not last or answer is None or last[-1][1].shape != answer.shape or not torch.equal(last[-1][1], answer):
        where = (
            f"after its last linear layer, {last[-1][0]!r}, something else changes its output"
            if last
            else "it has none"
        )
        raise ModelError(
            f"{type(model).__name__} does not end in a linear layer: {where}. A classifier can only be reused between "
            "networks that do; use hints or feature-cosine on the layers before it"
        )
    return last[-1][0]


@contextmanager
def _evaluating(model: nn.Module) -> Any:
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
