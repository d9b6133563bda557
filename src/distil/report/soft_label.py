"""What the temperature did: the teacher's probabilities plain and softened, beside the student's, on real examples."""

from dataclasses import dataclass

from distil.report.number import Number, plain, rough_percent
from distil.report.record import Gallery, GalleryExample, RunRecord
from distil.report.series import series_of

MOST_ROWS = 5
LONGEST_TEXT = 500  # characters; a card is not the place to read an article


@dataclass(frozen=True)
class Bar:
    """One probability: its text and the width of its bar, 0..100."""

    text: str
    width: Number


@dataclass(frozen=True)
class ClassRow:
    """One class in every column. ``is_label`` marks the true class, ``is_rest`` all the classes that are not shown."""

    name: str
    bars: tuple[Bar, ...]
    is_label: bool = False
    is_rest: bool = False


@dataclass(frozen=True)
class Card:
    """One example: the picture or the text, the true class, why it was chosen, and the table."""

    id: str
    image: str | None
    text: str | None
    label: str | None
    why: str
    rows: tuple[ClassRow, ...]
    has_control: bool


def cards(record: RunRecord) -> tuple[Card, ...]:
    """One card for each example of the gallery; none without a gallery."""
    if record.gallery is None:
        return ()
    return tuple(_card(record.gallery, example) for example in record.gallery.examples)


def columns(record: RunRecord) -> tuple[tuple[str, str], ...]:
    """(head, class in the style sheet) of every column, in the order of the bars."""
    if record.gallery is None:
        return ()
    softened = f"T\u00a0=\u00a0{plain(record.gallery.temperature)}"
    heads = [("Teacher T\u00a0=\u00a01", "teacher"), (f"Teacher {softened}", "softened"), ("Student", "distilled")]
    control = record.verdict.best_control
    if control is None:
        return (*heads, ("Control", "1"))
    return (*heads, ("Control", series_of(record)["arm", control].style))


def _card(gallery: Gallery, example: GalleryExample) -> Card:
    distributions = [example.teacher_plain, example.teacher_softened, example.student]
    if example.control is not None:
        distributions.append(example.control)
    shown = _most_telling(distributions, example.label)
    rows = [
        ClassRow(gallery.class_names[index], _bars([each[index] for each in distributions]), index == example.label)
        for index in shown
    ]
    if len(shown) < len(gallery.class_names):
        rest = [max(0.0, 1 - sum(each[index] for index in shown)) for each in distributions]
        others = len(gallery.class_names) - len(shown)
        rows.append(ClassRow(f"{others} others", _bars(rest), is_rest=True))
    label = None if example.label is None else gallery.class_names[example.label]
    return Card(
        id=example.id,
        image=example.image,
        text=_shortened(example.text) if example.text else None,
        label=label,
        why=example.why,
        rows=tuple(rows),
        has_control=example.control is not None,
    )


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST_TEXT else text[: LONGEST_TEXT - 1].rstrip() + "…"


def _most_telling(distributions: list[tuple[Number, ...]], label: int | None) -> list[int]:
    """The classes that any column gives most to, most of the softened teacher first; the true one is always there."""
    softened = distributions[1]
    classes = range(len(softened))
    ranked = sorted(classes, key=lambda index: max(each[index] for each in distributions), reverse=True)
    chosen = ranked[:MOST_ROWS]
    if label is not None and label not in chosen:
        chosen[-1] = label
    return sorted(chosen, key=lambda index: softened[index], reverse=True)


def _bars(probabilities: list[Number]) -> tuple[Bar, ...]:
    return tuple(Bar(rough_percent(value), round(100 * min(1.0, max(0.0, value)), 1)) for value in probabilities)
