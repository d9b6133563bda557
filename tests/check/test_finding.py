import pytest

from distil.check.finding import Finding


def test_a_finding_that_is_not_fine_needs_a_reason_and_a_remedy() -> None:
    with pytest.raises(AssertionError):
        Finding("wrong", "something")
    assert Finding("fine", "all well").as_dict() == {"level": "fine", "what": "all well", "why": "", "remedy": ""}
