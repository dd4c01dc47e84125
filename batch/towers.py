"""From prepared rows to vectors, for the steps and for the index's sample alike: one code, one batch shape."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from artifacts.errors import InputError
from batch.session import Arrays, Session
from batch.stages import stage
from features.encode import item_features, user_inputs

ENCODED_BATCHES = 16  # so many are encoded at once: there is little to do for each row


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of a prepared table with the inputs they become; at most as many as the session's batch has."""

    rows: pa.RecordBatch
    inputs: Arrays


@dataclass(frozen=True, slots=True)
class UserVectors:
    """The active interests of some users, user after user.

    Attributes:
        vectors: float32 [sum of counts, d].
        counts: int32 [users]; 0 for a cold user, who has no behaviours.
    """

    vectors: np.ndarray
    counts: np.ndarray


def cut(batches: Iterable[pa.RecordBatch], rows: int) -> Iterator[pa.RecordBatch]:
    """Cut record batches into slices of *rows*, the last of each batch shorter."""
    for batch in batches:
        for start in range(0, batch.num_rows, rows):
            yield batch.slice(start, rows)


def user_columns(session: Session) -> list[str]:
    """Columns of ``histories`` that *session*, a user bundle's, needs, in the table's order."""
    spec = session.bundle.spec
    features = [*(f"history_{name}" for name in spec.item_features), *(f"profile_{n}" for n in spec.profile_features)]
    return ["user_id", *features, "history_length"]


def item_columns(session: Session) -> list[str]:
    """Columns of ``catalogue`` that *session*, an item bundle's, needs, in the table's order."""
    return ["item_id", *(f"feature_{name}" for name in session.bundle.spec.item_features)]


def encode_users(session: Session, batches: Iterable[pa.RecordBatch]) -> Iterator[Batch]:
    """Encode rows of ``histories`` (or ``sample``) into batches for *session*, a user or a ranker bundle's."""
    bundle, size = session.bundle, session.rows
    for rows in cut(batches, ENCODED_BATCHES * size):
        with stage("encode"):
            inputs = user_inputs(rows, bundle.spec, bundle.role, rows.num_rows)
        for start in range(0, rows.num_rows, size):
            yield Batch(rows.slice(start, size), {name: array[start : start + size] for name, array in inputs.items()})


def encode_items(session: Session, batches: Iterable[pa.RecordBatch]) -> Iterator[Batch]:
    """Take the inputs of rows of ``catalogue`` for *session*, an item bundle's."""
    for rows in cut(batches, session.rows):
        yield Batch(rows, dict(item_features(rows, session.bundle.spec)))


def item_vectors(session: Session, batch: Batch) -> np.ndarray:
    """Compute the vectors of a batch of items, float32 [items, d]; a vector may be NaN, Inf or zero: count them."""
    vectors = session.run(batch.inputs)["vector"]
    return _shaped(session, "vector", vectors, (batch.rows.num_rows, session.bundle.width))


def user_vectors(session: Session, batch: Batch) -> UserVectors:
    """Compute the active interests of a batch of users.

    Raises:
        InputError: If a user's count of interests or one of the vectors is no number that can be used.
    """
    bundle, users = session.bundle, batch.rows.num_rows
    results = session.run(batch.inputs)
    interests = _shaped(session, "interests", results["interests"][:users], (users, bundle.interests, bundle.width))
    counts = _shaped(session, "count", results["count"][:users], (users,)).astype(np.int32)
    cold = batch.rows.column("history_length").to_numpy() == 0
    if (bad := ~cold & ((counts < 1) | (counts > bundle.interests))).any():
        raise InputError(
            f"{_user(session, batch, bad)}: expected 1 to {bundle.interests} interests, found {counts[bad.argmax()]}"
        )
    counts[cold] = 0
    active = np.arange(bundle.interests) < counts[:, None]
    vectors = interests[active]
    if not np.isfinite(vectors).all():
        bad = (active & ~np.isfinite(interests).all(axis=2)).any(axis=1)
        raise InputError(
            f"{_user(session, batch, bad)}: an interest vector holds NaN or Inf; the model cannot be used for this user"
        )
    return UserVectors(vectors, counts)


def vectors_of(session: Session, batches: Iterable[pa.RecordBatch]) -> UserVectors:
    """Compute the active interests of all rows of *batches*, held whole: only for a sample of fixed size.

    The rows equal those of the interests table bit for bit.
    """
    parts = [user_vectors(session, batch) for batch in encode_users(session, batches)]
    width = session.bundle.width
    return UserVectors(
        np.concatenate([np.empty((0, width), np.float32), *(part.vectors for part in parts)]),
        np.concatenate([np.empty(0, np.int32), *(part.counts for part in parts)]),
    )


def _shaped(session: Session, name: str, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if array.shape != shape:
        bundle = session.bundle
        raise InputError(
            f"{bundle.role} bundle {bundle.folder}, output {name}: expected the shape {list(shape)}, "
            f"found {list(array.shape)}; export it anew"
        )
    return array


def _user(session: Session, batch: Batch, bad: np.ndarray) -> str:
    bundle = session.bundle
    user = batch.rows.column("user_id")[int(bad.argmax())].as_py()
    return f"{bundle.role} bundle {bundle.folder}, user_id {user!r}"
