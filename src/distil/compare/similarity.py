"""Similarity of what two networks see: linear centred kernel alignment (CKA) of every pair of their stages."""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from distil.check.sample import spread
from distil.core.errors import CompatibilityError
from distil.core.inputs import Inputs, real_tokens
from distil.data.batch import Batch
from distil.data.example import Examples, ImageExamples, TextExamples
from distil.data.feed import evaluation_batches
from distil.models.describe import ModelDescription
from distil.models.tap import Tap, Taps
from distil.objective.alignment import is_per_token, stages
from distil.pipeline.context import Context
from distil.pipeline.student import VIEW
from distil.pipeline.teacher import ReadyTeacher
from distil.tasks.network import Network

EXAMPLES = 512
POSITIONS = 4  # along each side of a map; 4 x 4 of a row of tokens
BATCH = 128
ROUNDING = 1e-12  # relative; what varies by less is constant


@dataclass(frozen=True)
class Similarity:
    """CKA of every stage of a student (rows) with every stage of a teacher (columns), by layer name."""

    student: tuple[str, ...]
    teacher: tuple[str, ...]
    values: tuple[tuple[float, ...], ...]
    examples: int


def linear_cka(
    student: Float[Tensor, "examples features"],
    teacher: Float[Tensor, "examples teacher_features"],
    *,
    unbiased: bool = True,
) -> Float[Tensor, ""]:
    r"""How alike two sets of features place the same examples.

    .. math:: \frac{\mathrm{HSIC}(K, L)}{\sqrt{\mathrm{HSIC}(K, K) \, \mathrm{HSIC}(L, L)}}, \quad
        K = X X^\top, \; L = Y Y^\top

    with X and Y the student's and the teacher's features. Unbiased, with zeros on the diagonals of K and L:

    .. math:: \mathrm{HSIC}(K, L) = \frac{1}{n (n - 3)} \left[ \mathrm{tr}(K L)
        + \frac{1^\top K 1 \; 1^\top L 1}{(n - 1)(n - 2)} - \frac{2}{n - 2} 1^\top K L 1 \right]

    Otherwise the plain estimate: the trace of K L with both centred, up to a factor that cancels. It grows with the
    number of features: where features outnumber examples, even independent noise comes near 1, and a wide layer looks
    more alike than a narrow one. Layers of different width are compared here on few examples, so unbiased is the
    default. Rotations and a common scale of the features change nothing.

    Args:
        student: features, computed in float64; of the two forms, features by features and examples by examples, the
            cheaper one is taken.
        teacher: features of the same examples in the same order.
        unbiased: whether the estimate does not grow with the number of features. It needs four examples.

    Returns:
        -1 to 1 unbiased (about 0 where the two are independent), 0 to 1 otherwise; 1 for equal features, 0 where one of
        the two does not vary.

    Raises:
        CompatibilityError: the numbers of examples differ, or there are too few.

    Source: Kornblith, Norouzi, Lee, Hinton 2019, arXiv:1905.00414, section 3 and appendix A for the two forms; the
    unbiased estimate is Song, Smola, Gretton, Bedo, Borgwardt 2012, JMLR 13, equation 4, as in Nguyen, Raghu, Kornblith
    2021, arXiv:2010.15327, section 2.1, there over minibatches, here on all examples at once.

    >>> features = torch.tensor([[0.0, 1.0], [2.0, 0.0], [1.0, 3.0], [4.0, 1.0], [2.0, 2.0]])
    >>> round(linear_cka(features, 3 * features.flip(1)).item(), 6)
    1.0
    """
    least = 4 if unbiased else 2
    if len(student) != len(teacher) or len(student) < least:
        raise CompatibilityError(
            f"features of {len(student)} examples of the student and {len(teacher)} of the teacher; both must be of "
            f"the same examples, at least {least}"
        )
    return _Features(student, unbiased=unbiased).cka(_Features(teacher, unbiased=unbiased))


def pooled(value: Float[Tensor, "batch *shape"]) -> Float[Tensor, "batch features"]:
    """A captured value as one vector an example: maps are averaged to at most 4 x 4 positions, tokens to at most 16."""
    if value.ndim == 4:
        height, width = (min(POSITIONS, size) for size in value.shape[2:])
        return F.adaptive_avg_pool2d(value, (height, width)).flatten(1)
    if value.ndim == 3:
        tokens = min(POSITIONS**2, value.shape[1])
        return F.adaptive_avg_pool1d(value.transpose(1, 2), tokens).flatten(1)
    return value.flatten(1)


def mean_of_tokens(
    value: Float[Tensor, "batch *shape"], real: Bool[Tensor, "batch tokens"], *, tokens_first: bool
) -> Float[Tensor, "batch features"]:
    """A captured value of texts as one vector a text, whatever the number of tokens: their mean, without padding.

    Args:
        value: [batch, tokens, features], or [batch, features, tokens] as convolutions have it; or without tokens.
        real: which tokens are no padding.
        tokens_first: which of the two it is.
    """
    if value.ndim != 3:
        return value.flatten(1)
    value = value if tokens_first else value.transpose(1, 2)
    if value.shape[1] != real.shape[1]:
        return value.mean(dim=1)
    weights = real.to(value.dtype).unsqueeze(-1)
    return (value * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)


def measure_similarity(context: Context, student: Network, teacher: ReadyTeacher) -> Similarity:
    """CKA of all stages of a trained student and a teacher, on up to 512 examples without labels.

    They are validation examples, evenly spread over the split, and training examples where those are fewer.
    """
    ours, theirs = _taps(student.description), _taps(teacher.network.description)
    examples = chosen_examples(context)
    features: dict[tuple[str, Tap], list[Tensor]] = {}
    model = copy.deepcopy(student.model).to(context.placement.device).eval()
    with Taps(model, ours) as watched:
        for batch in _batches(context, examples, student, teacher):
            with torch.no_grad():
                said = watched.observe(model, batch.inputs[VIEW])
            heard = teacher.frozen.observe(batch, theirs)
            for who, network, taps in ((VIEW, student, said.taps), (teacher.name, teacher.network, heard.taps)):
                for tap, value in taps.items():
                    vector = _vector(value.float(), batch.inputs[who], tap, network.description)
                    features.setdefault((who, tap), []).append(vector.cpu())
    teacher.frozen.close()
    rows, columns = (
        [_Features(torch.cat(features[w, t])) for t in taps] for w, taps in ((VIEW, ours), (teacher.name, theirs))
    )
    return Similarity(
        student=tuple(tap.name for tap in ours),
        teacher=tuple(tap.name for tap in theirs),
        values=tuple(tuple(row.cka(column).item() for column in columns) for row in rows),
        examples=len(examples),
    )


def _vector(value: Tensor, inputs: Inputs, tap: Tap, description: ModelDescription) -> Tensor:
    real = real_tokens(inputs)
    return pooled(value) if real is None else mean_of_tokens(value, real, tokens_first=is_per_token(tap, description))


def chosen_examples(context: Context) -> Examples:
    """Up to 512 examples of the validation split, filled up with training examples; no label goes with them."""
    assert context.splits.validation is not None
    chosen = spread(context.splits.validation, EXAMPLES)
    missing = min(EXAMPLES - len(chosen), len(context.splits.train))
    if missing > 0:
        chosen = _joined(chosen, spread(context.splits.train, missing))
    return chosen.hide_labels(keep=torch.zeros(len(chosen), dtype=torch.bool))


def _joined(first: Examples, second: Examples) -> Examples:
    """One after the other, without groups and without what is wanted beside a class."""
    ids, labels = (torch.cat([getattr(each, name) for each in (first, second)]) for name in ("ids", "labels"))
    if isinstance(first, ImageExamples) and isinstance(second, ImageExamples):
        return replace(first, ids=ids, labels=labels, images=torch.cat([first.images, second.images]))
    assert isinstance(first, TextExamples)
    assert isinstance(second, TextExamples)
    columns = {name: (*texts, *second.columns[name]) for name, texts in first.columns.items()}
    return replace(first, ids=ids, labels=labels, columns=columns, wanted={}, groups=None)


def best_pairs(similarity: Similarity) -> list[tuple[str, str]]:
    """Layers of student and teacher in pairs, so that the sum of their similarities is largest.

    As with ``layers: auto``, each stage of the network with fewer of them gets a stage of the other, in order, and the
    last goes with the last. Empty where a network has no stages.
    """
    values = similarity.values
    if not similarity.student or not similarity.teacher:
        return []
    if len(similarity.student) > len(similarity.teacher):
        values = tuple(zip(*values, strict=True))
    chosen = _in_order(values)
    if len(similarity.student) > len(similarity.teacher):
        return [(similarity.student[place], similarity.teacher[number]) for number, place in enumerate(chosen)]
    return [(similarity.student[number], similarity.teacher[place]) for number, place in enumerate(chosen)]


def _in_order(values: Sequence[Sequence[float]]) -> list[int]:
    """For each row a column: rising, the last for the last, with the largest sum. Rows are not more than columns."""
    num_rows, num_columns = len(values), len(values[0])
    best: list[tuple[float, list[int]]] = [(0.0, [])] * num_columns  # of the rows so far, the last of them in column j
    for row in range(num_rows):
        later: list[tuple[float, list[int]]] = []
        for column in range(num_columns):
            before = [best[j] for j in range(column)] if row else [(0.0, [])]
            total, places = max(before, key=lambda each: each[0], default=(float("-inf"), []))
            later.append((total + values[row][column], [*places, column]))
        best = later
    return best[-1][1]


class _Features:
    """Centred features with what does not depend on a partner computed once."""

    def __init__(self, values: Tensor, *, unbiased: bool = True) -> None:
        values = values.detach().to("cpu", torch.float64)
        centred = values - values.mean(dim=0)
        self.varies = bool(centred.norm() > ROUNDING * values.norm())
        self.values, self.unbiased = centred, unbiased
        self.squares = centred.square().sum(dim=1)  # the diagonal of K; minus it are the sums of its rows without it
        self._products: Tensor | None = None
        self.alone = self.hsic(self)

    @property
    def products(self) -> Tensor:
        """K, examples by examples."""
        if self._products is None:
            self._products = self.values @ self.values.T
        return self._products

    def cka(self, other: "_Features") -> Tensor:
        if not (self.varies and other.varies and self._is_apart and other._is_apart):
            return torch.zeros((), dtype=torch.float64)
        return self.hsic(other) / (self.alone * other.alone).sqrt()

    def hsic(self, other: "_Features") -> Tensor:
        """Up to a factor that depends on the number of examples alone."""
        num_examples, width, other_width = len(self.values), self.values.shape[1], other.values.shape[1]
        if width * other_width <= num_examples * (width + other_width):
            trace = (self.values.T @ other.values).square().sum()
        else:
            trace = (self.products * other.products).sum()
        if not self.unbiased:
            return trace
        both = (self.squares * other.squares).sum()
        sums = self.squares.sum() * other.squares.sum() / ((num_examples - 1) * (num_examples - 2))
        return trace - num_examples / (num_examples - 2) * both + sums

    @property
    def _is_apart(self) -> bool:
        """Unbiased, examples that are all equally far from each other do not vary either."""
        return bool(self.alone > ROUNDING * self.squares.sum().square())


def _taps(description: ModelDescription) -> list[Tap]:
    return [Tap(layer.name) for layer in stages(description, take="output")]


def _batches(context: Context, examples: Examples, student: Network, teacher: ReadyTeacher) -> Iterator[Batch]:
    views = {VIEW: student.view, teacher.name: teacher.network.view}
    for batch in evaluation_batches(examples, views=views, batch_size=BATCH, targets=context.task.targets):
        yield batch.to(context.placement.device)
