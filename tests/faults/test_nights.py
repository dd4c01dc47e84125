"""Bad nights are refused and good ones are not: a few of each here, all of them by ``tests.faults.trials``."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tests.faults.nights import Kind, Tables, bad_kinds, good_kinds
from tests.faults.trials import SHORT, short_form

END = 1_775_001_600


@pytest.fixture
def tables() -> Tables:
    """Forty days of sixty users."""
    rng = np.random.default_rng(3)
    count = 3_000
    seconds = END - 60 - rng.integers(0, 40 * 86_400, count)
    times = pa.array(seconds).cast(pa.timestamp("s", tz="UTC"))
    return Tables(
        pa.table({"user_id": rng.integers(0, 60, count), "item_id": rng.integers(0, 80, count), "time": times}),
        pa.table({"item_id": np.arange(80), "eligible": [True] * 80, "kind": ["a", "b"] * 40, "size": ["s", "l"] * 40}),
        pa.table({"user_id": np.arange(66), "country": ["de", "de", "fr"] * 22}),
        END,
        "country",
    )


@pytest.mark.parametrize("kind", [*bad_kinds(), *good_kinds()], ids=lambda kind: kind.name)
def test_a_night_differs_by_its_kind_and_by_its_seed(tables: Tables, kind: Kind) -> None:
    """Each kind changes inputs, models or what a step has left; the same seed gives the same, in the same columns."""
    one, again = (kind.change(tables, np.random.default_rng(5)) for _ in range(2))
    assert one == again
    elsewhere = kind.after or kind.untrained_index or kind.bundles != "bundles" or kind.name == "an ordinary day"
    assert bool(elsewhere) is (one == tables)
    for name in ("interactions", "items", "users"):
        assert getattr(one, name).schema.names == getattr(tables, name).schema.names


def test_there_are_enough_kinds() -> None:
    """At least twenty-five kinds of bad nights, each with a name of its own; the short form names a dozen of them."""
    names = [kind.name for kind in bad_kinds()]
    assert len(set(names)) == len(names) >= 25
    assert len(SHORT) == 12
    assert set(SHORT) <= set(names)


def test_bad_nights_are_refused_and_good_ones_are_not(tmp_path: Path) -> None:
    """Through all steps of real nights, what went wrong is refused, and what is only unusual is published."""
    found = short_form(tmp_path, seed=2, bad=3, good=2)
    assert found["bad_nights"]["tried"] == found["bad_nights"]["refused"] == 3
    assert (found["good_nights"]["tried"], found["good_nights"]["refused"]) == (4, 0)
