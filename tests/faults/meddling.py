"""Steps that went wrong: what they have left in the run is written again, as other rows.

The sidecars are written anew too: a step that computes the wrong thing records it as faithfully as the right one.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from artifacts.run import Run
from artifacts.tables import read_sidecar, read_table, writing_table

Random = np.random.Generator


def rewritten(path: Path, run: Run, change: Callable[[pa.Table], pa.Table]) -> None:
    """Write a table of the run as a step would have that computed something else."""
    table, inputs = read_table(path), read_sidecar(path).inputs
    with writing_table(path, table.schema.remove_metadata(), metadata=run.metadata(), inputs=inputs) as writer:
        writer.write(change(table).cast(table.schema.remove_metadata()))


def vectors_of(table: pa.Table, change: Callable[[np.ndarray], np.ndarray]) -> pa.Table:
    """Change the column ``vector``."""
    column = table["vector"].combine_chunks()
    width = column.type.list_size
    vectors = change(column.flatten().to_numpy().reshape(-1, width)).astype(np.float32)
    flat = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), type=column.type)
    return table.set_column(table.schema.get_field_index("vector"), table.schema.field("vector"), flat)


def turned_vectors(run: Run, rng: Random) -> None:
    """The item vectors of another model: the same angles between them, in another space."""
    first = read_table(run.layout.items(0, run.item_shards))["vector"].type.list_size
    turn, _ = np.linalg.qr(rng.normal(size=(first, first)))
    for shard in range(run.item_shards):
        rewritten(run.layout.items(shard, run.item_shards), run, lambda t: vectors_of(t, lambda v: v @ turn))


def mixed_vectors(run: Run, rng: Random) -> None:
    """Each item has another one's vector: rows and ids are out of step."""
    for shard in range(run.item_shards):
        rewritten(run.layout.items(shard, run.item_shards), run, lambda t: vectors_of(t, rng.permutation))


def zero_vectors(run: Run, rng: Random) -> None:
    """Every tenth item has no vector."""

    def change(vectors: np.ndarray) -> np.ndarray:
        return np.where(rng.random((len(vectors), 1)) < 0.1, 0, vectors)

    for shard in range(run.item_shards):
        rewritten(run.layout.items(shard, run.item_shards), run, lambda t: vectors_of(t, change))


def same_interests(run: Run, rng: Random) -> None:
    """The user model has collapsed: everybody has the first user's interests."""

    def change(table: pa.Table) -> pa.Table:
        cold = table["cold"].to_pylist()
        first = table["vectors"][cold.index(False)].as_py()
        kind = table.schema.field("vectors")
        vectors = pa.array([[] if none else first for none in cold], kind.type)
        return table.set_column(table.schema.get_field_index("vectors"), kind, vectors)

    for shard in range(run.shards):
        rewritten(run.layout.interests(shard, run.shards), run, change)


def scores_of(change: Callable[[pa.Table, Random], pa.Table], run: Run, rng: Random) -> None:
    """Change the lists of every shard."""
    for shard in range(run.shards):
        rewritten(run.layout.scores(shard, run.shards), run, lambda table: change(table, rng))


def with_scores(table: pa.Table, scores: np.ndarray) -> pa.Table:
    """Give the ranked rows other scores."""
    missing = pc.is_null(table["score"]).to_numpy()
    column = pa.array(scores.astype(np.float32), mask=missing)
    return table.set_column(table.schema.get_field_index("score"), table.schema.field("score"), column)


def constant(table: pa.Table, rng: Random) -> pa.Table:
    """All scores are the same."""
    return with_scores(table, np.full(len(table), 0.5))


def untrained(table: pa.Table, rng: Random) -> pa.Table:
    """A ranker that knows nothing: each user's rows in another order, with scores of about one half."""
    users = pc.dictionary_encode(table["user_id"].combine_chunks()).indices.to_numpy()
    order = np.lexsort((rng.random(len(table)), users))
    items = table.take(pa.array(order))["item_id"]
    ranks = table["rank"].to_numpy()
    moved = table.set_column(table.schema.get_field_index("item_id"), table.schema.field("item_id"), items)
    return with_scores(moved, 0.5 - ranks * 1e-4)


def without_lists(table: pa.Table, rng: Random) -> pa.Table:
    """Every list ends after half of its rows."""
    ranks = table["rank"].to_numpy()
    return table.filter(pa.array(ranks <= max(1, ranks.max() // 2)))


def same_lists(table: pa.Table, rng: Random) -> pa.Table:
    """Everybody is given the list of the first user."""
    first = table.filter(pc.equal(table["user_id"], table["user_id"][0]))["item_id"].to_numpy()
    items = pa.array(first[(table["rank"].to_numpy() - 1) % len(first)], table["item_id"].type)
    return table.set_column(table.schema.get_field_index("item_id"), table.schema.field("item_id"), items)


def without_last_users(table: pa.Table, rng: Random) -> pa.Table:
    """The table ends before the last users."""
    users = pc.unique(table["user_id"]).to_numpy(zero_copy_only=False)
    return table.filter(pc.is_in(table["user_id"], value_set=pa.array(users[: len(users) * 9 // 10])))
