"""The search of quality: as many trials for every system, and the best epoch of each."""

import json
from pathlib import Path

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


def test_sizes_are_tried_of_mind_alone_and_negatives_where_they_are_drawn() -> None:
    tried = {data: search.trials(data, "mind", 4, sizes=True) for data in ("online_retail", "complete_journey")}
    assert [lever for lever in tried["complete_journey"] if lever not in tried["online_retail"]] == [
        "256 negatives",
        "4,096 negatives",
    ]
    told = {lever: (made.config.width, made.config.interests, made.behaviours, made.options.draws)
            for lever, made in tried["complete_journey"].items()}  # fmt: skip
    assert told["width 128"] == (128, 4, 100, 1024)
    assert told["8 interests"] == (64, 8, 100, 1024)
    assert told["20 behaviours"] == (64, 4, 20, 1024)
    assert told["256 negatives"] == (64, 4, 100, 256)


def test_a_trial_is_worth_its_best_epoch_by_the_sum_of_both_figures() -> None:
    epochs = [
        {"new.hr@50": 0.5, "all.hr@50": 0.25, "all.ndcg@10": 0.9},
        {"new.hr@50": 0.25, "all.hr@50": 0.625, "all.ndcg@10": 0.1},
        {"new.hr@50": 0.5, "all.hr@50": 0.125, "all.ndcg@10": 0.1},
    ]
    assert search.best_of(epochs) == {"epoch": 2, "epochs": 3, "new.hr@50": 0.25, "all.hr@50": 0.625}


def test_a_search_that_is_cut_off_has_tried_as_many_settings_of_each_system() -> None:
    plan = search.planned(["online_retail", "complete_journey"], search.SYSTEMS, epochs=4, first=3)
    assert len(plan) == 2 * 4 * 3
    rows = [plan[start : start + 8] for start in (0, 8, 16)]
    assert {trial.lever for trial in rows[0]} == {search.BEGUN}
    assert [len({(trial.data, trial.system) for trial in row}) for row in rows] == [8, 8, 8]
    assert [trial.lever for trial in plan if (trial.data, trial.system) == ("online_retail", "mind")] == list(
        search.trials("online_retail", "mind", 4)
    )[:3]


def test_the_file_of_a_search_is_the_same_whatever_comes_first(tmp_path: Path) -> None:
    plan = search.planned(["online_retail", "ml100k"], ["torch_rechub", "mind"], epochs=4, first=3)
    files = []
    for name, order in (("forwards", plan), ("backwards", plan[::-1])):
        files.append(tmp_path / f"{name}.json")
        files[-1].write_text('{"elsewhere": {"mind": {"a lever that is gone": {"epoch": 1}}}}')
        for trial in order:
            search.keep(files[-1], trial, {"epoch": plan.index(trial)})
    assert files[0].read_bytes() == files[1].read_bytes()
    found = json.loads(files[0].read_text())
    assert list(found) == ["ml100k", "online_retail", "elsewhere"]
    assert list(found["ml100k"]) == ["mind", "torch_rechub"]
    assert list(found["ml100k"]["mind"]) == list(search.trials("ml100k", "mind", 4))[:3]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["backwards.json", "forwards.json"]


def test_every_system_is_measured_with_what_the_search_found_best() -> None:
    found = json.loads(search.OUT.read_text())
    assert set(found) <= set(chosen.CHOSEN)
    for data, systems in found.items():
        for system, trials in systems.items():
            best = max(trials, key=lambda lever: trials[lever]["new.hr@50"] + trials[lever]["all.hr@50"])
            assert chosen.CHOSEN[data][system] == (best, trials[best]["epoch"]), (data, system)


def test_sizes_that_were_tried_can_be_tried_again() -> None:
    found = json.loads(search.OUT_OF_SIZES.read_text())
    for data, systems in found.items():
        assert list(systems) == ["mind"]
        assert set(systems["mind"]) <= set(search.trials(data, "mind", 4, sizes=True))
