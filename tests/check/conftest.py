"""A recipe that the pre-flight looks at."""

from collections.abc import Callable

import pytest

from distil.check.check import check_recipe
from distil.check.finding import Finding
from distil.recipe.load import parse_recipe

SMALL = """
name: small
data: {kind: digits, labels: 100}
teacher:
  model: {kind: convnet, widths: [8], dropout: 0.3}
  labels: all
  training: {epochs: 2, batch_size: 64}
student:
  model: {kind: mlp, widths: [16]}
objective:
  true-labels: {kind: true-labels, weight: 0.1}
  soft-targets: {kind: soft-targets, weight: 0.9, temperature: 4}
training: {epochs: 2, batch_size: 64}
seeds: 5
placement: {threads: 1}
"""

Checker = Callable[..., list[Finding]]


@pytest.fixture(scope="session")
def check() -> Checker:
    """The findings on the small recipe with overrides."""
    return lambda *overrides: check_recipe(parse_recipe(SMALL, overrides))


@pytest.fixture(scope="session")
def sound(check: Checker) -> list[Finding]:
    return check()


def about(findings: list[Finding], text: str) -> list[Finding]:
    """The findings that say this."""
    return [finding for finding in findings if text in finding.what]
