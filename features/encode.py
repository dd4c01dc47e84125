"""From table rows to the fixed-size integer arrays that every graph takes; training and the night both pass here."""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import DTypeLike, NDArray

from artifacts.bundle import FeatureSpec, Role
from artifacts.errors import InputError
from features.vocabulary import PADDING, UNKNOWN

NO_ITEM = -1  # in an array of catalogue rows: there is no item in this place


def bucket_gaps(gap_seconds: NDArray[np.int64], edges: Sequence[int]) -> NDArray[np.int32]:
    """Give the bucket row of each gap: 1 + (number of *edges* <= gap); int32, the shape of *gap_seconds*.

    Row 0 is padding, so an embedding table has ``len(edges) + 2`` rows. A negative gap counts as 0.
    """
    clamped = np.maximum(gap_seconds, 0)
    return (1 + np.searchsorted(np.asarray(edges, np.int64), clamped, side="right")).astype(np.int32)


def list_parts(lists: pa.Array | pa.ChunkedArray) -> tuple[NDArray[np.int64], pa.Array]:
    """Split a column of lists into the length of each list, int64 [n] (0 for null), and all their elements.

    Offsets are honoured: a slice gives its own elements, a null list none, whatever bytes it covers.
    """
    if isinstance(lists, pa.ChunkedArray):
        lists = lists.combine_chunks()
    if lists.null_count:
        lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
    else:
        lengths = np.diff(lists.offsets.to_numpy())
    return lengths.astype(np.int64), lists.flatten()


def places(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number the elements of lists of *lengths* from 0 within each list; int64 [sum of lengths]."""
    ends = np.cumsum(lengths)
    return np.arange(int(lengths.sum()), dtype=np.int64) - np.repeat(ends - lengths, lengths)


def pad_lists(lists: pa.Array | pa.ChunkedArray, length: int, rows: int, dtype: DTypeLike) -> NDArray[np.generic]:
    """Lay out lists as an array [rows, length]: the first *length* elements of each, the rest 0.

    Lists hold the newest first, so the newest are kept. Rows after the last list are 0.

    Raises:
        ValueError: If there are more lists than *rows*, or an element is null.
    """
    lengths, elements = list_parts(lists)
    if len(lengths) > rows:
        raise ValueError(f"expected at most {rows} lists, found {len(lengths)}")
    if elements.null_count:
        raise ValueError(f"expected no null elements, found {elements.null_count}")
    padded, kept = np.zeros((rows, length), dtype), elements.to_numpy()
    if lengths.max(initial=0) > length:
        kept = kept[places(lengths) < length]
    padded[: len(lengths)][np.arange(length) < lengths[:, None]] = kept
    return padded


def pad_rows(values: NDArray[np.generic], rows: int) -> NDArray[np.generic]:
    """Fill *values* [n, ...] with zeros to [rows, ...].

    Raises:
        ValueError: If n is greater than *rows*.
    """
    if len(values) > rows:
        raise ValueError(f"expected at most {rows} rows, found {len(values)}")
    padded = np.zeros((rows, *values.shape[1:]), values.dtype)
    padded[: len(values)] = values
    return padded


def user_inputs(batch: pa.RecordBatch, spec: FeatureSpec, role: Role, rows: int) -> dict[str, NDArray[np.int32]]:
    """Give the arrays of a batch of ``schemas.histories`` that a graph takes, in the order of its ``forward``.

    Args:
        batch: At most *rows* users.
        spec: The bundle's.
        role: ``Role.USER``, or ``Role.RANKER``, which takes ``gap`` too.
        rows: The fixed batch size; rows after the last user are all padding.

    Returns:
        int32: ``history_NAME`` [rows, L], ``gap`` [rows, L], ``profile_NAME`` [rows].
    """
    lists = [f"history_{name}" for name in spec.item_features] + (["gap"] if role is Role.RANKER else [])
    arrays = {name: pad_lists(batch.column(name), spec.history_length, rows, np.int32) for name in lists}
    for name in spec.profile_features:
        arrays[f"profile_{name}"] = pad_rows(batch.column(f"profile_{name}").to_numpy(), rows)
    return arrays  # type: ignore[return-value]


def item_features(catalogue: pa.Table | pa.RecordBatch, spec: FeatureSpec) -> dict[str, NDArray[np.int32]]:
    """Give the feature rows of catalogue rows: for each item feature ``NAME``, int32 [items]."""
    table = pa.Table.from_batches([catalogue]) if isinstance(catalogue, pa.RecordBatch) else catalogue
    return {name: table.column(f"feature_{name}").to_numpy() for name in spec.item_features}


def take_items(features: Mapping[str, NDArray[np.int32]], items: NDArray[np.integer]) -> dict[str, NDArray[np.int32]]:
    """Give the feature rows of *items*, catalogue rows of any shape; ``NO_ITEM`` (-1) gives padding.

    Raises:
        InputError: If a catalogue row is out of range; nothing wraps around to the last item.
    """
    real = items != NO_ITEM
    taken = {}
    for name, rows in features.items():
        require_rows("catalogue row", items[real], len(rows))
        values = np.full(items.shape, PADDING, np.int32)
        values[real] = rows[items[real]]
        taken[name] = values
    return taken


def behaviour_features(
    codes: NDArray[np.integer], features: Mapping[str, NDArray[np.int32]]
) -> dict[str, NDArray[np.int32]]:
    """Give the feature rows of past behaviours: for each item feature, int32 [n].

    Args:
        codes: The catalogue row of an item; of one that is not in the catalogue, minus the vocabulary row of its id:
            that item keeps its place in a history, its other features unknown.
        features: From :func:`item_features`.
    """
    catalogued = codes >= 0
    taken = {}
    for name, rows in features.items():
        values = np.where(catalogued, UNKNOWN, -codes if name == "item_id" else UNKNOWN).astype(np.int32)
        values[catalogued] = rows[codes[catalogued]]
        taken[name] = values
    return taken


def require_rows(what: str, rows: NDArray[np.integer], size: int) -> None:
    """Refuse row numbers outside a table of *size* rows, on every device, before anything looks them up.

    Raises:
        InputError: If one is negative, or *size* or greater.
    """
    if rows.size and not (0 <= (low := int(rows.min())) <= (high := int(rows.max())) < size):
        raise InputError(f"{what}: expected 0 to {size - 1}, found {low if low < 0 else high}")
