"""Made-up rows that try a graph: histories of every length, padding, unknown ids, the last row of a vocabulary."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from artifacts.bundle import Role, feature_of
from export.source import Arrays, Source, input_shape

PADDING, UNKNOWN = 0, 1  # rows of every vocabulary

ALL_PADDING, ALL_UNKNOWN, FULL, ANY = "all padding", "unknown ids", "full history", "any history"
_HISTORIES = {"no history": 0, "history of 1": 1, "history of 2": 2}
_KNOWN = "known ids"

KINDS = {
    Role.ITEM: (ALL_PADDING, ALL_UNKNOWN, _KNOWN),
    Role.USER: (ALL_PADDING, *_HISTORIES, FULL, ALL_UNKNOWN, ANY),
    Role.RANKER: (ALL_PADDING, *_HISTORIES, FULL, ALL_UNKNOWN, ANY),
}


def draw_rows(
    source: Source, kinds: Sequence[str], *, length: int | None = None, candidates: int = 7, seed: int = 0
) -> Arrays:
    """Draw inputs, the same for the same arguments.

    Args:
        source: Its spec and vocabularies say what rows there are.
        kinds: For each row a word of ``KINDS[source.role]``.
        length: Of the padded histories; by default ``spec.history_length``.
        candidates: C, of a ranker.
        seed: Of the draw.

    Returns:
        Arrays by the names of the source's inputs, rows first.
    """
    random = np.random.default_rng(seed)
    kind = np.array(kinds)
    length = length or source.spec.history_length
    sizes = {"length": length, "candidates": candidates, "users": len(kind), "items": len(kind)}
    real = np.arange(length) < _behaviours(kind, length, random)[:, None]
    inputs: Arrays = {}
    for name in source.inputs:
        shape = tuple(sizes[axis] if isinstance(axis, str) else axis for axis in input_shape(source, name))
        if name == "cross" and feature_of(source.role, name) is None:
            values = 3 * random.standard_normal(shape, dtype=np.float32)
            values[kind == ALL_PADDING] = 0
            inputs[name] = values
            continue
        rows = _vocabulary_rows(source, name, kind, shape, random)
        if source.role is not Role.ITEM and input_shape(source, name) == ("users", source.length):
            rows *= real
        inputs[name] = rows.astype(source.integers)
    return inputs


def _behaviours(kind: NDArray[np.str_], length: int, random: np.random.Generator) -> NDArray[np.int64]:
    count = random.integers(0, length + 1, size=len(kind))
    for word, behaviours in _HISTORIES.items():
        count[kind == word] = min(behaviours, length)
    count[(kind == FULL) | (kind == ALL_UNKNOWN)] = length
    return count


def _vocabulary_rows(
    source: Source, name: str, kind: NDArray[np.str_], shape: tuple[int, ...], random: np.random.Generator
) -> NDArray[np.int64]:
    feature = feature_of(source.role, name)
    size = len(source.spec.gap_edges) + 2 if feature is None else source.vocabularies[feature].size
    rows = random.integers(UNKNOWN, size, size=shape)
    rows[np.isin(kind, (FULL, _KNOWN)).nonzero()[0][:1]] = size - 1  # an off-by-one shows in the last row
    rows[kind == ALL_PADDING] = PADDING
    rows[kind == ALL_UNKNOWN] = UNKNOWN  # of the gap buckets: the most recent one
    return rows
