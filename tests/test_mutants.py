"""What ``make mutants`` counts."""

import tomllib

from tests.mutants import PARTS, ROOT, counts_of


def test_what_is_counted_is_what_is_changed() -> None:
    """The modules of the table are those that mutmut is told to change."""
    configured = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["mutmut"]["only_mutate"]

    assert sorted(configured) == sorted(module for modules in PARTS.values() for module in modules)
    assert all((ROOT / module).is_file() for module in configured)


def test_a_mutant_that_no_test_reaches_has_survived() -> None:
    """Failed tests and endless ones have noticed; passed and missing ones have not; what was not tried is no score."""
    codes = {"failed": 1, "broken": 3, "endless": 36, "passed": 0, "no tests": 33, "not yet": None}

    assert counts_of(codes) == {"mutants": 6, "tried": 5, "killed": 3, "survived": 2, "score": 0.6}
    assert counts_of({})["score"] == 0
