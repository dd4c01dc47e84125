"""What makes ``make faults`` fail."""

from typing import Any

import pytest

from tests.faults.__main__ import Tally, tell

WELL: dict[str, Any] = {
    "faults": {"kill -9": Tally(tried=7, survived=7)},
    "bad_inputs": {"tried": 80, "clear": 80},
    "bad_nights": {"tried": 25, "refused": 25},
    "good_nights": {"tried": 200, "refused": 2},
}


def test_nothing_lost_is_well() -> None:
    """All survived, clear or refused, and at most one good night in a hundred."""
    assert tell(WELL) == 0


@pytest.mark.parametrize(
    ("section", "found"),
    [
        ("faults", {"kill -9": Tally(tried=7, survived=6, lost=1)}),
        ("faults", {"kill -9": Tally()}),
        ("bad_inputs", {"tried": 80, "clear": 79}),
        ("bad_nights", {"tried": 25, "refused": 24}),
        ("good_nights", {"tried": 200, "refused": 3}),
        ("good_nights", {"tried": 10, "refused": 2}),
    ],
)
def test_one_that_is_lost_is_told(section: str, found: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    """One of any kind is enough, and its line says so."""
    assert tell({**WELL, section: found}) == 1
    assert section in capsys.readouterr().out


def test_what_the_machine_cannot_do_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    """A kind that was skipped has a line with its reason, and is not lost."""
    why = "no file system can be mounted here (must be superuser)"

    assert tell({**WELL, "faults": {"full disk": Tally(skipped=why)}}) == 0
    assert f"SKIPPED: {why}" in capsys.readouterr().out
