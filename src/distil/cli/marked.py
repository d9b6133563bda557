"""Texts of a check with what is supervised in green; where there are no colours, in brackets."""

import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from distil.cli.summary import WIDTH_WITHOUT_TERMINAL

STYLES = {"supervised": "green", "read": "", "dropped": "dim"}
BRACKETS = {"supervised": ("{", "}"), "read": ("", ""), "dropped": ("<", ">")}
MEANINGS = {"supervised": "supervised", "read": "read", "dropped": "cut off or padding"}


def print_texts(findings: Sequence[Any]) -> None:
    """The texts of those findings that have some, under what they say."""
    width = None if sys.stdout.isatty() else WIDTH_WITHOUT_TERMINAL
    console = Console(soft_wrap=True, highlight=False, markup=False, emoji=False, width=width)
    in_colour = console.color_system is not None
    for finding in (finding for finding in findings if finding.texts):
        used = {piece.mark for pieces in finding.texts for piece in pieces}
        legend = [_marked(meaning, mark, in_colour=in_colour) for mark, meaning in MEANINGS.items() if mark in used]
        console.print(Text(f"{finding.what} ("), Text(", ").join(legend), Text(")"), sep="")
        for number, pieces in enumerate(finding.texts, start=1):
            marked = (_marked(piece.text, piece.mark, in_colour=in_colour) for piece in pieces)
            console.print(Text.assemble(f"  {number}. ", *marked))


def _marked(text: str, mark: str, *, in_colour: bool) -> Text:
    before, after = ("", "") if in_colour else BRACKETS[mark]
    line = text.replace("\r", " ").replace("\n", " ")
    return Text(f"{before}{line}{after}", style=STYLES[mark])
