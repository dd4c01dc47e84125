"""Vocabulary files as other projects write them: the ids that a model knows, and its rows for them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import csv, parquet

from artifacts.errors import InputError
from artifacts.fields import only, text, whole
from features.types import widen
from features.vocabulary import FIRST, PADDING, UNKNOWN, Vocabulary

_TYPES = {"int64": pa.int64(), "uint64": pa.uint64(), "string": pa.string()}


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """The values of a feature, and where a model's table has them.

    Attributes:
        vocabulary: The values, in the rows that the night gives them.
        theirs: The model's row for each of ours, int64 [vocabulary.size]: padding, unknown, then the values.
    """

    vocabulary: Vocabulary
    theirs: NDArray[np.int64]

    @property
    def alike(self) -> bool:
        """Whether the model's rows are ours."""
        return bool(np.array_equal(self.theirs, np.arange(self.vocabulary.size)))


def read_rows(name: str, said: str | Mapping[str, Any], folder: Path) -> Rows:
    """Read the vocabulary of feature *name*.

    Args:
        name: The feature.
        said: The file; or a table with ``file``, and where it is needed ``type`` of the values (``int64``, ``uint64``
            or ``string``), the model's rows ``padding`` (0) and ``unknown`` (1), and ``first`` (2), the row of the
            first value where the file has values alone, in the order of their rows. A ``.json`` holds an object of
            value to row, or a list of values; a ``.csv`` or ``.parquet`` the columns value and row, or value alone;
            any other file one value a line.
        folder: Of the file, where its path is relative.

    Raises:
        ValueError: If *said* is no such thing.
        InputError: If the file is not there or holds something else; the message names it.
    """
    table = said if isinstance(said, Mapping) else {"file": said}
    only(table, "file", "type", "padding", "unknown", "first")
    padding, unknown, first = (
        whole(table, key) if key in table else default
        for key, default in (("padding", PADDING), ("unknown", UNKNOWN), ("first", FIRST))
    )
    kind = text(table, "type") if "type" in table else ""
    if kind and kind not in _TYPES:
        raise ValueError(f"type: expected {', '.join(_TYPES)}, found {kind!r}")
    path = folder / text(table, "file")
    try:
        values, rows = _read(path)
        values = widen(pc.cast(values, _TYPES[kind]) if kind else values)
    except OSError as error:
        raise InputError(f"{path}: vocabulary of {name}: {error.strerror or error}") from error
    except (ValueError, TypeError, pa.ArrowException) as error:
        raise InputError(f"{path}: vocabulary of {name}: {str(error).splitlines()[0]}") from error
    rows = np.arange(first, first + len(values)) if rows is None else rows
    if values.null_count or len(pc.unique(values)) < len(values):
        raise InputError(f"{path}: vocabulary of {name}: expected each value once, and no nulls")
    if len(rows) and rows.min() < 0:
        raise InputError(f"{path}: vocabulary of {name}: expected rows from 0 on, found {rows.min()}")
    order = pc.sort_indices(values)
    known = rows[order.to_numpy(zero_copy_only=False)]
    return Rows(Vocabulary(name, values.take(order)), np.concatenate([[padding, unknown], known]).astype(np.int64))


def _read(path: Path) -> tuple[pa.Array, NDArray[np.int64] | None]:
    """Give the values, and their rows where the file has them."""
    if path.suffix in {".csv", ".parquet"}:
        read: Any = csv.read_csv if path.suffix == ".csv" else parquet.read_table
        table = read(path)
        if not 1 <= table.num_columns <= 2:
            raise ValueError(f"expected the columns value and row, found {', '.join(table.column_names)}")
        columns = [column.combine_chunks() for column in table.columns]
        return columns[0], pc.cast(columns[1], pa.int64()).to_numpy(zero_copy_only=False) if columns[1:] else None
    if path.suffix == ".json":
        document = json.loads(path.read_text("utf-8"))
        if isinstance(document, dict):
            return pa.array(list(document), pa.string()), pa.array(document.values(), pa.int64()).to_numpy()
        return pa.array(document), None
    return pa.array(path.read_text("utf-8").splitlines(), pa.string()), None
