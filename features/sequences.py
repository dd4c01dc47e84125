"""Sequences: all users' events, for training; cut and encoded by the same code as the night's histories."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import DTypeLike, NDArray

from artifacts.bundle import FeatureSpec
from artifacts.errors import InputError
from features.catalogue import fit_feature_vocabularies
from features.day import data_day
from features.encode import behaviour_features, bucket_gaps, item_features
from features.events import read_events
from features.inputs import Inputs, check_inputs
from features.mapped import mapped
from features.ordered import Engine, Ordered, open_ordered, profile_columns
from features.times import SECOND
from features.vocabulary import PADDING, Vocabulary, fit_vocabulary
from features.weights import Weighing, require_weights

Ints = NDArray[np.int64]
_ROWS = 1_000_000  # events that are read at once


@dataclass(frozen=True, slots=True)
class Sequences:
    """What each user did, oldest first: by time, then by item id.

    Attributes:
        user_ids: Ascending, [U]; users without events are there too.
        starts: The events of user u are ``starts[u]:starts[u + 1]``; int64 [U + 1].
        items: Catalogue rows, int32 [E]. An item that is not in the catalogue is minus the vocabulary row of its id: it
            keeps its place in histories, but is no target.
        times_us: When, in microseconds UTC, int64 [E].
        catalogue: As the night encodes it.
        profiles: For each profile feature its vocabulary row, int32 [U].
        counts: What was read and dropped.
        weights: How much each event counts as a target, float32 [E]; None where all count alike.
    """

    user_ids: pa.Array
    starts: Ints
    items: NDArray[np.int32]
    times_us: Ints
    catalogue: pa.Table
    profiles: dict[str, NDArray[np.int32]]
    counts: dict[str, int]
    weights: NDArray[np.float32] | None = None


def fit_vocabularies(inputs: Inputs, *, spec: FeatureSpec, until: date, zone: str) -> dict[str, Vocabulary]:
    """Fit the vocabulary of each feature of *spec*.

    Of the catalogue's items those are known that had an event up to the end of *until*: the row of another would never
    be trained. Values of the other features are known if an item or a user has them.

    Raises:
        InputError: If a table is wrong; the message names file and column.
        UsageError: If a feature has no column.
    """
    types = check_inputs(inputs)
    end = data_day(until, zone)[1]
    happened = pa.array([], types.item_id)
    for batch, _ in read_events(inputs):
        past = batch.filter(pc.less(batch.column("time_us"), end))
        happened = pc.unique(pa.concat_arrays([happened, pc.unique(past.column("item_id"))]))
    fitted = fit_feature_vocabularies(inputs, spec=spec)
    listed = fitted["item_id"].values
    known = fit_vocabulary("item_id", listed.filter(pc.is_in(listed, value_set=happened)))
    if not len(known.values):
        raise InputError(f"{inputs.items.path}: none of its items has an event up to {until}; are the ids of one kind?")
    return fitted | {"item_id": known}


def read_sequences(
    inputs: Inputs,
    *,
    catalogue: pa.Table,
    spec: FeatureSpec,
    vocabularies: Mapping[str, Vocabulary],
    until: date,
    zone: str,
    engine: Engine,
    weighing: Weighing | None = None,
) -> Sequences:
    """Read every event up to the end of *until*; with *weighing* they have weights.

    What there is of each event lies in files of the engine's scratch folder, not in memory (:mod:`features.mapped`).

    Raises:
        InputError: If a table is wrong; the message names file and column.
        UsageError: If a feature has no column, or weights have none.
        NightrecError: If memory or disk do not suffice.
    """
    if weighing:
        require_weights(inputs, weighing)
    with open_ordered(
        inputs,
        catalogue=catalogue,
        spec=spec,
        vocabularies=vocabularies,
        until=until,
        zone=zone,
        shards=1,
        engine=engine,
        weighing=weighing,
    ) as ordered:
        users = ordered.query(f"SELECT {', '.join(['user_id', *profile_columns(spec)])} FROM users")
        starts, columns = _read_events(ordered, len(users), engine.scratch, weighed=weighing is not None)
        return Sequences(
            user_ids=users.column("user_id").combine_chunks(),
            starts=starts,
            items=columns["item"],
            times_us=columns["time_us"],
            catalogue=catalogue,
            profiles={
                name: users.column(column).to_numpy()
                for name, column in zip(spec.profile_features, profile_columns(spec), strict=True)
            },
            counts=ordered.counts,
            weights=columns.get("weight"),
        )


def _read_events(ordered: Ordered, users: int, folder: Path, *, weighed: bool) -> tuple[Ints, dict[str, NDArray[Any]]]:
    """Give each user's first event and the end, [users + 1], and the events' columns, oldest first, in files."""
    counted = ordered.query("SELECT u, events FROM warm")
    starts = np.zeros(users + 1, np.int64)
    starts[counted.column("u").to_numpy() + 1] = counted.column("events").to_numpy()
    np.cumsum(starts, out=starts)
    kinds: dict[str, DTypeLike] = {"item": np.int32, "time_us": np.int64}
    kinds |= {"weight": np.float32} if weighed else {}
    columns = {name: mapped((int(starts[-1]),), kind, folder) for name, kind in kinds.items()}
    done = 0
    for batch in ordered.stream("SELECT * FROM events", _ROWS):
        u = batch.column("u").to_numpy()
        # The table has each user's newest event first: write every user's events backwards.
        at = starts[u] + starts[u + 1] - 1 - np.arange(done, done + len(u))
        for name, column in columns.items():
            values = batch.column(name).to_numpy()
            column[at] = ordered.codes[values] if name == "item" else values
        done += len(u)
    return starts, columns


def ends_before(sequences: Sequences, users: Ints, now_us: Ints) -> Ints:
    """Find, for each of *users* [B], the position after the last event that is strictly before *now_us* [B].

    Events at the same moment are left out with it: in one basket nothing comes before the other.
    """
    low, high = sequences.starts[users], sequences.starts[users + 1]
    for _ in range(int((high - low).max(initial=0)).bit_length()):
        middle = (low + high) // 2
        open_ = low < high
        earlier = open_ & (sequences.times_us[np.minimum(middle, len(sequences.times_us) - 1)] < now_us)
        low, high = np.where(earlier, middle + 1, low), np.where(open_ & ~earlier, middle, high)
    return low


def history_at(
    sequences: Sequences, users: Ints, now_us: Ints, ends: Ints, spec: FeatureSpec
) -> dict[str, NDArray[np.int32]]:
    """Give what a model would have been told about users at moments: as :func:`features.encode.user_inputs` does.

    Args:
        sequences: All users' events.
        users: Rows of users, [B].
        now_us: The moments, [B].
        ends: Position after the last event that is told, [B]; from :func:`ends_before`.
        spec: The model's.

    Returns:
        int32: ``history_NAME`` [B, L], ``gap`` [B, L], ``profile_NAME`` [B].
    """
    at = ends[:, None] - 1 - np.arange(spec.history_length)
    real = at >= sequences.starts[users][:, None]
    told = at[real]
    values = behaviour_features(sequences.items[told], item_features(sequences.catalogue, spec))
    moments = np.broadcast_to(now_us[:, None], at.shape)[real]
    values["gap"] = bucket_gaps((moments - sequences.times_us[told]) // SECOND, spec.gap_edges)
    arrays = {}
    for name, rows in values.items():
        padded = np.full(at.shape, PADDING, np.int32)
        padded[real] = rows
        arrays[name if name == "gap" else f"history_{name}"] = padded
    return arrays | {f"profile_{name}": sequences.profiles[name][users] for name in spec.profile_features}
