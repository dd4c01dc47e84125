"""Vocabularies: from a value to its row in an embedding table; row 0 is padding, row 1 is unknown."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from artifacts import schemas
from artifacts.errors import CorruptError, InputError
from artifacts.layout import sidecar_of
from artifacts.tables import opening_arrow, writing_table
from features.types import widen

PADDING = 0
UNKNOWN = 1
FIRST = 2  # the row of the first known value


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The known values of one feature.

    Attributes:
        name: The feature.
        values: Known values, ascending, each once, none null; int64, uint64 or string. Row 2 is the first.
    """

    name: str
    values: pa.Array

    @property
    def size(self) -> int:
        """Rows of an embedding table: padding, unknown, and one for each known value."""
        return FIRST + len(self.values)

    def encode(self, values: pa.Array | pa.ChunkedArray) -> NDArray[np.int32]:
        """Give the row of each of *values* as int32 [n]; one that is null or was never seen gets row 1.

        Raises:
            InputError: If their type is another than the vocabulary's (after widening).
        """
        if isinstance(values, pa.ChunkedArray):
            values = values.combine_chunks()
        try:
            wide = widen(values)
        except ValueError as error:
            raise InputError(f"feature {self.name}: {error}") from error
        if wide.type != self.values.type:
            raise InputError(
                f"feature {self.name}: expected {self.values.type} as in its vocabulary, found {wide.type}; "
                "map the column that the model was trained on, or train anew"
            )
        rows = pc.fill_null(pc.index_in(wide, value_set=self.values), UNKNOWN - FIRST)
        encoded: NDArray[np.int32] = rows.to_numpy(zero_copy_only=False) + np.int32(FIRST)
        return encoded


def fit_vocabulary(name: str, values: pa.Array | pa.ChunkedArray) -> Vocabulary:
    """Take every distinct value of *values* that is not null as known.

    Raises:
        InputError: If they are neither integers nor text.
    """
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    try:
        distinct = pc.drop_null(pc.unique(widen(values)))
    except ValueError as error:
        raise InputError(f"feature {name}: {error}; an id or a category cannot be that") from error
    return Vocabulary(name, distinct.take(pc.sort_indices(distinct)))


def save_vocabulary(vocabulary: Vocabulary, path: Path) -> None:
    """Write *vocabulary* under *path*, the same bytes for the same values.

    No sidecar is left: the ``bundle.json`` or ``model.json`` beside it says what its bytes must be.
    """
    schema = schemas.vocabulary(vocabulary.values.type)
    with writing_table(path, schema, metadata={}, inputs="") as table:
        table.write(pa.table([vocabulary.values], schema=schema))
    sidecar_of(path).unlink()


def load_vocabulary(name: str, path: Path) -> Vocabulary:
    """Read the vocabulary of feature *name*, whose bytes the caller has verified.

    Raises:
        CorruptError: If *path* holds no vocabulary: another file, or values that are not ascending.
    """
    with opening_arrow(path) as reader:
        schema = reader.schema.remove_metadata()
        if not any(schema == schemas.vocabulary(kind) for kind in schemas.ID_TYPES):
            raise CorruptError(f"{path}: expected the one column `value` of a vocabulary, found {schema.to_string()}")
        column = reader.read_all().column("value")
        column.validate(full=True)  # offsets that lead out of the buffer, text that is no UTF-8
        values = column.combine_chunks()
    if values.null_count:
        raise CorruptError(f"{path}: expected no nulls, found {values.null_count}")
    if len(values) > 1 and not pc.all(pc.less(values[:-1], values[1:])).as_py():
        raise CorruptError(f"{path}: expected ascending values, each once; was it written by other code?")
    return Vocabulary(name, values)


def load_vocabularies(folder: Path, names: Iterable[str]) -> dict[str, Vocabulary]:
    """Read ``NAME.arrow`` in *folder* for each of *names*.

    Raises:
        CorruptError: If one is missing or is no vocabulary.
    """
    return {name: load_vocabulary(name, folder / f"{name}.arrow") for name in names}
