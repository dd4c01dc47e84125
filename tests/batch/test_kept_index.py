"""An index kept from an earlier run, to the bytes of a full night; one of an open type is always chosen anew."""

import mmap
from collections.abc import Callable
from dataclasses import replace
from types import ModuleType

import faiss
import numpy as np
import pyarrow as pa
import pytest

from artifacts import schemas
from artifacts.bundle import Bundle
from artifacts.documents import read_json
from artifacts.layout import sidecar_of
from artifacts.run import Run
from artifacts.tables import read_table, writing_table
from batch import index as step
from batch import ondisk
from batch.index import build_index
from batch.indexed import open_index
from batch.ivf import IndexOptions
from features import mapped

ITEMS, WIDTH = 12_000, 8  # of which six in seven are indexed: as many as PQ needs
OPEN = IndexOptions(type="auto", recall_k=10, recall_target=0.9)
MakeRun = Callable[..., Run]


def night(
    make_run: MakeRun,
    tiny: ModuleType,
    name: str,
    vectors: np.ndarray,
    *,
    users: int = 60,
    kind: str = "Flat",
    more: int = 0,
) -> Run:
    """A run whose items have these *vectors*, whose sample are so many users; item 5,000 has so many *more* events."""
    run = make_run(items=len(vectors), name=name, index_type=kind)
    lists = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), type=schemas.vector_of(WIDTH))
    items = pa.table({"item_id": tiny.catalogue_of(len(vectors))["item_id"], "vector": lists})
    user_ids, inputs = tiny.shard_users(users, 0)
    sample = tiny.history_rows(inputs, user_ids)
    bought = np.arange(len(vectors)) * 7919 % 1000 + (np.arange(len(vectors)) == 5_000) * more
    popular = pa.table(
        {
            "item_id": items["item_id"],
            "item": pa.array(range(len(vectors)), pa.int32()),
            "events": pa.array(bought, pa.int64()),
        }
    )
    tables = {run.layout.items(0, 1): items, run.layout.sample: sample, run.layout.popular: popular}
    for path, rows in tables.items():
        with writing_table(path, rows.schema, metadata={}, inputs="") as writer:
            writer.write(rows)
    return run


def files(run: Run) -> list[bytes]:
    layout = run.layout.index
    return [path.read_bytes() for path in (layout.ivf, layout.items, layout.parameters)]


@pytest.fixture
def vectors() -> np.ndarray:
    rng = np.random.default_rng(2)
    return (rng.standard_normal((ITEMS, WIDTH)) * rng.uniform(0.5, 2, (ITEMS, 1))).astype(np.float32)


@pytest.mark.parametrize("weight", [0, 0.5])
@pytest.mark.parametrize("kind", ["Flat", "SQ8", "PQ"])
def test_a_kept_index_has_the_bytes_of_one_that_is_built(
    make_run, tiny, user_bundle, monkeypatch, vectors, kind, weight
):
    """Other users tonight, the same items: nothing is trained, nprobe and recall are tonight's, and bytes are equal."""
    options = IndexOptions(type=kind, lists=24, recall_k=10, popularity_weight=weight)
    before = night(make_run, tiny, "before", vectors, users=10, kind=kind)
    kept, full = (night(make_run, tiny, name, vectors, users=300, kind=kind) for name in ("kept", "full"))
    build_index(before, user_bundle, options, threads=1)
    built = build_index(full, user_bundle, options, threads=1)

    monkeypatch.setattr(step, "train", None)
    result = build_index(kept, user_bundle, options, earlier=[before], threads=1)

    assert files(kept) == files(full)
    assert files(kept)[2] != files(before)[2]  # recall is of tonight's users
    assert result.counts == {**built.counts, "kept_lists": 24}


@pytest.mark.parametrize("kind", ["Flat", "SQ8", "PQ", "auto"])
def test_vectors_in_a_file_give_the_bytes_of_those_in_memory(
    make_run, tiny, user_bundle: Bundle, monkeypatch, vectors, kind
):
    """Where vectors are more than is held, built and kept indexes are the same: training, adding, exact search."""
    options = replace(OPEN, type=kind, lists=24, popularity_weight=0.5)
    held, filed, kept = (night(make_run, tiny, name, vectors, kind=kind) for name in ("held", "filed", "kept"))
    build_index(held, user_bundle, options, threads=1)

    monkeypatch.setattr(mapped, "HELD", 4 * WIDTH * ITEMS // 2)
    build_index(filed, user_bundle, options, threads=1)
    again = build_index(kept, user_bundle, options, earlier=[filed], threads=1)

    assert files(filed) == files(kept) == files(held)
    assert ("kept_lists" in again.counts) == (kind != "auto")
    opened = open_index(filed, read_table(filed.layout.catalogue)["item_id"].combine_chunks(), device="cpu")
    base = opened.vectors
    while not isinstance(base, mmap.mmap):  # an array of memory ends in None, which has no base
        base = base.base


@pytest.mark.parametrize("what", ["an item's last bit", "ivf.faiss", "its sidecar", "items", "options"])
def test_another_or_a_damaged_index_is_not_kept(make_run, tiny, user_bundle: Bundle, vectors, what):
    """One bit of one vector, one byte of a file or another option: the index is built, to the bytes of a full night."""
    options = IndexOptions(lists=24, recall_k=10)
    old = vectors.copy()
    if what == "an item's last bit":
        old[8_000, 3] = np.nextafter(old[8_000, 3], np.float32(9))
    before = night(make_run, tiny, "before", old, kind="Flat")
    kept, full = (night(make_run, tiny, name, vectors, kind="Flat") for name in ("kept", "full"))
    build_index(before, user_bundle, IndexOptions(lists=12, recall_k=10) if what == "options" else options, threads=1)
    build_index(full, user_bundle, options, threads=1)
    layout = before.layout
    damaged = {"ivf.faiss": layout.index.ivf, "items": layout.items(0, 1)}
    damaged["its sidecar"] = sidecar_of(layout.index.ivf)
    if path := damaged.get(what):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)

    result = build_index(kept, user_bundle, options, earlier=[before], threads=1)

    assert "kept_lists" not in result.counts
    assert files(kept) == files(full)


def test_lists_are_kept_while_nothing_is_more_popular_than_before(make_run, tiny, user_bundle: Bundle, vectors) -> None:
    """One event more of one item, or another weight: the index is built anew; without one the event is no matter."""
    before, same, event = (
        night(make_run, tiny, name, vectors, more=more) for name, more in (("before", 0), ("same", 0), ("event", 1))
    )
    plain, half, whole = (IndexOptions(lists=24, recall_k=10, popularity_weight=weight) for weight in (0, 0.5, 1))

    def kept(run: Run, options: IndexOptions) -> bool:
        return "kept_lists" in build_index(run, user_bundle, options, earlier=[before], threads=1).counts

    build_index(before, user_bundle, plain, threads=1)
    assert [kept(event, plain), kept(same, half)] == [True, False]
    build_index(before, user_bundle, half, threads=1)
    assert [kept(event, half), kept(same, whole), kept(same, half)] == [False, False, True]


def test_a_night_keeps_what_it_chose(
    make_run: Callable[..., Run], tiny: ModuleType, user_bundle: Bundle, vectors
) -> None:
    """The index has the bytes of one of the chosen type and lists; its file says what was tried; it is opened so."""
    options = replace(OPEN, lists=24, memory=300_000)
    first, again = (night(make_run, tiny, name, vectors, users=200, kind="auto") for name in ("first", "again"))
    result = build_index(first, user_bundle, options, threads=1)
    build_index(again, user_bundle, options, threads=1, earlier=[first])

    assert files(first) == files(again)
    said = read_json(first.layout.index.parameters)
    assert said["type"] in {"SQ8", "PQ"}
    assert {one["lists"] for one in said["tried"]} == {24}
    again = f", {said['refine']} times k scored again" if said["refine"] > 1 else ""
    tried = len(said["tried"])
    assert result.about == f"{said['type']}{again}, {said['nprobe']} of 24 lists, of {tried} tried"
    index = open_index(first, tiny.catalogue_of(ITEMS)["item_id"].combine_chunks(), device="cpu")
    assert index.refine == said["refine"]

    fixed = night(make_run, tiny, "fixed", vectors, users=200, kind=said["type"])
    build_index(fixed, user_bundle, replace(options, type=said["type"]), threads=1)
    ivf = faiss.read_index(str(fixed.layout.index.ivf))
    ivf.nprobe = said["nprobe"]
    assert faiss.serialize_index(ivf).tobytes() == first.layout.index.ivf.read_bytes()


@pytest.mark.parametrize("weight", [0, 0.5])
def test_an_index_past_its_memory_is_made_on_disk(
    make_run: MakeRun, tiny, user_bundle: Bundle, monkeypatch, vectors, weight
) -> None:
    """A type that is named and takes more than its limit has the bytes that it would have in memory."""
    monkeypatch.setattr(ondisk, "LEAST_OF_PART", 3_000)
    options = IndexOptions(lists=24, recall_k=10, popularity_weight=weight)
    memory, disk = (night(make_run, tiny, name, vectors) for name in ("memory", "disk"))
    build_index(memory, user_bundle, options, threads=1)

    build_index(disk, user_bundle, replace(options, memory=100_000), threads=1)

    assert files(disk) == files(memory)
    assert not (disk.layout.index.folder / ".parts").exists()
