"""The search of quality: as many trials for every system, and the best epoch of each."""

import pytest

from benchmarks.quality import chosen, search


@pytest.mark.parametrize("data", chosen.BASES)
def test_every_system_gets_the_same_number_of_trials(data: str) -> None:
    found = {system: search.trials(data, system, epochs=8) for system in search.SYSTEMS}
    assert {len(trials) for trials in found.values()} == {13}
    for trials in found.values():
        settings = list(trials.values())
        assert all(settings.count(setting) == 1 for setting in settings)  # none is tried twice
    assert list(found["mind"]) == list(found["mind_one"]) == list(found["two_tower"])


def test_a_trial_is_worth_its_best_epoch_by_the_sum_of_both_figures() -> None:
    epochs = [
        {"new.hr@50": 0.5, "all.hr@50": 0.25, "all.ndcg@10": 0.9},
        {"new.hr@50": 0.25, "all.hr@50": 0.625, "all.ndcg@10": 0.1},
        {"new.hr@50": 0.5, "all.hr@50": 0.125, "all.ndcg@10": 0.1},
    ]
    assert search.best_of(epochs) == {"epoch": 2, "epochs": 3, "new.hr@50": 0.25, "all.hr@50": 0.625}
