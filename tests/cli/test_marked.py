"""Texts of a check: in colour where there are colours, otherwise in brackets."""

import pytest

from distil.check.finding import Finding, Piece
from distil.cli.marked import print_texts

TEXT = (Piece("[CLS]", "read"), Piece(" a [bold]\nword", "supervised"), Piece(" and more", "dropped"))
FINDINGS = [Finding("fine", "all well"), Finding("fine", "1 example", texts=(TEXT,))]


def test_without_colours_marks_are_brackets_and_markup_is_text(capsys: pytest.CaptureFixture[str]) -> None:
    print_texts(FINDINGS)
    assert capsys.readouterr().out == (
        "1 example ({supervised}, read, <cut off or padding>)\n  1. [CLS]{ a [bold] word}< and more>\n"
    )


def test_in_colour_supervised_tokens_are_green_and_what_is_dropped_is_dim(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    print_texts(FINDINGS)
    out = capsys.readouterr().out
    assert "\x1b[32m a [bold] word\x1b[0m" in out
    assert "\x1b[2m and more\x1b[0m" in out
    assert "{" not in out


def test_only_marks_that_occur_are_explained_and_findings_without_texts_say_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_texts([Finding("fine", "1 example", texts=((Piece("a", "read"),),))])
    assert capsys.readouterr().out == "1 example (read)\n  1. a\n"
    print_texts([Finding("fine", "all well")])
    assert capsys.readouterr().out == ""
