"""Why, on a night of MIND and BST: what was written comes out again, and what is in no list has a reason."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from artifacts.bundle import read_bundle
from artifacts.run import Run, find_run
from artifacts.tables import read_table
from batch.explain import Explanation, Fate, explain
from nightrec.steps import score_options
from tests.night.shop import CATEGORIES, DATE, ITEMS, Shop

USERS = (0, 7, 11, 401)  # 401 is cold


@pytest.fixture(scope="module")
def run(plain: Path) -> Run:
    return find_run(plain / "store", DATE)


@pytest.fixture(scope="module")
def told(run: Run, shop: Shop) -> dict[tuple[int, str], Explanation]:
    """What is said of all items, for a few users."""
    bundles = {f"{role}": read_bundle(shop.folder / "bundles" / role) for role in ("user", "ranker")}
    return {
        (user, item): explain(
            run,
            user,
            item,
            score_options(run.semantic),
            user_bundle=bundles["user"],
            ranker=bundles["ranker"],
        )
        for user in USERS
        for item in [f"item-{number:04d}" for number in range(0, ITEMS, 6 if user else 1)]
    }


@pytest.fixture(scope="module")
def rows(run: Run) -> dict[tuple[int, str], dict[str, Any]]:
    tables = [read_table(run.layout.scores(shard, run.shards)) for shard in range(run.shards)]
    return {(row["user_id"], row["item_id"]): row for row in pa.concat_tables(tables).to_pylist()}


def test_what_was_written_comes_out_again_to_the_bit(
    told: dict[tuple[int, str], Explanation], rows: dict[tuple[int, str], dict[str, Any]]
) -> None:
    """The night computed 16 users side by side; alone, each has the same numbers."""
    ranked = 0
    for pair, said in told.items():
        assert said.same in {True, None}, pair
        row = rows.get(pair)
        assert (said.listed is None) == (row is None), pair
        if row is None or row["score"] is None:
            continue
        assert said.fate is Fate.RANKED
        assert said.retrieval
        assert said.ranking
        assert (said.retrieval.interest, said.retrieval.exact) == (row["interest"], row["retrieval_score"]), pair
        assert said.ranking.score == row["score"]
        assert said.retrieval.stored == pytest.approx(said.retrieval.exact, abs=1e-5)  # Flat keeps vectors whole
        ranked += 1
    assert ranked >= 8


def test_every_item_has_a_place_or_a_reason(told: dict[tuple[int, str], Explanation]) -> None:
    """User 0 is asked about all items: ranks and reasons add up to what the config says."""
    mine = {item: said for (user, item), said in told.items() if user == 0}
    fates = Counter(said.fate for said in mine.values())
    candidates = sorted(said.retrieval.rank for said in mine.values() if said.retrieval and said.retrieval.rank)
    by_score = sorted(said.ranking.rank for said in mine.values() if said.ranking)

    assert candidates == by_score == list(range(1, 21))  # [retrieve] candidates = 20
    assert fates[Fate.RANKED] + fates[Fate.FALLBACK] == 10  # [score] top_n
    assert fates[Fate.NO_ITEM] == 1  # item-0000 is excluded
    assert fates[Fate.NOT_ELIGIBLE] == 8  # every twentieth
    assert fates[Fate.RANKED] + fates[Fate.RULE] + fates[Fate.BELOW] == 20
    for item, said in mine.items():
        if said.fate is Fate.RULE:
            assert said.broken
            assert (said.broken.group, said.broken.at_most, len(said.broken.before)) == ("category", 4, 4)
            alike = {int(one[-4:]) % len(CATEGORIES) for one in (item, *map(str, said.broken.before))}
            assert len(alike) == 1
        if said.fate is Fate.TOO_FAR:
            assert said.retrieval
            assert said.retrieval.exact_rank
            assert said.retrieval.exact_rank > 20


def test_routing_weights_share_each_click_among_the_interests(told: dict[tuple[int, str], Explanation]) -> None:
    """The weights of the last round: for each click they add up to 1 over the user's interests."""
    for user in USERS[:3]:
        said = told[user, "item-0006"]
        assert len(said.clicks) == said.history_length
        for click in said.clicks:
            assert click.weights
            assert sum(click.weights) == pytest.approx(1, abs=1e-5)
            if said.retrieval:
                assert len(click.weights) == said.retrieval.interests
    assert told[401, "item-0006"].clicks == ()
    assert np.all([told[401, item].retrieval is None for user, item in told if user == 401])
