"""Every figure of one data set and one seed, as {part: {system: {metric: value}}}, and seeds put together."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from benchmarks.quality import findings, floors, learned, protocol, ranking, rechub, steady
from benchmarks.quality.chosen import RANKING, RECHUB_EPOCHS, RETRIEVAL
from benchmarks.quality.data import DATA_SETS, DataSet
from benchmarks.quality.learned import Network, Setting
from benchmarks.quality.protocol import Part, Scorer
from models.examples import Window
from models.mind import Mind

Figures = dict[str, dict[str, dict[str, float]]]
CHOSEN_BY = ("new.hr@50", "all.hr@50")  # their sum
LAST_DAY = "_last_day"  # the data set asked by each user's last day
RANKER_LISTS = 4_000  # the most that rankers are fitted to; evenly spread over users
CHAIN = ("all.ndcg@10", "new.ndcg@10")


def present(name: str) -> DataSet:
    """Give a data set that is here.

    Raises:
        SystemExit: If its files are not.
    """
    data = DATA_SETS[name.removesuffix(LAST_DAY)]()
    if data is None:
        raise SystemExit(f"{name}: its files are not here")
    return data


def judged(part: Part, score: Scorer) -> dict[str, float]:
    """Let a system answer every question of a part, and measure its lists."""
    return protocol.judge(part, protocol.lists_of(part, score))


def worth(measured: dict[str, float]) -> float:
    """Say by what settings are chosen on the validation part."""
    return sum(measured[name] for name in CHOSEN_BY)


# --- floors ---------------------------------------------------------------------------------------------------------

Floor = tuple[list[dict[str, Any]], Callable[[Part, dict[str, Any]], Scorer]]


def floor_systems() -> dict[str, Floor]:
    """Every floor: the settings that are tried on the validation part, and how one becomes a scorer."""
    days = (7, 30)
    return {
        "popular": ([{"days": n} for n in days], lambda part, setting: floors.popular(part, **setting)),
        "own_items": (
            [{"half_life_days": h, "popular_days": n} for h in (30.0, 90.0, 365.0) for n in days],
            lambda part, setting: floors.own_items(part, **setting),
        ),
        "item_knn": (list(floors.knn_settings()), floors.tuned_knn),
    }


def floors_of(name: str, *, short: bool) -> Figures:
    """Choose every floor's setting on the validation part, of equals the first, and judge it on the test part."""
    data = present(name)
    valid = protocol.validation(data)
    test = protocol.last_days(data) if name.endswith(LAST_DAY) else protocol.test(data)
    rows = {}
    for system, (settings, scorer) in floor_systems().items():
        tried = settings[:2] if short else settings
        setting = max(tried, key=lambda one: worth(judged(valid, scorer(valid, one))))
        rows[system] = judged(test, scorer(test, setting))
        tell(name, system, rows[system], str(setting))
    return {"retrieval": rows}


# --- what is fitted -------------------------------------------------------------------------------------------------


def seed_of(name: str, seed: int, *, peers: bool) -> Figures:
    """Fit every learned system on all days before the test part, with one seed, and judge it there.

    Args:
        name: Of the data set.
        seed: What all that is drawn follows from.
        peers: Whether other projects' models are fitted too, in environments of their own.
    """
    torch.set_num_threads(1)
    data = present(name)
    settings = RETRIEVAL[data.name]
    by_last_day = name.endswith(LAST_DAY)
    part = protocol.last_days(data) if by_last_day else protocol.test(data)
    networks, rows = {}, {}
    for system, setting in settings.items():
        networks[system] = learned.fit(part, system, setting, seed=seed)
        rows[system] = judged(part, learned.scorer_of(part, networks[system], setting))
        tell(name, f"{system}, seed {seed}", rows[system])
    how = {"last_days": settings["mind"].last_days, "epochs": RECHUB_EPOCHS, "seed": seed}
    if peers and (theirs := rechub.scorer(part, **how)) is not None:
        rows["torch_rechub"] = judged(part, theirs)
        tell(name, f"torch_rechub, seed {seed}", rows["torch_rechub"])
    if by_last_day:  # small, and with more questions than its days have: here fourteen settings can be compared
        return {"retrieval": rows, "findings": findings.measured(part, settings["mind"], judged, seed=seed)}
    mind = networks["mind"]
    steadiness = {
        how: {"overlap@50": steady.overlap(part, mind, starts)}
        for how, starts in steady.starts_of(mind, seed).items()
        if isinstance(mind, Mind)
    }
    tell(name, f"steady, seed {seed}", {how: value["overlap@50"] for how, value in steadiness.items()})
    return {"retrieval": rows, "steady": steadiness, **ranked(data, part, mind, settings["mind"], seed=seed)}


def ranked(data: DataSet, part: Part, mind: Network, setting: Setting, *, seed: int) -> Figures:
    """Fit the rankers on what a MIND of the days before T1 retrieved on those from it to T2; judge them after T2.

    Where what the user had is left out of the lists, as in ``new``, BST learns from such lists too, as a night's does.
    """
    earlier = protocol.validation(data)
    before = learned.scorer_of(earlier, learned.fit(earlier, "mind", setting, seed=seed), setting)
    days = ranking.days_of(earlier, Window(earlier.cut_us, part.cut_us))
    days = days.take(np.unique(np.linspace(0, len(days) - 1, RANKER_LISTS).round().astype(int)))
    now = learned.scorer_of(part, mind, setting)
    train, asked = {}, {}
    for kind in ("all", "new"):
        train[kind] = replace(ranking.retrieve(earlier, days, before, new=kind == "new"), part=part)
        asked[kind] = ranking.retrieve(part, part.questions, now, new=kind == "new")
    rows = {"retrieval": ranking.quality(asked["all"].found.scores, asked["all"])}
    by_bst = {}
    for system in ranking.RANKERS:
        ranker = ranking.fit(train["all"], system, RANKING["all"], seed=seed)
        scores = ranking.order(asked["all"], ranker, RANKING["all"])
        rows[system] = ranking.quality(scores, asked["all"])
        tell(data.name, f"{system}, seed {seed}", rows[system])
        if system == "bst":
            by_bst["all"] = ranking.reordered(asked["all"], scores)
    of_new = ranking.fit(train["new"], "bst", RANKING["new"], seed=seed)
    by_bst["new"] = ranking.reordered(asked["new"], ranking.order(asked["new"], of_new, RANKING["new"]))
    plain = {kind: lists.found.items for kind, lists in asked.items()}
    chain = {"retrieve": protocol.judge(part, plain), "retrieve_rank": protocol.judge(part, by_bst)}
    tell(data.name, f"chain, seed {seed}", {f"{way} {key}": row[key] for way, row in chain.items() for key in CHAIN})
    return {"ranking": rows, "chain": {way: {key: row[key] for key in CHAIN} for way, row in chain.items()}}


# --- seeds together -------------------------------------------------------------------------------------------------


def together(found: Iterable[Figures]) -> dict[str, dict[str, dict[str, list[float]]]]:
    """Put the figures of floors and seeds together: each metric becomes [mean, deviation of a sample]."""
    values: dict[str, dict[str, dict[str, list[float]]]] = {}
    for figures in found:
        for part, systems in figures.items():
            for system, metrics in systems.items():
                row = values.setdefault(part, {}).setdefault(system, {})
                for metric, value in metrics.items():
                    row.setdefault(metric, []).append(value)
    return {
        part: {
            system: {metric: mean_and_deviation(column) for metric, column in metrics.items()}
            for system, metrics in systems.items()
        }
        for part, systems in values.items()
    }


def mean_and_deviation(values: list[float]) -> list[float]:
    """Give [mean, deviation]; one value deviates by 0."""
    return [float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0]


def tell(data: str, what: str, measured: dict[str, float], how: str = "") -> None:
    """Print some figures in a line."""
    shown = ("all.hr@50", "new.hr@50", "all.ndcg@10", "new.ndcg@10")
    kept = {key: measured[key] for key in shown if key in measured} or measured
    print(f"  {data} {what}: {'  '.join(f'{key} {value:.3f}' for key, value in kept.items())}  {how}", flush=True)
