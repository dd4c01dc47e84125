"""What a release alone says of one user and one item; what was left out on the way to it, only its run can tell."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from release.content import index_parameters_of
from release.pointer import Release
from release.read import rows_with


@dataclass(frozen=True, slots=True)
class Pair:
    """A user and an item in a release.

    Attributes:
        rows: The user's list, ascending by rank; no rows if the user has none.
        history_length: How many behaviours the models were told of; None if the release does not know the user.
        interests: The user's interest vectors, float32 [k, d].
        vector: The item's vector, float32 [d]; None if the release does not know the item.
        indexed: Whether the index holds the item.
        counts_popularity: Whether the night added what an item's recent popularity is worth to its inner products.
        near_users: Ids of users beside where the user would stand.
        near_items: The same of items.
    """

    rows: pa.Table
    history_length: int | None
    interests: np.ndarray
    vector: np.ndarray | None
    indexed: bool
    counts_popularity: bool
    near_users: tuple[int | str, ...]
    near_items: tuple[int | str, ...]


def pair_of(release: Release, user: pa.Scalar, item: pa.Scalar) -> Pair:
    """Look a user and an item up in the tables of a release.

    Raises:
        CorruptError: If a table is missing or changed.
    """
    layout = release.layout
    users: list[int | str] = []
    items: list[int | str] = []
    interests = rows_with(release, layout.interests, "user_id", user, users)
    vectors = rows_with(release, layout.items, "item_id", item, items)
    width = vectors.schema.field("vector").type.list_size
    indexed = rows_with(release, layout.index.folder, "item_id", item, [])
    return Pair(
        rows=rows_with(release, layout.scores, "user_id", user, []),
        history_length=interests["history_length"][0].as_py() if interests.num_rows else None,
        interests=_numbers(interests["vectors"], width),
        vector=_numbers(vectors["vector"], width)[0] if vectors.num_rows else None,
        indexed=indexed.num_rows > 0,
        counts_popularity="append" in index_parameters_of(layout, release.manifest),
        near_users=tuple(users),
        near_items=tuple(items),
    )


def _numbers(lists: pa.ChunkedArray, width: int) -> np.ndarray:
    flat = lists
    while pa.types.is_list(flat.type) or pa.types.is_fixed_size_list(flat.type):
        flat = pc.list_flatten(flat)
    return np.asarray(flat.to_numpy(), np.float32).reshape(-1, width)
