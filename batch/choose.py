"""Which index is built where the config leaves it open: number of lists, type and nprobe, measured on tonight's users.

Of all that meet the recall and fit the memory, the one is taken that a query costs the least. A query costs so many
vectors as it compares: the centroids, those of the lists that it looks into, and those that are scored again, each
counted by what it takes beside one of a ``Flat`` index. No clock is asked, so the same input gives the same choice.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from artifacts.errors import UsageError
from batch.ivf import LEAST_OF_LIST, PQ_CODES, IndexOptions, bytes_of, lists_for
from batch.nprobe import Chosen, choose_nprobe, measured
from batch.recall import Sample
from batch.retrieve import Index, nearest_lists

AUTO = "auto"
REFINES = {"Flat": (1,), "SQ8": (1, 2), "PQ": (2, 8)}  # so many times k are found, and scored again by the vectors
WORK = {"Flat": 1.0, "SQ8": 0.65, "PQ": 0.65}  # of a vector in a list; measured, 64 wide: docs/performance.md
RESCORED = 16.0  # of a vector that is scored again: it is found, looked up anywhere, and sorted
_COSTED = 256  # queries of the sample that tell how many vectors their lists hold


@dataclass(frozen=True, slots=True)
class Tried:
    """An index that was tried.

    Attributes:
        type: What it stores of a vector.
        lists: How many lists it has.
        refine: How many times k are found, and scored again by the vectors themselves.
        memory: How many bytes it takes.
        nprobe: The least that meets the recall; or from which more adds nothing, or costs more than what does meet it.
        recall: On the half of the sample that chooses; None without users.
        meets: Whether the lower end of the recall's interval meets the target.
        cost: Of one query, in vectors compared.
    """

    type: str
    lists: int
    refine: int
    memory: int
    nprobe: int
    recall: float | None
    meets: bool
    cost: float


def choose_index(
    make: Callable[[IndexOptions], Index], items: np.ndarray, halves: tuple[Sample, Sample], options: IndexOptions
) -> tuple[Index, IndexOptions, dict[str, Any]]:
    """Build what fits into the memory, and keep the best of it; two are held at a time.

    The number of lists is chosen for the first type that fits, and the type for that number. If none meets the
    recall, it is the one with the greatest; without users the first.

    Args:
        make: Builds an index by options that leave nothing open.
        items: float32 [n, width], what it is built of.
        halves: Of the sample: who chooses, and who reports.
        options: Of type ``auto``.

    Returns:
        The index, the options that it was built by, and the part of ``index.json`` that is about the choice.

    Raises:
        UsageError: If nothing fits into ``options.memory``.
    """
    kinds, lists = types_that_fit(options, *items.shape), _lists_to_try(options, len(items))
    best: tuple[Tried, Index, IndexOptions, Chosen] | None = None
    tried: list[Tried] = []

    def attempt(kind: str, lists: int) -> None:
        nonlocal best
        exact = replace(options, type=kind, lists=lists)
        built = make(exact)
        for refine in REFINES[kind]:
            index = replace(built, refine=refine)
            costs = _costs(index, kind, halves[0])
            most = int((costs < best[0].cost).sum()) if best and best[0].meets else built.ivf.nlist
            if most:
                chosen = choose_nprobe(index, halves[0], options.recall_target, most=most)
                tried.append(_tried(index, exact, chosen, float(costs[chosen.nprobe - 1])))
                if best is None or _rank(tried[-1]) < _rank(best[0]):
                    best = tried[-1], index, exact, chosen

    measurable = len(halves[0].counts) > 0
    fitting = [number for number in lists if _fits(options, kinds[0], len(items), items.shape[1], number)]
    for number in fitting if measurable else fitting[:1]:
        attempt(kinds[0], number)
    assert best is not None
    for kind in kinds[1:] if measurable else []:
        attempt(kind, best[2].lists)
    _, index, exact, chosen = best
    said = {"refine": index.refine, "memory": options.memory, "tried": [asdict(one) for one in tried]}
    return index, exact, said | measured(index, halves, chosen, options)


def types_that_fit(options: IndexOptions, items: int, width: int) -> list[str]:
    """Give the types whose index of *items* fits into the memory.

    Raises:
        UsageError: If none does.
    """
    types = [kind for kind in WORK if kind != "PQ" or items >= LEAST_OF_LIST * PQ_CODES]
    fewest = min(_lists_to_try(options, items))
    fitting = [kind for kind in types if _fits(options, kind, items, width, fewest)]
    if not fitting:
        least = bytes_of(types[-1], items=items, width=width, lists=fewest)
        raise UsageError(
            f"[index] memory: {items:,} items take {least:,} bytes as {types[-1]}, and {options.memory:,} are allowed; "
            f'raise it, or name a type, as type = "{types[-1]}", which is then searched on disk'
        )
    return fitting


def told(said: dict[str, Any]) -> str:
    """Say in a line what ``index.json`` says of a choice."""
    again = f", {said['refine']} times k scored again" if said["refine"] > 1 else ""
    lists = f"{said['nprobe']:,} of {said['nlist']:,} lists, of {len(said['tried'])} tried"
    return f"{said['type']}{again}, {lists}{_missed(said)}"


def _missed(said: dict[str, Any]) -> str:
    if not said["curve"]:
        return "; no user has a history to measure by"
    if any(one["meets"] for one in said["tried"]):
        return ""
    return "; none meets the recall: raise [index] memory or lower recall_target"


def _rank(one: Tried) -> tuple[bool, float, float]:
    """Order what was tried, the best first."""
    return not one.meets, 0.0 if one.meets else -(one.recall or 0.0), one.cost


def _tried(index: Index, options: IndexOptions, chosen: Chosen, cost: float) -> Tried:
    found = chosen.curve.get(chosen.nprobe)
    items, width = index.vectors.shape
    return Tried(
        options.type,
        options.lists,
        index.refine,
        bytes_of(options.type, items=items, width=width, lists=options.lists),
        chosen.nprobe,
        found.mean if found else None,
        found is not None and found.low >= options.recall_target,
        cost,
    )


def _costs(index: Index, kind: str, sample: Sample) -> np.ndarray:
    """Count what a query costs with 1, 2, 3 ... lists, on average over some of the *sample*, float64 [nlist]."""
    sizes = np.array([index.ivf.invlists.list_size(number) for number in range(index.ivf.nlist)])
    queries = sample.vectors[:_COSTED]
    held = sizes[nearest_lists(index, queries, len(sizes))].sum(axis=0) / max(len(queries), 1)
    again = RESCORED * index.refine * sample.k if index.refine > 1 else 0.0
    return np.asarray((len(sizes) + WORK[kind] * held.cumsum() + again).round(1))


def _lists_to_try(options: IndexOptions, items: int) -> list[int]:
    """Give the usual number of lists, and half and twice as many; one for few items, and what is asked for."""
    usual = lists_for(items, options.lists)
    if options.lists or usual == 1:
        return [usual]
    return list(dict.fromkeys([usual, usual // 2, min(2 * usual, items // LEAST_OF_LIST)]))


def _fits(options: IndexOptions, kind: str, items: int, width: int, lists: int) -> bool:
    return not options.memory or bytes_of(kind, items=items, width=width, lists=lists) <= options.memory
