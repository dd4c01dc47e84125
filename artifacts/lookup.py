"""Finding one id in a table that ascends by it, by decoding few of its batches."""

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc


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
