"""The learned systems of quality, on a shop small enough to count by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks.quality import learned, protocol, ranking, rechub, steady, variants
from benchmarks.quality.two_tower import TwoTower
from models.candidates import NEGATIVE, POSITIVE
from models.fit import FitOptions
from models.mind import Mind, MindConfig

CONFIG = MindConfig(width=8, hidden=(8,), normalise=True, power=1.0)
SETTING = learned.Setting(CONFIG, FitOptions(epochs=2, targets=2, batch=2), popular_weight=1.0)


@pytest.mark.parametrize("system", learned.NETWORKS)
def test_a_seed_gives_one_network(part: protocol.Part, system: str) -> None:
    scores = [learned.scorer_of(part, learned.fit(part, system, SETTING, seed=7), SETTING) for _ in range(2)]
    first, second = (score(part.questions) for score in scores)
    assert first.shape == (2, 6)
    assert first.tolist() == second.tolist()


def test_popularity_that_is_only_asked_is_added_to_the_score(part: protocol.Part) -> None:
    network = learned.fit(part, "mind", replace(SETTING, popular_weight=0.0), seed=7)
    plain = learned.scorer_of(part, network, replace(SETTING, popular_weight=0.0))(part.questions)
    more = learned.scorer_of(part, network, replace(SETTING, popular_weight=2.0))(part.questions)
    expected = 2 * np.log1p([[0, 1, 0, 1, 0, 0], [1, 1, 1, 2, 1, 0]])  # the 4th to the 10th; the 6th to the 12th
    assert more - plain == pytest.approx(expected, abs=1e-5)


def test_training_starts_from_popularity(part: protocol.Part, monkeypatch: pytest.MonkeyPatch) -> None:
    """The trainer is given what recent popularity adds unless it is only asked."""
    given = []
    whole = learned.mind_trainer
    monkeypatch.setattr(learned, "mind_trainer", lambda *rest: given.append(rest[-1]) or whole(*rest))
    for where in ("training", "asked"):
        learned.fit(part, "mind", replace(SETTING, popular_from=where), seed=7)
    assert given[0].by_day.sum() > 0
    assert given[1] is None


def test_two_towers_do_not_see_padding_or_order(part: protocol.Part) -> None:
    network = TwoTower(CONFIG, part.spec, part.vocabularies)
    rows = torch.tensor([[2, 3, 4, 0], [4, 2, 3, 0]])
    vectors, count, _ = network.interests(rows)
    longer, _, _ = network.interests(torch.nn.functional.pad(rows, (0, 3)))
    assert count.tolist() == [1, 1]
    assert torch.allclose(vectors[0], vectors[1])
    assert torch.allclose(vectors, longer)


def test_steadiness_by_item_is_that_of_the_served_network(part: protocol.Part) -> None:
    mind = Mind(CONFIG, part.spec, part.vocabularies)
    rows = torch.tensor([[2, 3, 4, 0], [4, 4, 0, 0]])
    ours, count, _ = mind.interests(rows)
    again, active = steady._interests(mind, [rows], steady.starts_of(mind, 1)["item"])
    assert torch.allclose(ours, again, atol=1e-5)
    assert count.tolist() == active.tolist()


def test_another_projects_model_is_told_what_the_user_had(part: protocol.Part) -> None:
    told = rechub._told(part, part.questions)
    assert told["history"][:, :4].tolist() == [[3, 2, 1, 0], [2, 1, 0, 0]]  # newest first, catalogue rows from 1
    assert told["profile"].tolist() == [0, 0]


def test_a_list_is_labelled_by_what_was_had_on_the_day(part: protocol.Part) -> None:
    found = ranking.retrieve(part, part.questions, lambda asked: np.tile([6.0, 5, 4, 3, 2, 1], (len(asked), 1)))
    assert found.found.items[0].tolist() == [0, 1, 2, 3, 4, 5]
    assert np.flatnonzero(found.found.labels[0] == POSITIVE).tolist() == [0, 3]
    assert np.flatnonzero(found.found.labels[1] == NEGATIVE).tolist() == [0, 1, 2, 3, 5]
    assert ranking.reordered(found, -found.found.scores)[1].tolist() == [5, 4, 3, 2, 1, 0]


@pytest.mark.parametrize("system", ranking.RANKERS)
def test_every_ranker_orders_lists(part: protocol.Part, system: str) -> None:
    lists = ranking.retrieve(part, part.questions, lambda asked: np.tile([6.0, 5, 4, 3, 2, 1], (len(asked), 1)))
    setting = ranking.RankSetting(
        ranking.BstConfig(width=16, heads=2, mlp=(8,)), FitOptions(epochs=1, batch=2, learning_rate=0.001)
    )
    scores = ranking.order(lists, ranking.fit(lists, system, setting, seed=3), setting)
    assert scores.shape == (2, 6)
    assert np.isfinite(scores).all()
    assert set(ranking.quality(scores, lists)) == {"auc", "gauc", "ndcg@10"}


def test_a_change_of_what_a_ranker_is_told_reaches_it(part: protocol.Part) -> None:
    lists = ranking.retrieve(part, part.questions, lambda asked: np.tile([6.0, 5, 4, 3, 2, 1], (len(asked), 1)))
    setting = ranking.RankSetting(ranking.BstConfig(width=16, heads=2, mlp=(8,)), FitOptions(batch=2))
    plain = ranking.inputs_of(lists, setting)
    assert plain["cross"].shape == (2, 6, 4)
    assert plain["gap"][0, :4].tolist() == [6, 6, 6, 0]  # nine and ten days: from 168 to 336 hours
    no_gaps = ranking.inputs_of(lists, variants.CHANGES["no time gaps"](setting))
    assert no_gaps["gap"][0, :4].tolist() == [1, 1, 1, 0]  # one bucket, and padding
    alone = ranking.inputs_of(lists, variants.CHANGES["no cross features but the retrieval score"](setting))
    assert alone["cross"].tolist() == plain["cross"][..., :1].tolist()
    assert ranking.inputs_of(variants.short(lists, 2), setting)["history_item_id"].shape == (2, 2)


def test_pairs_hold_the_newest_behaviours_last(part: protocol.Part) -> None:
    lists = ranking.retrieve(part, part.questions, lambda asked: np.tile([6.0, 5, 4, 3, 2, 1], (len(asked), 1)))
    setting = ranking.RankSetting(ranking.BstConfig(width=16, heads=2, mlp=(8,)), FitOptions(targets=1, ratio=1))
    inputs = ranking.inputs_of(lists, setting)
    kept = np.zeros((2, 6), dtype=bool)
    kept[0, 3] = kept[1, 4] = kept[1, 0] = True
    pairs = rechub._pairs(inputs, kept)
    assert pairs["candidate_item_id"].tolist() == [
        inputs["candidate_item_id"][user, item] for user, item in ((0, 3), (1, 0), (1, 4))
    ]
    assert pairs["history_item_id"][0, -3:].tolist() == inputs["history_item_id"][0, 2::-1].tolist()
    assert pairs["history_item_id"][1].tolist() == pairs["history_item_id"][2].tolist()
    assert pairs["cross"].shape == (3, 4)


def test_lists_that_stay_are_counted_without_their_order() -> None:
    one = np.arange(100)[None] * np.array([[1], [1]])
    other = np.stack([one[0, ::-1], np.r_[np.arange(25, 50), np.arange(200, 275)]])
    assert steady.shared(one, other) == pytest.approx((0 + 0.5) / 2)


def test_a_warm_start_goes_on_from_the_night_before(made, part: protocol.Part) -> None:
    """With a learning rate of nearly nothing the warm one stays what it was, and its lists too."""
    still = replace(SETTING, options=replace(SETTING.options, learning_rate=1e-12))
    mind = learned.fit(part, "mind", SETTING, seed=3)
    rows = steady.retrained(made, part, mind, still, seed=3)
    assert set(rows) == {"warm", "cold"}
    assert all(set(row) == {"overlap@50", "new.hr@50"} for row in rows.values())
    assert rows["warm"]["overlap@50"] == pytest.approx(6 / 50)  # six items fit into fifty places: all of them stay
