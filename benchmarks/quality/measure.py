"""Every figure of one data set and one seed, as {part: {system: {metric: value}}}, and seeds put together."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from benchmarks.quality import approximate, cold, findings, floors, learned, protocol, ranking, rechub, steady, variants
from benchmarks.quality.chosen import RANKING, RECHUB, RETRIEVAL
from benchmarks.quality.data import DATA_SETS, DataSet
from benchmarks.quality.learned import Network, Setting
from benchmarks.quality.lines import Lines
from benchmarks.quality.protocol import Part, Scorer
from models.examples import Window
from models.mind import Mind

Figures = dict[str, dict[str, dict[str, float]]]
CHOSEN_BY = ("new.hr@50", "all.hr@50")  # their sum
LAST_DAY = "_last_day"  # the data set asked by each user's last day
RANKER_LISTS = 4_000  # the most that rankers are fitted to; evenly spread over users
CHAIN = ("all.ndcg@10", "new.ndcg@10")
LEFT_OUT = {"complete_journey": ("variants", "retrained")}  # what would take too long


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
    torch.set_num_threads(1)
    data, lines = present(name), Lines(f"{name}, floors")
    valid, test = validation_part(name, data), test_part(name, data)
    rows = {}
    for system, (settings, scorer) in floor_systems().items():
        tried = settings[:2] if short else settings
        setting = max(tried, key=lambda one: worth(judged(valid, scorer(valid, one))))
        rows[system] = judged(test, scorer(test, setting))
        lines.tell(system, rows[system], str(setting))
    newcomers = {} if name.endswith(LAST_DAY) else cold.of_users(test, RETRIEVAL[data.name]["mind"].popular_days)
    for what, row in newcomers.items():
        lines.tell(what, row)
    lines.finish()
    return {"retrieval": rows, "cold": newcomers}


def validation_part(name: str, data: DataSet) -> Part:
    """Give what settings are chosen on: the days from T1 to T2, or each user's last day but one."""
    return protocol.days_before_last(data) if name.endswith(LAST_DAY) else protocol.validation(data)


def test_part(name: str, data: DataSet) -> Part:
    """Give what is judged: the days from T2, or each user's last day."""
    return protocol.last_days(data) if name.endswith(LAST_DAY) else protocol.test(data)


# --- what is fitted -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Job:
    """What one process measures.

    Attributes:
        name: Of the data set.
        seed: What all that is drawn follows from.
        short: Whether other projects' models are left out, and rankers are fitted for one epoch.
    """

    name: str
    seed: int
    short: bool = False

    def measures(self, what: str) -> bool:
        """Say whether *what* is measured."""
        return what not in LEFT_OUT.get(self.name, ()) and not (self.short and what == "peers")

    @property
    def rankers(self) -> dict[str, ranking.RankSetting]:
        """How rankers are fitted to lists with repeats, ``all``, and without, ``new``."""
        chosen = RANKING[self.name]
        if not self.short:
            return chosen
        return {kind: replace(one, options=replace(one.options, epochs=1)) for kind, one in chosen.items()}


def seed_of(job: Job) -> Figures:
    """Fit every learned system on all days before the test part, with one seed, and judge it there."""
    name, seed = job.name, job.seed
    torch.set_num_threads(1)
    data, lines = present(name), Lines(f"{name}, seed {seed}")
    settings, part = RETRIEVAL[name], test_part(name, data)
    networks, rows = {}, {}
    for system, setting in settings.items():
        networks[system] = learned.fit(part, system, setting, seed=seed)
        rows[system] = judged(part, learned.scorer_of(part, networks[system], setting))
        lines.tell(system, rows[system])
    if job.measures("peers") and (theirs := rechub.scorers(part, RECHUB[name], seed=seed)) is not None:
        rows["torch_rechub"] = judged(part, theirs[-1])
        lines.tell("torch_rechub", rows["torch_rechub"])
    mind, setting = networks["mind"], settings["mind"]
    if name.endswith(LAST_DAY):  # small, and with more questions than its days have: fourteen settings are compared
        found = {"retrieval": rows, "findings": findings.measured(part, setting, judged, lines, seed=seed)}
    else:
        found = {"retrieval": rows, **steadiness(job, data, part, mind, setting, lines)}
        found |= ranking_parts(job, data, part, mind, setting, lines)
        found |= cold_items(part, mind, setting, lines, seed=seed)
        found["index"] = approximate.measured(part, mind, setting)
        for how, row in found["index"].items():
            lines.tell(f"index, {how}", row)
    lines.finish()
    return found


def steadiness(job: Job, data: DataSet, part: Part, mind: Network, setting: Setting, lines: Lines) -> Figures:
    """Measure how much of a list stays: when an event is added, and when MIND is fitted anew."""
    if not isinstance(mind, Mind):
        raise TypeError(f"expected a Mind, found {type(mind).__name__}")
    starts = steady.starts_of(mind, job.seed)
    rows = {how: {"overlap@50": steady.overlap(part, mind, start)} for how, start in starts.items()}
    lines.tell("one event more", {how: row["overlap@50"] for how, row in rows.items()})
    if job.measures("retrained"):
        again = steady.retrained(data, part, mind, setting, seed=job.seed)
        lines.tell("fitted anew", {how: row["overlap@50"] for how, row in again.items()})
        rows |= again
    return {"steady": rows}


def cold_items(part: Part, mind: Network, setting: Setting, lines: Lines, *, seed: int) -> Figures:
    """Order items that nobody has had: by the MIND that is fitted, by one that never met an unknown id, by chance."""
    alone = replace(setting, popular_weight=0.0)
    rows = {"new items": cold.of_items(part, learned.scorer_of(part, mind, alone))}
    if not rows["new items"]:
        return {}
    knowing = replace(setting, config=replace(setting.config, unknown_rate=0.0))
    network = learned.fit(part, "mind", knowing, seed=seed)
    rows["new items, no id unknown in training"] = cold.of_items(part, learned.scorer_of(part, network, alone))
    rows["new items, by chance"] = {"above": 0.5}
    for what, row in rows.items():
        lines.tell(what, row)
    return {"cold": rows}


def ranking_parts(job: Job, data: DataSet, part: Part, mind: Network, setting: Setting, lines: Lines) -> Figures:
    """Fit the rankers on what a MIND of the days before T1 retrieved on those from it to T2; judge them after T2.

    Where what the user had is left out of the lists, as in ``new``, BST learns from such lists too, as a night's does.
    """
    seed, how = job.seed, job.rankers
    train, asked = ranker_lists(data, part, mind, setting, seed=seed)
    rows = {"retrieval": ranking.quality(asked["all"].found.scores, asked["all"])}
    lines.tell("lists", rows["retrieval"], f"{len(train['all'].questions)} to learn from")
    orders = {}
    for system in ranking.RANKERS:
        ranker = ranking.fit(train["all"], system, how["all"], seed=seed)
        orders[system] = ranking.order(asked["all"], ranker, how["all"])
        rows[system] = ranking.quality(orders[system], asked["all"])
        lines.tell(system, rows[system])
    if job.measures("peers"):
        judged_lists = asked["all"].with_a_truth()
        theirs = rechub.ranker_scores(train["all"], judged_lists, how["all"], seed=seed)
        if theirs is not None:
            rows["rechub_bst"] = ranking.quality(theirs, judged_lists)
            lines.tell("torch-rechub's BST", rows["rechub_bst"])
    of_new = ranking.fit(train["new"], "bst", how["new"], seed=seed)
    published = {
        "all": ranking.reordered(asked["all"], orders["bst"]),
        "new": ranking.reordered(asked["new"], ranking.order(asked["new"], of_new, how["new"])),
    }
    plain = {kind: lists.found.items for kind, lists in asked.items()}
    judged_chain = {"retrieve": protocol.judge(part, plain), "retrieve_rank": protocol.judge(part, published)}
    chain = {way: {key: row[key] for key in CHAIN} for way, row in judged_chain.items()}
    lines.tell("chain", {f"{way} {key}": row[key] for way, row in chain.items() for key in CHAIN})
    found: Figures = {"ranking": rows, "chain": chain}
    if job.measures("variants"):
        found["variants"] = variants.measured(train["all"], asked["all"], how["all"], lines, seed=seed)
    return found


def ranker_lists(
    data: DataSet, part: Part, mind: Network, setting: Setting, *, seed: int
) -> tuple[dict[str, ranking.Lists], dict[str, ranking.Lists]]:
    """Retrieve what rankers learn from and what they order, each with repeats (``all``) and without (``new``)."""
    earlier = protocol.validation(data)
    before = learned.scorer_of(earlier, learned.fit(earlier, "mind", setting, seed=seed), setting)
    days = ranking.days_of(earlier, Window(earlier.cut_us, part.cut_us))
    days = days.take(np.unique(np.linspace(0, len(days) - 1, RANKER_LISTS).round().astype(int)))
    now = learned.scorer_of(part, mind, setting)
    train, asked = {}, {}
    for kind in ("all", "new"):
        train[kind] = replace(ranking.retrieve(earlier, days, before, new=kind == "new"), part=part)
        asked[kind] = ranking.retrieve(part, part.questions, now, new=kind == "new")
    return train, asked


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
