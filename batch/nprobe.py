"""Into how many lists a search looks: as few as meet a recall on tonight's users."""

from typing import Any

import numpy as np

from batch.ivf import IndexOptions
from batch.recall import Sample, measure_recall, take_sample
from batch.retrieve import Index

NO_MORE_RECALL = 0.01
STEP = 16  # the least nprobe is sought to a part of so many: each halving is one more search of the sample


def tune(index: Index, vectors: np.ndarray, counts: np.ndarray, options: IndexOptions) -> dict[str, Any]:
    """Choose nprobe on every second user, and measure recall on the others.

    It is the least with which the lower end of recall's interval meets the target, exactly below ``2 * STEP`` lists
    and else to a ``STEP``-th of it. If none does, since vectors are stored reduced, it is where more lists add nothing;
    all lists if there are no users.

    Args:
        index: What to search.
        vectors: float32 [sum of counts, d], the sample's interests, user after user.
        counts: int [users]; users without interests take no part.
        options: Target and k.

    Returns:
        The part of ``index.json`` that is about recall.
    """
    warm = counts[counts > 0]
    choosing = np.arange(len(warm)) % 2 == 0
    halves = [
        take_sample(index.vectors, vectors[np.repeat(half, warm)], warm[half], k=options.recall_k)
        for half in (choosing, ~choosing)
    ]
    nprobe, curve = _choose_nprobe(index, halves[0], options.recall_target)
    reported = measure_recall(index, halves[1], nprobe=nprobe) if len(halves[1].counts) else None
    return {
        "nprobe": nprobe,
        "recall_k": halves[0].k,
        "recall_target": options.recall_target,
        "recall": reported.mean if reported else None,
        "recall_interval": [reported.low, reported.high] if reported else None,
        "recall_users": len(halves[1].counts),
        "curve": [[lists, recall] for lists, recall in curve.items()],
    }


def _choose_nprobe(index: Index, sample: Sample, target: float) -> tuple[int, dict[int, float]]:
    """Double nprobe until the target is met, then halve what lies between; gives it, and recall by nprobe in order."""
    most = min(index.ivf.nlist, index.most)
    curve: dict[int, float] = {}

    def meets(nprobe: int) -> bool:
        recall = measure_recall(index, sample, nprobe=nprobe)
        curve[nprobe] = recall.mean
        return recall.low >= target

    if len(sample.counts) == 0:
        return most, curve
    missing, meeting = 0, 1
    while not meets(meeting):
        if meeting == most:
            enough = max(curve.values()) - NO_MORE_RECALL
            return min(nprobe for nprobe, recall in curve.items() if recall >= enough), curve
        missing, meeting = meeting, min(2 * meeting, most)
    while meeting - missing > max(meeting // STEP, 1):
        between = (missing + meeting) // 2
        missing, meeting = (missing, between) if meets(between) else (between, meeting)
    return meeting, dict(sorted(curve.items()))
