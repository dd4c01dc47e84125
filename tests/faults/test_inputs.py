"""Every bad input ends in a clear error or in a counted, declared handling; none in a traceback or a silent change."""

from pathlib import Path

import pytest

from tests.faults.ground import Case, complaint
from tests.faults.table import CASES
from tests.night.shop import Shop


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_bad_input_is_named_or_counted(case: Case, shop: Shop, tmp_path: Path) -> None:
    """What is wrong with the input is said in one line, or what was done with it is counted."""
    assert complaint(case, shop, tmp_path) == ""


def test_the_table_is_as_long_as_promised() -> None:
    """At least eighty bad inputs, each with a name of its own."""
    assert len(CASES) >= 80
    assert len({case.name for case in CASES}) == len(CASES)
