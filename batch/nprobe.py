"""Into how many lists a search looks: as few as meet a recall on tonight's users."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from batch.ivf import IndexOptions
from batch.recall import Recall, Sample, measure_recall, take_sample
from batch.retrieve import Index

NO_MORE_RECALL = 0.01
STEP = 16  # the least nprobe is sought to a part of so many: each halving is one more search of the sample


@dataclass(frozen=True, slots=True)
class Chosen:
    """A choice of nprobe.

    Attributes:
        nprobe: How many lists.
        curve: Recall by nprobe, of all that were tried, in order; empty where there are no users.
    """

    nprobe: int
    curve: dict[int, Recall]


def tune(index: Index, vectors: np.ndarray, counts: np.ndarray, options: IndexOptions) -> dict[str, Any]:
    """Choose nprobe on every second user, and measure recall on the others.

    Args:
        index: What to search.
        vectors: float32 [sum of counts, d], the sample's interests, user after user.
        counts: int [users]; users without interests take no part.
        options: Target and k.

    Returns:
        As :func:`measured`.
    """
    halves = halves_of(index.vectors, vectors, counts, k=options.recall_k, threads=index.threads)
    return measured(index, halves, choose_nprobe(index, halves[0], options.recall_target), options)


def halves_of(
    items: np.ndarray, vectors: np.ndarray, counts: np.ndarray, *, k: int, threads: int = 0, device: str = "cpu"
) -> tuple[Sample, Sample]:
    """Search exactly for the *k* best among *items* of every second user, who choose, and of the others, who report.

    The arguments are those of :func:`batch.recall.take_sample`.
    """
    warm = counts[counts > 0]
    choosing = np.arange(len(warm)) % 2 == 0
    chooses, reports = (
        take_sample(items, vectors[np.repeat(half, warm)], warm[half], k=k, threads=threads, device=device)
        for half in (choosing, ~choosing)
    )
    return chooses, reports


def choose_nprobe(index: Index, sample: Sample, target: float, *, most: int | None = None) -> Chosen:
    """Choose the least nprobe with which the lower end of recall's interval meets *target*.

    It is doubled until it does, and what lies between is halved: exactly below ``2 * STEP`` lists and else to a
    ``STEP``-th. If none does, since vectors are stored reduced or more than *most* would be needed, it is where more
    lists add nothing; all lists if there are no users.
    """
    most = min(index.most, most or index.ivf.nlist)
    curve: dict[int, Recall] = {}

    def meets(nprobe: int) -> bool:
        curve[nprobe] = measure_recall(index, sample, nprobe=nprobe)
        return curve[nprobe].low >= target

    if len(sample.counts) == 0:
        return Chosen(most, curve)
    missing, meeting = 0, 1
    while not meets(meeting):
        if meeting == most:
            enough = max(recall.mean for recall in curve.values()) - NO_MORE_RECALL
            return Chosen(min(nprobe for nprobe, recall in curve.items() if recall.mean >= enough), curve)
        missing, meeting = meeting, min(2 * meeting, most)
    while meeting - missing > max(meeting // STEP, 1):
        between = (missing + meeting) // 2
        missing, meeting = (missing, between) if meets(between) else (between, meeting)
    return Chosen(meeting, dict(sorted(curve.items())))


def measured(index: Index, halves: tuple[Sample, Sample], chosen: Chosen, options: IndexOptions) -> dict[str, Any]:
    """Measure recall on the half that did not choose; gives the part of ``index.json`` that is about recall."""
    chooses, reports = halves
    reported = measure_recall(index, reports, nprobe=chosen.nprobe) if len(reports.counts) else None
    return {
        "nprobe": chosen.nprobe,
        "recall_k": chooses.k,
        "recall_target": options.recall_target,
        "recall": reported.mean if reported else None,
        "recall_interval": [reported.low, reported.high] if reported else None,
        "recall_users": len(reports.counts),
        "curve": [[lists, recall.mean] for lists, recall in chosen.curve.items()],
    }
