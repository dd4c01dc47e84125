"""How much an event counts in training: what its column of weights says, times what its kind is worth."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from artifacts.errors import InputError, UsageError
from features.inputs import Inputs, Source, read_batches


@dataclass(frozen=True, slots=True)
class Weighing:
    """What an event's weight follows from.

    Attributes:
        column: Whether its column ``weight`` counts.
        kinds: What kinds of events are worth, by the column ``event``; others, and no kind, count 1.
    """

    column: bool = False
    kinds: Mapping[str, float] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """Our names of the columns of interactions that are read for it."""
        return ["weight"] * self.column + ["event"] * bool(self.kinds)


def require_weights(inputs: Inputs, weighing: Weighing) -> None:
    """Refuse weights of columns that are not declared, and a kind that no event is of: a misspelt one weighs nothing.

    Raises:
        UsageError: If there is one.
        InputError: If the column of kinds is no text.
    """
    for name, key in zip(("weight", "event"), ("sample_weight", "event_weights"), strict=True):
        if name in weighing.names and (inputs.interactions is None or name not in inputs.interactions.columns):
            raise UsageError(f"[train] {key} needs a column; name it in [inputs.interactions] {name}")
    if not weighing.kinds or inputs.interactions is None:
        return
    found = pa.array([], pa.string())
    for path, batch in read_batches(inputs.interactions, ["event"]):
        told = _texts(path, inputs.interactions.columns["event"], batch.column("event"))
        found = pc.unique(pa.concat_arrays([found, pc.drop_null(told)]))
    kinds = sorted(found.to_pylist())
    for kind in weighing.kinds:
        if kind not in kinds:
            near = difflib.get_close_matches(kind, kinds, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(kinds[:10]) or 'none'}"
            raise UsageError(f"[train] event_weights: no event is a {kind}; {hint}")


def weights_of(path: Path, source: Source, batch: pa.RecordBatch, weighing: Weighing) -> pa.Array:
    """Weigh the events of *batch*, which has the columns of *weighing*; float32 [n].

    Raises:
        InputError: If a weight is no number, missing, below 0 or not finite, or a kind is no text.
    """
    weights = np.ones(batch.num_rows)
    if "weight" in batch.schema.names:
        weights = _numbers(path, source.columns["weight"], batch.column("weight"))
    if "event" in batch.schema.names:
        kinds = _texts(path, source.columns["event"], batch.column("event")).dictionary_encode()
        worth = np.array([*(weighing.kinds.get(kind, 1.0) for kind in kinds.dictionary.to_pylist()), 1.0])
        weights = weights * worth[pc.fill_null(kinds.indices, len(worth) - 1).to_numpy(zero_copy_only=False)]
    return pa.array(weights.astype(np.float32))


def _texts(path: Path, column: str, kinds: pa.Array) -> pa.Array:
    try:
        return pc.cast(kinds, pa.string())
    except pa.ArrowException as error:
        raise InputError(
            f"{path}: column {column} of interactions: expected kinds of events as text, found {kinds.type}; "
            "cast it first"
        ) from error


def _numbers(path: Path, column: str, values: pa.Array) -> NDArray[np.float64]:
    if not (pa.types.is_integer(values.type) or pa.types.is_floating(values.type)):
        raise InputError(f"{path}: column {column} of interactions: expected numbers as weights, found {values.type}")
    numbers: NDArray[np.float64] = pc.fill_null(pc.cast(values, pa.float64()), np.nan).to_numpy(zero_copy_only=False)
    wrong = np.flatnonzero(~((numbers >= 0) & (numbers < np.inf)))
    if wrong.size:
        raise InputError(
            f"{path}: column {column} of interactions: expected weights of 0 and more, found {values[int(wrong[0])]}; "
            "correct it, or leave the column out of [inputs.interactions]"
        )
    return numbers
