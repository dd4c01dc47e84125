"""A small night made by hand: every table of a run, as the steps would leave it."""

from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
import pytest

from artifacts import schemas
from artifacts.digest import document_digest
from artifacts.documents import write_json
from artifacts.errors import RefusedError
from artifacts.layout import RootLayout
from artifacts.run import Run, replay_of, run_key_of
from artifacts.store import staged_file
from artifacts.tables import finish_file, writing_table
from release.check import check
from release.publish import Published, publish

WIDTH = 4
PER_USER = 10
COUNTS = {
    "interactions_read": 110,
    "interactions": 100,
    "interactions_null": 1,
    "interactions_future": 2,
    "interactions_of_excluded_users": 3,
    "interactions_with_excluded_items": 4,
}


@dataclass
class Night:
    """What a test may change before the tables are written; user ``u`` is in shard ``u % shards``.

    Attributes:
        date: The data date.
        users: Their ids, ascending.
        items: Their ids, ascending.
        shards: Shards of users.
        shift: Moves everybody's list along the catalogue.
        model: Seed of the model's id.
        scores: Changes the rows of a shard's score table.
        histories: Changes the rows of a shard's histories.
        vectors: Changes the item vectors.
        interests: Changes a shard's interest table.
        parameters: Changes ``index.json``.
        user_type: Type of user ids.
        cold: Users without a history.
        counts: Changes what ``prepare`` counted.
        eligible: Whether each item may be recommended.
        seen: What each user has had: catalogue rows, ascending, and how many seconds ago.
        exclude_seen: The night's policy; ``exclude_days`` is 2.
        country: Vocabulary row of each user's country; without one the histories have no profile feature.
        now: End of the data date, in seconds since 1970.
        popular: Items with events of the last days, most first.
        replayed: Each user of the replay with the catalogue rows of what they did on the data date.
        replayed_shift: Moves the replay's lists along the catalogue.
        title: What each item is called.
    """

    date: str = "2026-03-01"
    users: list[Any] = field(default_factory=lambda: list(range(100, 160)))
    items: list[int] = field(default_factory=lambda: list(range(1000, 1040)))
    shards: int = 2
    shift: int = 0
    model: str = "1"
    scores: Callable[[pa.Table], pa.Table] = lambda table: table
    histories: Callable[[pa.Table], pa.Table] = lambda table: table
    vectors: Callable[[np.ndarray], np.ndarray] = lambda vectors: vectors
    interests: Callable[[pa.Table], pa.Table] = lambda table: table
    parameters: dict[str, Any] = field(default_factory=dict)
    user_type: str = "int64"
    cold: tuple[Any, ...] = ()
    counts: dict[str, int] = field(default_factory=dict)
    eligible: Callable[[int], bool] = lambda item: True
    seen: Callable[[Any], list[tuple[int, int]]] = lambda user: [(0, 60), (1, 90)]
    exclude_seen: str = "all"
    country: Callable[[Any], int] | None = None
    now: int = 0
    popular: list[int] = field(default_factory=list)
    replayed: dict[Any, list[int]] = field(default_factory=dict)
    replayed_shift: int = 0
    title: Callable[[int], str | None] = lambda item: None


def make_run(root: Path, night: Night) -> Run:
    """Write all tables of *night* under *root*."""
    bundles = {
        role: {
            "model_id": night.model * 64,
            "bundle_id": role[0] * 64,
        }
        for role in ("item", "user", "ranker")
    }
    retrieve = {"exclude_seen": night.exclude_seen, "exclude_days": 2}
    history = {"popular_days": 30}
    semantic = {"shift": night.shift, "shards": night.shards, "retrieve": retrieve, "history": history}
    inputs = document_digest([night.date, [str(user) for user in night.users]])
    key = run_key_of(inputs, bundles, semantic, {})
    folder = RootLayout(root).run(night.date, key).folder
    run = Run(
        folder=folder,
        run_key=key,
        date=night.date,
        now=night.now,
        inputs=inputs,
        user_id=night.user_type,
        item_id="int64",
        shards=night.shards,
        item_shards=1,
        bundles=bundles,
        semantic=semantic,
        profile={},
        counts={**COUNTS, "users": len(night.users), "items": len(night.items), **night.counts},
    )
    _catalogue_and_index(run, night)
    for shard in range(night.shards):
        places = (user if night.user_type == "int64" else place for place, user in enumerate(night.users))
        users = [u for place, u in zip(places, night.users, strict=True) if place % night.shards == shard]
        _shard(run, night, shard, users)
    _replay(run, night)
    run.write()
    return run


def _write(run: Run, path: Path, schema: pa.Schema, table: pa.Table) -> None:
    with writing_table(path, schema, metadata=run.metadata(), inputs="i") as writer:
        writer.write(table.cast(schema))


def _catalogue_and_index(run: Run, night: Night) -> None:
    layout, count = run.layout, len(night.items)
    ids = pa.array(night.items, pa.int64())
    schema = schemas.catalogue(pa.int64(), ["item_id"])
    eligible = [night.eligible(item) for item in night.items]
    titles = pa.array([night.title(item) for item in night.items], pa.string())
    columns = [ids, pa.array(range(2, count + 2), pa.int32()), eligible, [True] * count, titles]
    _write(run, layout.catalogue, schema, pa.table(columns, schema=schema))

    schema, popular = schemas.popular(pa.int64()), [item for item in night.popular if item in night.items]
    columns = [popular, [night.items.index(item) for item in popular], range(len(popular), 0, -1)]
    table = pa.table([pa.array(column, f.type) for column, f in zip(columns, schema, strict=True)], schema=schema)
    _write(run, layout.popular, schema, table)

    vectors = night.vectors(np.random.default_rng(1).normal(size=(count, WIDTH)).astype(np.float32))
    flat = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), type=schemas.vector_of(WIDTH))
    schema = schemas.items(pa.int64(), WIDTH)
    _write(run, layout.items(0, 1), schema, pa.table([ids, flat], schema=schema))

    schema = schemas.index_items(pa.int64())
    indexed = [place for place, ok in enumerate(eligible) if ok]
    columns = [ids.take(pa.array(indexed, pa.int64())), pa.array(indexed, pa.int32())]
    _write(run, layout.index.items, schema, pa.table(columns, schema=schema))
    write_ivf(layout.index.ivf, vectors[indexed])
    finish_file(layout.index.ivf, inputs="i")
    counts = {"indexed": len(indexed), "ineligible": count - len(indexed), "no_signal": 0, "nan_vectors": 0}
    parameters: dict[str, Any] = {"recall": 0.99, "recall_users": 30, "imbalance": 1.0, "counts": counts}
    parameters |= {"recall_k": 10, "recall_target": 0.95, "recall_interval": [0.985, 0.995], "items": len(indexed)}
    parameters |= {"nlist": 2, "nprobe": 2, "curve": [[1, 0.7], [2, 0.99]]}
    write_json(layout.index.parameters, {**parameters, **night.parameters})
    finish_file(layout.index.parameters, inputs="i")


def write_ivf(path: Path, vectors: np.ndarray, lists: int = 2) -> None:
    """Write an IVF of *vectors* [items, d]; row i has id i, and all lists are searched."""
    quantizer = faiss.IndexFlatIP(vectors.shape[1])
    ivf = faiss.IndexIVFFlat(quantizer, vectors.shape[1], lists, faiss.METRIC_INNER_PRODUCT)
    ivf.cp.min_points_per_centroid = 1
    if len(vectors) >= lists and np.isfinite(vectors).all():
        ivf.train(np.ascontiguousarray(vectors))
        ivf.add(np.ascontiguousarray(vectors))
    ivf.nprobe = lists
    with staged_file(path) as file:
        file.write(faiss.serialize_index(ivf).tobytes())


def _shard(run: Run, night: Night, shard: int, users: list[Any]) -> None:
    layout, shards, kind = run.layout, night.shards, run.user_type
    ids = pa.array(users, kind)
    warm = [user not in night.cold for user in users]
    lists = [[2, 3, 4] if ok else [] for ok in warm]
    schema = schemas.histories(kind, ["item_id"], ["country"] if night.country else [])
    lengths = pa.array([len(one) for one in lists], pa.int32())
    profile = [pa.array([night.country(user) for user in users], pa.int32())] if night.country else []
    columns = [ids, pa.array(lists, schema.field(1).type), pa.array(lists, schema.field(2).type), *profile, lengths]
    table = night.histories(pa.table(columns, schema=schema))
    _write(run, layout.histories(shard, shards), schema, table)

    schema = schemas.seen(kind)
    had = [night.seen(user) for user in users]
    items, gaps = ([[pair[place] for pair in one] for one in had] for place in (0, 1))
    columns = [ids, *([pa.array(v, f.type) for v, f in zip((items, items, gaps), list(schema)[1:], strict=True)])]
    _write(run, layout.seen(shard, shards), schema, pa.table(columns, schema=schema))

    schema = schemas.interests(kind, WIDTH)
    vectors = pa.array([[[1.0] * WIDTH] * 2 if ok else [] for ok in warm], schema.field(1).type)
    columns = [ids, vectors, lengths, [not ok for ok in warm]]
    table = night.interests(pa.table(columns, schema=schema))
    _write(run, layout.interests(shard, shards), schema, table)
    _write(
        run, layout.scores(shard, shards), schemas.scores(kind, pa.int64()), night.scores(_scores(night, users, kind))
    )


def _replay(run: Run, night: Night) -> None:
    layout, kind, users = replay_of(run).layout, run.user_type, sorted(night.replayed)
    schema = schemas.happened(kind)
    columns = [pa.array(users, kind), pa.array([night.replayed[user] for user in users], schema.field(1).type)]
    _write(run, layout.happened, schema, pa.table(columns, schema=schema))
    lists = _scores(replace(night, shift=night.replayed_shift), users, kind)
    _write(run, layout.scores(0, 1), schemas.scores(kind, pa.int64()), lists)


def _scores(night: Night, users: list[Any], kind: pa.DataType) -> pa.Table:
    """Give each user ten items in a row of the catalogue, whose place depends on the user and on ``shift``."""
    allowed = [item for item in night.items if night.eligible(item)]
    rows = []
    for user in users:
        start = (night.users.index(user) if kind == pa.string() else int(user)) + night.shift
        for rank in range(min(PER_USER, len(allowed))):
            ranked = user not in night.cold
            score = 1 / (1 + rank) if ranked else None
            item = allowed[(start + rank) % len(allowed)]
            rows.append((user, item, rank + 1, 0 if ranked else 1, score, score, 0 if ranked else None))
    schema = schemas.scores(kind, pa.int64())
    columns = zip(*rows, strict=True) if rows else [()] * len(schema)
    return pa.table([pa.array(column, f.type) for column, f in zip(columns, schema, strict=True)], schema=schema)


@pytest.fixture
def night(tmp_path: Path) -> Callable[..., Run]:
    """Make runs under one root: ``night(date=..., shift=...)``."""

    def make(**changes: Any) -> Run:
        return make_run(tmp_path, Night(**changes))

    return make


@pytest.fixture
def released(night: Callable[..., Run], tmp_path: Path) -> Callable[..., Published]:
    """Make, check and publish a night, to LATEST or another channel: ``released("shadow", date=...)``.

    With ``override="a reason"`` the gates' verdict does not matter; ``supersede`` is the reason for other content.
    """

    def make(
        channel: str = "LATEST", override: str | None = None, supersede: str | None = None, **changes: Any
    ) -> Published:
        run = night(**changes)
        with suppress(RefusedError) if override else nullcontext():
            check(run, tmp_path, channel=channel, threads=1)
        return publish(run, tmp_path, channel=channel, override=override, supersede=supersede)

    return make
