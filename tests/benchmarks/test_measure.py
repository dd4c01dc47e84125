"""Seeds put together, from values made by hand."""

import pytest

from benchmarks.quality import __main__ as main
from benchmarks.quality import measure


def test_each_metric_is_the_mean_and_the_deviation_over_seeds() -> None:
    seeds = [{"retrieval": {"mind": {"new.hr@50": value}}} for value in (0.1, 0.2, 0.6)]
    floor = {"retrieval": {"popular": {"new.hr@50": 0.4}}}
    found = measure.together([floor, *seeds])
    mean, deviation = found["retrieval"]["mind"]["new.hr@50"]
    assert mean == pytest.approx(0.3)
    assert deviation == pytest.approx(((0.04 + 0.01 + 0.09) / 2) ** 0.5)
    assert found["retrieval"]["popular"]["new.hr@50"] == [0.4, 0.0]


def test_parts_of_different_jobs_lie_side_by_side() -> None:
    found = measure.together([{"steady": {"item": {"overlap@50": 0.9}}}, {"chain": {"retrieve": {"all.ndcg@10": 0.2}}}])
    assert set(found) == {"steady", "chain"}


def test_every_seed_measures_as_much() -> None:
    assert all(measure.Job("online_retail", seed).measures("variants") for seed in main.SEEDS)
    assert not any(measure.Job("complete_journey", seed).measures("variants") for seed in main.SEEDS)


def test_the_short_form_leaves_peers_out_and_fits_rankers_once_over() -> None:
    job = measure.Job("ml100k", 1, short=True)
    assert not job.measures("peers")
    assert job.measures("variants")
    assert job.rankers["all"].options.epochs == 1
    assert measure.Job("ml100k", 1).rankers["all"].options.epochs > 1


def test_every_job_whose_seconds_are_told_is_a_job() -> None:
    assert {name for name, _ in main.SECONDS} <= set(main.ORDER)
    assert {seed for _, seed in main.SECONDS} <= {main.FLOORS, *main.SEEDS}
