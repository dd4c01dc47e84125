"""The learned systems of quality, on a shop small enough to count by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks.quality import learned, protocol, ranking, rechub, steady
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
