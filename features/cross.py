"""Cross features, between a user and a candidate: computed here alone, for training and for the night."""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from artifacts.bundle import FeatureSpec
from features.encode import list_parts

DAY_SECONDS = 86_400
NEVER = -1  # in place of the seconds since the last time


def match_seen(
    items: NDArray[np.integer],
    seen_items: pa.Array | pa.ChunkedArray,
    times: pa.Array | pa.ChunkedArray,
    last_gap: pa.Array | pa.ChunkedArray,
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Look candidates up in what their user has had.

    Args:
        items: Catalogue rows [U, C]; -1 where there is no candidate.
        seen_items: U lists of catalogue rows, each ascending; the column ``items`` of ``schemas.seen``.
        times: How often, aligned with *seen_items*.
        last_gap: Seconds since the last time, aligned with *seen_items*.

    Returns:
        How often the user had the candidate, int32 [U, C], and the seconds since the last time, int64 [U, C]: 0 and
        -1 where never.
    """
    lengths, seen = list_parts(seen_items)
    if len(lengths) != len(items):
        raise ValueError(f"expected what {len(items)} users have had, found {len(lengths)}")
    rows = seen.to_numpy().astype(np.int64)
    if not len(rows):
        return np.zeros(items.shape, np.int32), np.full(items.shape, NEVER, np.int64)
    span = 1 + max(int(rows.max()), int(items.max(initial=0)))
    keys = np.repeat(np.arange(len(lengths)), lengths) * span + rows
    asked = np.arange(len(items))[:, None] * span + items
    at = np.minimum(np.searchsorted(keys, asked), len(keys) - 1)
    # Without the second condition, -1 would be the last item of the user before.
    found = (keys[at] == asked) & (items >= 0)
    had = np.where(found, list_parts(times)[1].to_numpy()[at], 0).astype(np.int32)
    since = np.where(found, list_parts(last_gap)[1].to_numpy()[at], NEVER).astype(np.int64)
    return had, since


def cross_features(
    spec: FeatureSpec,
    *,
    retrieval_score: NDArray[np.float32],
    times_had: NDArray[np.int32],
    last_gap_seconds: NDArray[np.int64],
    popularity_events: NDArray[np.int64],
) -> NDArray[np.float32]:
    """Transform and stack what the spec asks for; float32 [U, C, f] in the order of ``spec.cross_features``.

    * ``retrieval_score``: as it is
    * ``times_had``: log(1 + times)
    * ``days_since``: log(1 + seconds / 86,400) of the last time; -1 if never
    * ``popularity``: log(1 + events)

    Args:
        spec: The bundle's.
        retrieval_score: Best inner product of an interest and the candidate, [U, C].
        times_had: From :func:`match_seen`, [U, C].
        last_gap_seconds: From :func:`match_seen`, [U, C]; negative for never.
        popularity_events: Events of the candidate in the last days (``schemas.popular``), [U, C].
    """
    days = np.maximum(last_gap_seconds, 0) / DAY_SECONDS
    columns = {
        "retrieval_score": retrieval_score,
        "times_had": np.log1p(times_had),
        "days_since": np.where(last_gap_seconds < 0, -1.0, np.log1p(days)),
        "popularity": np.log1p(popularity_events),
    }
    stacked = [columns[name].astype(np.float32) for name in spec.cross_features]
    return np.stack(stacked, axis=-1) if stacked else np.empty((*times_had.shape, 0), np.float32)
