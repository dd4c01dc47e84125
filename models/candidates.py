"""What BST learns from: the night's own kind of candidates, as they would have been at the time of each example."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from artifacts.bundle import Role, input_names
from features.encode import NO_ITEM, item_features
from features.mapped import joined, mapped
from features.sequences import Sequences, history_at
from models.events import DAY_US, EventIndex, Floats, Ints, earlier_events
from models.examples import Examples
from models.lists import NEGATIVE, POSITIVE, UNUSED, Candidates, Night, columns_of, draw_negatives, ranker_inputs
from models.losses import serving_scores
from models.mind import Mind

__all__ = [  # what is known of lists without torch is given from here too
    "CHUNK",
    "NEGATIVE",
    "POSITIVE",
    "UNUSED",
    "Candidates",
    "Night",
    "Popularity",
    "columns_of",
    "draw_negatives",
    "excluded",
    "in_chunks",
    "item_vectors",
    "popularity_of",
    "ranker_inputs",
    "retrieve",
    "retrieved",
    "search",
    "user_interests",
]

CHUNK = 65_536  # items that are scored at once


@dataclass(frozen=True, slots=True)
class Popularity:
    """What recent popularity adds to retrieval scores.

    Attributes:
        by_day: To each item's, [days, items].
        first: Number of the first of the days.
        index: Numbers the days.
    """

    by_day: Tensor
    first: int
    index: EventIndex

    def rows(self, now_us: Ints) -> Ints:
        """Find the rows of *by_day* for some moments, [N]."""
        return self.index.days(now_us) - self.first


def item_vectors(mind: Mind, catalogue: Mapping[str, npt.NDArray[np.int32]]) -> Tensor:
    """Compute the vectors of all items [items, d], a chunk at a time."""
    rows = [torch.from_numpy(catalogue[name].copy()) for name in mind.spec.item_features]
    with torch.no_grad():
        return in_chunks(mind, rows)


def in_chunks(mind: Mind, rows: Sequence[Tensor]) -> Tensor:
    """Compute the vectors of items, whose *rows* [items] are by item feature, a chunk at a time; [items, d]."""
    starts = range(0, len(rows[0]), CHUNK)
    return torch.cat([mind.item_vectors(*(feature[at : at + CHUNK] for feature in rows)) for at in starts])


def user_interests(mind: Mind, inputs: Mapping[str, npt.NDArray[np.int32]]) -> tuple[Tensor, Tensor]:
    """Compute interests [users, K, d] and their count [users]."""
    with torch.no_grad():
        names = input_names(Role.USER, mind.spec)
        interests, count, _ = mind.interests(*(torch.from_numpy(inputs[name]) for name in names))
    return interests, count


def excluded(sequences: Sequences, users: Ints, now_us: Ints, ends: Ints, night: Night) -> tuple[Ints, Ints]:
    """List what may not be retrieved since the user has had it: rows into *users* and catalogue rows, aligned."""
    rows, positions = earlier_events(sequences, users, ends)
    kept = sequences.items[positions] >= 0
    if night.exclude_seen == "none":
        kept[:] = False
    if night.exclude_seen == "days":
        kept &= sequences.times_us[positions] >= now_us[rows] - night.exclude_days * DAY_US
    return rows[kept], sequences.items[positions[kept]].astype(np.int64)


def popularity_of(index: EventIndex, now_us: Ints, items: int, night: Night) -> Popularity | None:
    """Work out ``weight * log(1 + events)`` of all *items* on the days from the first to the last of *now_us*.

    The events are those of the days before each. None for the weight 0, which adds nothing.
    """
    if not night.popularity_weight:
        return None
    first = end = 0
    if len(now_us):
        first, last = (int(day) for day in index.days(np.array([now_us.min(), now_us.max()])))
        end = last + 1
    logs = mapped((end - first, items), np.float32)  # of a large shop these are gigabytes
    for row, events in enumerate(index.popularity_by_day(first, end, items, night.popular_days)):
        logs[row] = np.log1p(events).astype(np.float32) * np.float32(night.popularity_weight)
    return Popularity(torch.from_numpy(logs), first, index)


def search(
    interests: Tensor,
    count: Tensor,
    vectors: Tensor,
    *,
    banned: tuple[Ints, Ints],
    eligible: Tensor,
    k: int,
    added: tuple[Tensor, Ints] | None = None,
) -> tuple[Ints, Floats]:
    """Find each user's *k* best items exactly, best first, ties in the order of torch's ``topk``.

    Args:
        interests: [users, K, d].
        count: [users].
        vectors: [items, d].
        banned: Users and items, aligned, that are left out.
        eligible: Which items may be found, bool [items].
        k: How many.
        added: What is added to the items' inner products, [days, items], and each user's day there, [users].

    Returns:
        Catalogue rows [users, k], -1 where there are no more, and scores, 0 there.
    """
    best = torch.full((len(interests), 0), -torch.inf)
    found = torch.full((len(interests), 0), NO_ITEM, dtype=torch.int64)
    rows, items = (torch.from_numpy(side) for side in banned)
    for start in range(0, len(vectors), CHUNK):
        chunk = vectors[start : start + CHUNK]
        scores = serving_scores(interests, count, chunk)
        if added is not None:
            scores += added[0][:, start : start + CHUNK][torch.from_numpy(added[1])]
        scores[:, ~eligible[start : start + CHUNK]] = -torch.inf
        here = (items >= start) & (items < start + len(chunk))
        scores[rows[here], items[here] - start] = -torch.inf
        top, at = scores.topk(min(k, len(chunk)), dim=1)
        best, keep = torch.cat([best, top], dim=1).topk(min(k, best.shape[1] + top.shape[1]), dim=1)
        found = torch.cat([found, at + start], dim=1).gather(1, keep)
    missing = best == -torch.inf
    padding = (0, k - best.shape[1])
    found = torch.nn.functional.pad(found.masked_fill(missing, NO_ITEM), padding, value=NO_ITEM)
    best = torch.nn.functional.pad(best.masked_fill(missing, 0.0), padding)
    return found.numpy(), best.numpy()


def retrieve(
    sequences: Sequences, examples: Examples, index: EventIndex, *, mind: Mind, night: Night, batch: int = 512
) -> Candidates:
    """Retrieve for every example as the night would at that time, and say which candidates came true.

    They lie in files without a name (:mod:`features.mapped`).
    """
    found = retrieved(sequences, examples, index, mind=mind, night=night, batch=batch)
    return Candidates(*joined(columns_of(some) for _, some in found))


def retrieved(
    sequences: Sequences, examples: Examples, index: EventIndex, *, mind: Mind, night: Night, batch: int = 512
) -> Iterator[tuple[Examples, Candidates]]:
    """Retrieve for some examples after the other as the night would at that time, and say which candidates came true.

    Only what is retrieved is labelled, a target too: at night BST will see nothing else, and a target that retrieval
    misses would teach it that a low retrieval score is a good sign.
    """
    catalogue = item_features(sequences.catalogue, mind.spec)
    vectors = item_vectors(mind, catalogue)
    eligible = torch.from_numpy(sequences.catalogue["eligible"].to_numpy().copy())
    popularity = popularity_of(index, examples.now_us, len(sequences.catalogue), night)
    for start in range(0, max(len(examples), 1), batch):  # none are retrieved for in a batch of none
        asked = examples.take(np.arange(start, min(start + batch, len(examples))))
        inputs = history_at(sequences, asked.users, asked.now_us, asked.ends, mind.spec)
        interests, count = user_interests(mind, inputs)
        banned = excluded(sequences, asked.users, asked.now_us, asked.ends, night)
        added = (popularity.by_day, popularity.rows(asked.now_us)) if popularity else None
        items, scores = search(
            interests, count, vectors, banned=banned, eligible=eligible, k=night.candidates, added=added
        )
        labels = np.where(index.has_later(asked.users, asked.ends, items), UNUSED, NEGATIVE)
        labels[items == NO_ITEM] = UNUSED
        wanted = np.where(asked.weights > 0, asked.targets, NO_ITEM - 1)
        labels[(items[:, :, None] == wanted[:, None, :]).any(axis=-1)] = POSITIVE
        yield asked, Candidates(items, scores, labels.astype(np.int8))
