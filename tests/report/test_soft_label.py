"""What the temperature did."""

from dataclasses import replace

import pytest

from distil.report.record import Gallery, GalleryExample, RunRecord
from distil.report.soft_label import LONGEST_TEXT, MOST_ROWS, cards, columns


def with_example(record: RunRecord, *, label: int, control: tuple[float, ...] | None = None) -> RunRecord:
    example = GalleryExample(
        id="7",
        image=None,
        label=label,
        why="teacher is unsure",
        teacher_plain=(0.9, 0.06, 0.02, 0.01, 0.005, 0.004, 0.001),
        teacher_softened=(0.4, 0.2, 0.15, 0.1, 0.08, 0.05, 0.02),
        student=(0.8, 0.1, 0.05, 0.02, 0.015, 0.01, 0.005),
        control=control,
    )
    return replace(record, gallery=Gallery(4.0, ("a", "b", "c", "d", "e", "f", "g"), (example,)))


def test_the_classes_that_matter_are_shown_and_the_rest_is_summed(record: RunRecord) -> None:
    (card,) = cards(with_example(record, label=0))
    assert [row.name for row in card.rows] == ["a", "b", "c", "d", "e", "2 others"]
    assert [bar.text for bar in card.rows[0].bars] == ["90%", "40%", "80%"]
    assert [bar.width for bar in card.rows[-1].bars] == pytest.approx([0.5, 7.0, 1.5])
    assert card.rows[-1].is_rest


def test_the_true_class_is_always_shown_and_marked(record: RunRecord) -> None:
    (card,) = cards(with_example(record, label=6))
    assert [row.name for row in card.rows if row.is_label] == ["g"]
    assert len(card.rows) == MOST_ROWS + 1


def test_a_control_adds_a_column(record: RunRecord) -> None:
    (card,) = cards(with_example(record, label=0, control=(0, 0, 0, 0, 0, 0, 1.0)))
    assert all(len(row.bars) == 4 for row in card.rows)
    assert card.has_control
    assert "g" in [row.name for row in card.rows]


def test_columns_name_the_temperature(record: RunRecord) -> None:
    heads = [head.replace("\u00a0", " ") for head, _ in columns(record)]
    assert heads == ["Teacher T = 1", "Teacher T = 4", "Student", "Control"]


def test_without_a_gallery_there_is_nothing(bare_record: RunRecord) -> None:
    assert cards(bare_record) == ()
    assert columns(bare_record) == ()


def test_a_text_stands_in_the_place_of_the_picture_and_a_long_one_is_shortened(text_record: RunRecord) -> None:
    first, second, long, _ = cards(text_record)
    assert first.image is None
    assert (first.text or "").startswith("A quiet film")
    assert second.text == "Not bad at all."
    assert long.text is not None
    assert long.text.endswith("…")
    assert len(long.text) <= LONGEST_TEXT
