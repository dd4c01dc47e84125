"""Honest floors that need no training: what is popular, what the user had, and what is bought together, tuned."""

from collections.abc import Iterator
from functools import lru_cache
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from benchmarks.quality.protocol import Part, Scorer
from features.encode import places
from models.events import DAY_US, EventIndex, earlier_events, users_of
from models.examples import Examples

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.integer[Any]]
Nearest = tuple[Ints, Ints, Floats]
NEIGHBOURS = (50, 200)
BASKET_MOST = 200  # items of a day: a wholesaler's day of more says little of what goes together


def popular(part: Part, days: int) -> Scorer:
    """Everybody's events in the *days* days before the question's day."""
    index = EventIndex(part.sequences, zone=part.zone, until_us=int(np.iinfo(np.int64).max))
    catalogue = np.arange(len(part.sequences.catalogue))

    def score(questions: Examples) -> Floats:
        now, inverse = np.unique(questions.now_us, return_inverse=True)
        return index.popularity(now, np.tile(catalogue, (len(now), 1)), days)[inverse].astype(np.float32)

    return score


def history_weights(part: Part, questions: Examples, half_life_days: float) -> sparse.csr_array:
    """Weigh what each user had by age, summed over the times that they had it: [N, items]."""
    rows, positions = earlier_events(part.sequences, questions.users, questions.ends)
    kept = part.sequences.items[positions] >= 0
    rows, positions = rows[kept], positions[kept]
    ages = (questions.now_us[rows] - part.sequences.times_us[positions]) / DAY_US
    weights = np.exp2(-ages / half_life_days).astype(np.float32)
    shape = (len(questions), len(part.sequences.catalogue))
    return sparse.csr_array((weights, (rows, part.sequences.items[positions])), shape=shape)


def own_items(part: Part, *, half_life_days: float, popular_days: int) -> Scorer:
    """The user's own items by recent frequency, then what is popular."""
    most = popular(part, popular_days)

    def score(questions: Examples) -> Floats:
        others = most(questions)
        own = history_weights(part, questions, half_life_days).toarray()
        return np.where(own > 0, 1 + own, others / (1 + others.max(initial=0)))

    return score


@lru_cache(maxsize=1)
def together(part: Part) -> sparse.csr_array:
    """Count how often a user had two items on one day before the cut, [items, items]; on the diagonal, one item."""
    sequences = part.sequences
    users = users_of(sequences)
    kept = (sequences.items >= 0) & (sequences.times_us < part.cut_us)
    days = sequences.times_us[kept] // DAY_US
    baskets = np.stack([users[kept], days, sequences.items[kept]], axis=1)
    lines = np.unique(baskets, axis=0)
    _, basket, sizes = np.unique(lines[:, :2], axis=0, return_inverse=True, return_counts=True)
    some = sizes[basket] <= BASKET_MOST
    shape = (len(sizes), len(sequences.catalogue))
    held = sparse.csr_array((np.ones(int(some.sum()), np.float32), (basket[some], lines[some, 2])), shape=shape)
    return sparse.csr_array(held.T @ held)


def nearest(counts: sparse.csr_array, *, shrinkage: float, most: int = max(NEIGHBOURS)) -> Nearest:
    """Compare items by the cosine of their baskets, ``n_ij / (sqrt(n_i n_j) + shrinkage)``.

    Args:
        counts: Of :func:`together`.
        shrinkage: Keeps a chance pair of rare items down.
        most: How many of each item are kept.

    Returns:
        Items, the *most* that each is like, best first, and how like they are; aligned, items ascending.
    """
    pairs = counts.tocoo()
    alone = np.sqrt(counts.diagonal())
    values = pairs.data / (alone[pairs.row] * alone[pairs.col] + shrinkage)
    different = pairs.row != pairs.col
    rows, columns, values = pairs.row[different], pairs.col[different], values[different]
    order = np.lexsort((columns, -values, rows))
    near = order[_places(rows[order]) < most]
    return rows[near], columns[near], values[near].astype(np.float32)


def likeness(near: Nearest, items: int, *, neighbours: int, own: float) -> sparse.csr_array:
    """Set up who is like whom, [items, items].

    Args:
        near: Of :func:`nearest`.
        items: How many there are.
        neighbours: How many of each item count.
        own: The likeness of an item to itself: how far a user's own items are put first.
    """
    rows, columns, values = near
    kept = _places(rows) < neighbours
    others = sparse.csr_array((values[kept], (rows[kept], columns[kept])), shape=(items, items))
    return sparse.csr_array(others + sparse.diags_array(np.full(items, own, np.float32)))


def _places(rows: Ints) -> Ints:
    """Number the places of each row, which stand together, from 0."""
    starts = np.flatnonzero(np.diff(rows, prepend=-1))
    return places(np.diff(starts, append=len(rows)))


def item_knn(part: Part, like: sparse.csr_array, *, half_life_days: float) -> Scorer:
    """Sum the likeness of items to what the user had, the recent more."""
    return lambda questions: (history_weights(part, questions, half_life_days) @ like).toarray()


def knn_settings() -> Iterator[dict[str, Any]]:
    """What item-kNN is tuned over."""
    for neighbours, shrinkage, own, half_life in product(NEIGHBOURS, (0.0, 10.0), (0.1, 0.3, 1.0), (30.0, 90.0, 365.0)):
        yield {"neighbours": neighbours, "shrinkage": shrinkage, "own": own, "half_life_days": half_life}


@lru_cache(maxsize=2)
def compared(part: Part, shrinkage: float) -> Nearest:
    """Compare the items of a part: sorting all pairs takes longest, and two shrinkages are tried."""
    return nearest(together(part), shrinkage=shrinkage)


def tuned_knn(part: Part, setting: dict[str, Any]) -> Scorer:
    """Make item-kNN of one setting; baskets are counted once for a part."""
    near, items = compared(part, setting["shrinkage"]), len(part.sequences.catalogue)
    like = likeness(near, items, neighbours=setting["neighbours"], own=setting["own"])
    return item_knn(part, like, half_life_days=setting["half_life_days"])
