"""Bundles are judged without a night: their lists on a night that is worked out by hand, and what they are refused."""

import json
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from nightrec.config import read_config
from nightrec.evaluate import _events, _of_bundles, _questions
from nightrec.exact import _keep_best, _nothing
from nightrec.main import execute
from tests.nightrec import hand

LATER = pa.scalar(hand.END + timedelta(hours=30), pa.timestamp("us", tz="UTC"))


@pytest.fixture
def rng() -> np.random.Generator:
    """Chance of a seed."""
    return np.random.default_rng(3)


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """The night of :mod:`tests.nightrec.hand`; of its users 1 came back on the next day, for the items 3 and 1."""
    hand.write_bundles(tmp_path / "bundles")
    hand.write_data(tmp_path / "data")
    path = tmp_path / "data" / "events.parquet"
    events = pq.read_table(path)
    again = {"user_id": [1, 1], "item_id": [3, 1], "time": [hand.END + timedelta(hours=hour) for hour in (5, 6)]}
    pq.write_table(pa.concat_tables([events, pa.table(again).cast(events.schema)]), path)
    (tmp_path / "job.toml").write_text(hand.CONFIG)
    return tmp_path / "job.toml"


def listed(shop: Path) -> dict[str, dict[str, list[int]]]:
    """The lists of user 1, as ids of items."""
    config = read_config(shop)
    judged = _of_bundles(config, hand.DATE)
    sequences = _events(config, judged, date(2026, 3, 17))
    questions = _questions(config, sequences, judged.until, 7)
    systems, _ = judged.answers(sequences, questions)
    ids = sequences.catalogue["item_id"].to_numpy()
    return {
        name: {kind: [int(ids[row]) for row in rows[0] if row >= 0] for kind, rows in lists.items()}
        for name, lists in systems.items()
    }


def test_bundles_search_the_whole_catalogue_and_order_what_they_found(shop: Path) -> None:
    """Of interests (1, 0.5) and (0, 1.5) the better one counts; what may not be found is no answer."""
    assert listed(shop) == {
        "retrieval, then ranker": {"all": [6, 3, 4, 2], "new": [6, 3, 5, 4]},
        "retrieval": {"all": [4, 6, 3, 2, 5, 7, 1, 8, 9], "new": [4, 6, 3, 5, 7, 8, 9]},
    }


def test_what_comes_after_the_date_is_told_to_no_model(shop: Path) -> None:
    """Two events with items of no catalogue, before the day that is asked, would push a click out of the four."""
    usual = listed(shop)
    path = shop.parent / "data" / "events.parquet"
    events = pq.read_table(path)
    later = {"user_id": [1, 1], "item_id": [4711, 4712], "time": [hand.END + timedelta(hours=hour) for hour in (1, 2)]}
    events = events.set_column(2, "time", pc.if_else(pc.less(events["time"], hand.END), events["time"], LATER))
    pq.write_table(pa.concat_tables([events, pa.table(later).cast(events.schema)]), path)

    assert listed(shop) == usual


def test_of_equals_the_lower_rows_are_kept(rng: np.random.Generator) -> None:
    """Whatever stands between: scores of five values among 300 items, against a stable sort."""
    scores = rng.integers(0, 5, (40, 300)).astype(np.float32)
    scores[:, ::7] = -np.inf
    found = _nothing(40, 10)

    _keep_best(found, np.arange(40), scores)

    np.testing.assert_array_equal(found.items, np.argsort(-scores, axis=1, kind="stable")[:, :10])


def test_recent_popularity_counts_as_at_night(shop: Path) -> None:
    """Of items that had events before the date - 2 thrice, 1 and 5 once - a large weight makes the first."""
    shop.write_text(shop.read_text().replace("[retrieve]", "[retrieve]\npopularity_weight = 100.0"))
    assert listed(shop)["retrieval"]["all"] == [2, 5, 1, 4, 6, 3, 7, 8, 9]


def test_bundles_stand_beside_the_floors(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The date is the last that they learnt from, where none is given; the floors are those of a release."""
    assert execute(["evaluate", "--config", str(shop), "--bundles", "--date", hand.DATE, "--json"]) == 0

    said = capsys.readouterr()
    told = json.loads(said.out)
    assert (told["date"], told["users"], told["length"]) == (hand.DATE, 1, 4)
    assert list(told["bundles"]) == ["item", "user", "ranker"]
    assert list(told["systems"])[:2] == ["retrieval, then ranker", "retrieval"]
    best = 1 / np.log2(3)  # item 3 is second, item 1 nowhere
    assert told["systems"]["retrieval, then ranker"]["all.ndcg@4"] == pytest.approx(best / (1 + best))
    assert "the data ends on 2026-03-11, 1 of the 7 days after 2026-03-10: who comes back later is not" in said.err
    assert execute(["evaluate", "--config", str(shop), "--bundles"]) == 5
    assert "expected events of known users in the 7 days after 2026-03-01, found none" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--date", "2026-02-28"], "item was trained through 2026-03-01, after the data date 2026-02-28: it has seen"),
        (["--release", "2026-03-10-x"], "--bundles judges the bundles of the config; leave --release away"),
    ],
)
def test_bundles_that_cannot_be_judged_are_refused(
    shop: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    """A model that has seen what it would be judged by, and two things to judge at once, are mistakes: code 2."""
    assert execute(["evaluate", "--config", str(shop), "--bundles", *arguments]) == 2
    assert said in capsys.readouterr().err
