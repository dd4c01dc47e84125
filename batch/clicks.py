"""A user's history as a person would tell it - which items, when - with what each click gave to each interest."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from artifacts.bundle import Bundle, Role
from batch.session import open_session
from batch.towers import Batch, user_vectors
from features.encode import user_inputs
from features.vocabulary import FIRST, load_vocabulary

WEIGHTS = "weights"  # the optional output of a user bundle


@dataclass(frozen=True, slots=True)
class Click:
    """One behaviour that the models were told of.

    Attributes:
        item_id: None where the model does not know the item: a history holds it as unknown.
        title: If the catalogue has one.
        seconds_ago: From it to the data date's end; None where only an item's latest time is kept, and this is an
            earlier one, or where the item is not in the catalogue.
        weights: What the routing gave of it to each interest of the user, which sums to 1; None without the output.
    """

    item_id: int | str | None
    title: str | None
    seconds_ago: int | None
    weights: tuple[float, ...] | None


def clicks_of(
    histories: pa.RecordBatch,
    seen: pa.RecordBatch,
    vectors: np.ndarray,
    catalogue: pa.Table,
    bundle: Bundle | None,
    profile: Mapping[str, Any],
) -> tuple[tuple[Click, ...], bool | None]:
    """Tell the history of one user, newest first, and whether *vectors* come out again.

    Args:
        histories: The user's row of ``schemas.histories``.
        seen: The user's row of ``schemas.seen``.
        vectors: float32 [k, d], the user's active interests as the night wrote them.
        catalogue: The run's.
        bundle: The user bundle that made them; None if it is not there.
        profile: The run's, for the shape of a batch.

    Returns:
        The clicks, and whether the bundle gives *vectors* to the bit on this machine; None without a bundle.
    """
    rows = histories.column("history_item_id")[0].values.to_numpy()
    weights: np.ndarray | None = None
    same = None
    if bundle is not None:
        rows = rows[: bundle.spec.history_length]
        weights, same = _weights(histories, vectors, bundle, profile["batch_users"])
    places = _catalogue_rows(rows, catalogue)
    ids, titles = _names(rows, places, catalogue, bundle)
    items, gaps = (seen.column(name)[0].values.to_numpy() for name in ("items", "last_gap"))
    ago = dict(zip(items.tolist(), gaps.tolist(), strict=True))
    told = []
    for number, place in enumerate(places.tolist()):
        shares = None if weights is None else tuple(weights[:, number].tolist())
        told.append(Click(ids[number], titles[number], ago.pop(place, None), shares))  # once: the latest time
    return tuple(told), same


def _weights(
    histories: pa.RecordBatch, vectors: np.ndarray, bundle: Bundle, rows: int
) -> tuple[np.ndarray | None, bool]:
    """Run the bundle as the night did: the weights [k, L] if it has them, and whether *vectors* come out again."""
    session = open_session(bundle, rows=rows, threads=1)
    inputs = dict(user_inputs(histories, bundle.spec, Role.USER, rows))
    same = user_vectors(session, Batch(histories, inputs)).vectors.tobytes() == vectors.tobytes()
    if not has_weights(bundle):
        return None, same
    return session.run(inputs, [WEIGHTS])[WEIGHTS][0, : len(vectors)], same


def has_weights(bundle: Bundle) -> bool:
    """Whether a user bundle has the optional output that tells which behaviours made which interest."""
    return any(tensor.name == WEIGHTS for tensor in bundle.outputs)


def _catalogue_rows(rows: np.ndarray, catalogue: pa.Table) -> np.ndarray:
    """Give the catalogue row of each vocabulary row; -1 for one that is unknown, or not in the catalogue."""
    of_items = catalogue["feature_item_id"].to_numpy()
    found = np.full(max(int(rows.max(initial=0)), int(of_items.max(initial=0))) + 1, -1, np.int64)
    found[of_items] = np.arange(len(of_items))
    found[:FIRST] = -1
    return np.asarray(found[rows])


def _names(
    rows: np.ndarray, places: np.ndarray, catalogue: pa.Table, bundle: Bundle | None
) -> tuple[list[int | str | None], list[str | None]]:
    """Give ids and titles; an item that has left the catalogue still has its id in the model's vocabulary."""
    at = pa.array(places, mask=places < 0)
    ids, titles = (catalogue[name].combine_chunks().take(at).to_pylist() for name in ("item_id", "title"))
    gone = (places < 0) & (rows >= FIRST)
    if bundle is not None and gone.any():
        values = load_vocabulary("item_id", bundle.layout.vocabulary("item_id")).values
        for number in np.flatnonzero(gone).tolist():
            ids[number] = values[int(rows[number]) - FIRST].as_py()
    return ids, titles
