"""Canary rows: inputs with the outputs that the exporter saw, replayed by the night on its own device."""

import json
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from artifacts.errors import CorruptError
from artifacts.layout import sidecar_of
from artifacts.tables import opening_arrow, writing_table

if TYPE_CHECKING:
    import numpy as np

# Parity: how far two numbers may be apart, the one or the other; the exporter and the night hold to the same.
RELATIVE, ABSOLUTE = 1e-4, 1e-5
# In int8 or fp16 another processor's last bit can round a number to the next one there is, which scores feel.
NARROW_ABSOLUTE = 1e-2


def write_canary(path: Path, tensors: "Mapping[str, np.ndarray]") -> None:
    """Write the canary rows of a bundle; inputs and outputs by their names in the graph.

    Every tensor has the rows as its first axis. The bundle's contract records the file's bytes, so no sidecar stays.
    """
    columns, shapes = [], {}
    for name, tensor in tensors.items():
        shapes[name] = list(tensor.shape[1:])
        flat = pa.array(tensor.reshape(-1))
        width = (
            flat.type
            if tensor.ndim == 1
            else pa.list_(pa.field("item", flat.type, nullable=False), prod(tensor.shape[1:]))
        )
        columns.append(flat if tensor.ndim == 1 else pa.FixedSizeListArray.from_arrays(flat, type=width))
    schema = pa.schema([pa.field(n, c.type, nullable=False) for n, c in zip(tensors, columns, strict=True)])
    with writing_table(path, schema, metadata={"shapes": json.dumps(shapes, sort_keys=True)}, inputs="") as writer:
        writer.write(pa.RecordBatch.from_arrays(columns, schema=schema))
    sidecar_of(path).unlink()


def read_canary(path: Path) -> "dict[str, np.ndarray]":
    """Read what :func:`write_canary` wrote: each tensor by its name, rows first.

    Raises:
        CorruptError: If the file is not one of ours.
    """
    with opening_arrow(path) as reader:
        table, said = reader.read_all(), reader.schema.metadata
        table.validate(full=True)
    try:
        if not len(table):
            raise ValueError("no rows")
        shapes = json.loads(said[b"shapes"])
        return {name: _tensor(table[name].combine_chunks(), shapes[name]) for name in table.column_names}
    except (KeyError, ValueError, TypeError) as error:
        raise CorruptError(f"{path}: expected canary rows with their shapes ({error!r})") from error


def _tensor(column: pa.Array, shape: list[int]) -> "np.ndarray":
    flat = column if not shape else column.flatten()
    tensor: np.ndarray = flat.to_numpy(zero_copy_only=False).reshape(len(column), *shape)
    return tensor
