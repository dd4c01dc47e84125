"""Finding one id that a person names: read as the table's type, looked up in few batches, else the nearest ones."""

from collections.abc import Iterable, Iterator
from itertools import takewhile

import pyarrow as pa
import pyarrow.compute as pc

from artifacts.errors import UsageError


def typed_id(what: str, said: str, kind: pa.DataType) -> pa.Scalar:
    """Read an id that was said on the command line.

    Args:
        what: ``"user"`` or ``"item"``, for the message.
        said: The id as text.
        kind: int64, uint64 or string.

    Raises:
        UsageError: If ids are numbers, and it is none.
    """
    if pa.types.is_string(kind):
        return pa.scalar(said, kind)
    try:
        return pa.scalar(int(said), kind)
    except (ValueError, OverflowError, pa.ArrowInvalid) as error:
        raise UsageError(f"{what} {said!r}: the ids of {what}s are {kind}, expected such a number") from error


def batches_around(
    reader: pa.RecordBatchFileReader, column: str, wanted: pa.Scalar
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Give the batches in which *wanted* stands, or where it would stand: the last one if it is past the end.

    Args:
        reader: An open table; none of its batches is empty.
        column: Its rows ascend by this one; the same id may stand in many rows.
        wanted: An id of the column's type.

    Yields:
        The number of each batch, and the batch.
    """
    low, high = 0, reader.num_record_batches
    while low < high:  # the first batch whose last id is not below the wanted one
        middle = (low + high) // 2
        if pc.less(reader.get_batch(middle)[column][-1], wanted).as_py():
            low = middle + 1
        else:
            high = middle
    last = reader.num_record_batches - 1
    for number in range(max(0, min(low, last)), last + 1):
        batch = reader.get_batch(number)
        yield number, batch
        if batch[column][-1] != wanted:
            return


def ids_beside(ids: pa.Array, wanted: pa.Scalar) -> list[int | str]:
    """Give the two of *ids*, which ascend, that stand beside where *wanted* stands or would stand."""
    start = pc.sum(pc.less(ids, wanted)).as_py() or 0
    beside: list[int | str] = pc.unique(ids.slice(max(0, start - 1), 2)).to_pylist()
    return beside


def nearest_ids(wanted: int | str, known: Iterable[int | str]) -> list[int | str]:
    """Choose three of *known* at most: by distance for numbers, by common beginning for text."""

    def distance(candidate: int | str) -> tuple[int, int | str]:
        if isinstance(candidate, int) and isinstance(wanted, int):
            return abs(candidate - wanted), candidate
        alike = (a == b for a, b in zip(str(candidate), str(wanted), strict=False))
        return -sum(1 for _ in takewhile(bool, alike)), candidate

    return sorted(set(known), key=distance)[:3]
