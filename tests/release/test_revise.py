"""Revising: what is taken out is nowhere in the new release, and all else is as it was."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from artifacts.errors import ConflictError, CorruptError, InputError, RefusedError, UsageError
from artifacts.layout import ReleaseLayout, RootLayout
from artifacts.release import Manifest, verify_release
from artifacts.run import Run
from artifacts.tables import finish_file
from release import revise as revise_module
from release.check import check
from release.pointer import find_release, read_pointer, versions
from release.publish import Published, publish
from release.read import recommendations
from release.releases import promote, rollback, show
from release.revise import Revised, revise
from tests.release.conftest import Night, make_run

Released = Callable[..., Published]
USERS = [100, 117, 159]
ITEMS = [1000, 1013, 1014, 1039]


def tables(folder: Path, part: str) -> pa.Table:
    return pa.concat_tables(pa.ipc.open_file(path).read_all() for path in sorted((folder / part).glob("*.arrow")))


def ids_file(folder: Path, ids: list[Any], name: str = "ids.txt") -> Path:
    path = folder / name
    path.write_text("".join(f"{one}\n" for one in ids))
    return path


def revised(root: Path, users: list[Any] = USERS, items: list[Any] = ITEMS, version: str | None = None) -> Revised:
    drop_users = ids_file(root, users, "users.txt") if users else None
    drop_items = ids_file(root, items, "items.txt") if items else None
    ids = {"drop_users": drop_users, "drop_items": drop_items}
    return revise(root, version, who="ada", why="erasure", at_most=1, **ids)


def test_rows_are_out_and_ranks_are_closed(released: Released, tmp_path: Path) -> None:
    """The tables hold the other users and items with their scores, in order, ranked from 1 without a gap."""
    old = released().folder
    said = revised(tmp_path)
    new = RootLayout(tmp_path).release(said.version).folder
    wanted = []
    for row in tables(old, "scores").to_pylist():
        if row["user_id"] not in USERS and row["item_id"] not in ITEMS:
            first = not wanted or wanted[-1]["user_id"] != row["user_id"]
            wanted.append(row | {"rank": 1 if first else wanted[-1]["rank"] + 1})
    assert tables(new, "scores").to_pylist() == wanted
    for part, column, gone in (("interests", "user_id", USERS), ("items", "item_id", ITEMS)):
        kept = [row for row in tables(old, part).to_pylist() if row[column] not in gone]
        assert tables(new, part).to_pylist() == kept
        assert tables(new, part).schema.metadata == tables(old, part).schema.metadata
    assert (said.taken_out.users, said.taken_out.items) == (3, 4)
    assert said.taken_out.rows == 600 - len(wanted)


@pytest.mark.parametrize("rows", [1, 4, 7])
def test_ranks_are_closed_across_record_batches(
    released: Released, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    """A user whose rows lie in several record batches is ranked as one, however the batches are cut."""
    monkeypatch.setattr("artifacts.tables.BATCH_ROWS", rows)
    released()
    version = revised(tmp_path).version
    for user in (101, 116, 118, 158):
        found = recommendations(tmp_path, str(user), version=version).rows
        assert found["rank"].to_pylist() == list(range(1, found.num_rows + 1))


def write_index(run: Run, kind: str) -> Any:
    """Put an IVF of one *kind* over the run's indexed items in place of its own."""
    vectors = np.stack(tables(run.folder, "items")["vector"].to_pylist()).astype(np.float32)
    indexed = np.ascontiguousarray(vectors[pa.ipc.open_file(run.layout.index.items).read_all()["item"].to_numpy()])
    coarse, product = faiss.IndexFlatIP(4), faiss.METRIC_INNER_PRODUCT
    ivf = {
        "Flat": lambda: faiss.IndexIVFFlat(coarse, 4, 5, product),
        "SQ8": lambda: faiss.IndexIVFScalarQuantizer(coarse, 4, 5, faiss.ScalarQuantizer.QT_8bit, product),
        "PQ": lambda: faiss.IndexIVFPQ(coarse, 4, 5, 2, 3, product),
    }[kind]()
    ivf.train(indexed)
    ivf.add(indexed)
    ivf.nprobe = 3
    faiss.write_index(ivf, str(run.layout.index.ivf))
    finish_file(run.layout.index.ivf, inputs="i")
    return ivf


def answers(ivf: Any, ids: np.ndarray, queries: np.ndarray) -> list[list[tuple[float, int]]]:
    """All that the probed lists hold for each query: scores with ids, sorted."""
    scores, rows = ivf.search(queries, len(ids))
    pairs = (zip(s.tolist(), r.tolist(), strict=True) for s, r in zip(scores, rows, strict=True))
    return [sorted((score, int(ids[row])) for score, row in one if row >= 0) for one in pairs]


@pytest.mark.parametrize("kind", ["Flat", "SQ8", "PQ"])
def test_the_index_finds_the_others_as_before(night: Callable[..., Run], tmp_path: Path, kind: str) -> None:
    """Every kind of IVF gives the old answers without the items that are out, under the new rows of the id map."""
    run = night(items=list(range(1000, 1400)), eligible=lambda item: item % 7 > 0)
    ivf = write_index(run, kind)
    check(run, tmp_path, threads=1)
    old = publish(run, tmp_path).folder
    out = {1001, 1002, 1200, 1201, 1399}  # 1001 is not eligible: it has a vector, and is not indexed
    new = RootLayout(tmp_path).release(revised(tmp_path, users=[], items=sorted(out)).version)
    read = faiss.read_index(str(new.index.ivf))
    id_map = pa.ipc.open_file(new.index.items).read_all()
    before = pa.ipc.open_file(old / "index" / "items.arrow").read_all()["item_id"].to_numpy()
    after = id_map["item_id"].to_numpy()
    assert after.tolist() == [item for item in before.tolist() if item not in out]
    assert (read.nprobe, read.nlist, read.ntotal) == (3, 5, len(before) - 4)
    assert np.array_equal(tables(new.folder, "items")["item_id"].to_numpy()[id_map["item"].to_numpy()], after)
    queries = np.random.default_rng(3).normal(size=(50, 4)).astype(np.float32)
    wanted = [[pair for pair in one if pair[1] not in out] for one in answers(ivf, before, queries)]
    assert answers(read, after, queries) == wanted
    parameters = json.loads(new.index.parameters.read_text())
    assert (parameters["items"], parameters["counts"]["indexed"]) == (len(after), len(after))
    assert parameters["recall"] == 0.99


def test_no_trace_is_left(released: Released, tmp_path: Path) -> None:
    """The bytes of an erased user's id are in no file of the new release, record and all."""
    users = [f"person-{number:03d}@example" for number in range(30)]
    released(users=users, user_type="string")
    said = revised(tmp_path, users=[users[7]], items=[])
    new = RootLayout(tmp_path).release(said.version).folder
    told = "".join(str(tables(new, part)["user_id"].to_pylist()) for part in ("scores", "interests"))
    assert users[7] not in told
    assert users[8] in told
    for path in new.rglob("*"):
        assert path.is_dir() or users[7].encode() not in path.read_bytes()


def test_a_release_like_any_other(released: Released, tmp_path: Path) -> None:
    """It is whole, readable by what read releases before, of the same date and parent, and tells where it is from."""
    first, old = released(), released(date="2026-03-02", shift=1)
    said = revised(tmp_path)
    layout = RootLayout(tmp_path).release(said.version)
    manifest = verify_release(layout.folder)
    before = Manifest.read(RootLayout(tmp_path).release(old.version).manifest)
    assert said.version[:10] == "2026-03-02"
    assert (manifest.parent, manifest.run_key, manifest.bundles) == (first.version, before.run_key, before.bundles)
    assert set(json.loads(layout.manifest.read_text())) == set(
        json.loads(RootLayout(tmp_path).release(old.version).manifest.read_text())
    )
    (revision,) = show(tmp_path)["revision"]["revisions"]
    assert (revision["revised_from"], revision["who"], revision["why"]) == (old.version, "ada", "erasure")
    assert revision["users"] == 3
    assert said.others == (first.version,)
    again = revised(tmp_path, users=[101], items=[])
    history = show(tmp_path, again.version)["revision"]["revisions"]
    assert [one["revised_from"] for one in history] == [old.version, said.version]


def test_the_same_ids_give_the_same_bytes(released: Released, night: Callable[..., Run], tmp_path: Path) -> None:
    """In whatever order and file the ids come; the second time nothing is written and no pointer moves."""
    old = released().version
    said = revised(tmp_path)
    pointer = read_pointer(tmp_path)
    table = tmp_path / "users.parquet"
    pq.write_table(pa.table({"name": ["x"] * 6, "id": pa.array(USERS[::-1] * 2, pa.int32())}), table)
    items = ids_file(tmp_path, ITEMS[::-1], "items.csv")
    again = revise(tmp_path, old, who="bob", why="once more", drop_users=table, drop_items=items)
    assert (again.version, again.stored, again.moved) == (said.version, False, ())
    assert read_pointer(tmp_path) == pointer
    here, there = tmp_path / "one", tmp_path / "two"
    for root in (here, there):
        run = make_run(root, Night())
        check(run, root, threads=1)
        publish(run, root)
        assert revised(root).version == said.version


def test_files_that_it_does_not_concern_are_copied(released: Released, tmp_path: Path) -> None:
    """A user of one shard leaves the files of the others, the items and the index byte for byte as they were."""
    old = released().folder
    new = RootLayout(tmp_path).release(revised(tmp_path, users=[100], items=[]).version).folder
    for name in ("scores/00001-of-00002.arrow", "items/00000-of-00001.arrow", "index/ivf.faiss", "index/items.arrow"):
        assert (new / name).read_bytes() == (old / name).read_bytes()
    assert (new / "scores/00000-of-00002.arrow").read_bytes() != (old / "scores/00000-of-00002.arrow").read_bytes()


def test_every_channel_that_names_the_old_one_moves(released: Released, tmp_path: Path) -> None:
    """LATEST and the shadow name the new release, with the reason, and a hold stays."""
    first, second = released(), released(date="2026-03-02", shift=1)
    promote(tmp_path, first.version, who="me", why="try", channel="shadow")
    promote(tmp_path, second.version, who="me", why="try", channel="canary")
    held = rollback(tmp_path, first.version, who="bob", why="bad night")
    said = revised(tmp_path)
    assert said.moved == ("shadow", "LATEST")
    pointer = read_pointer(tmp_path)
    assert pointer is not None
    assert (pointer.version, pointer.sequence, pointer.hold) == (said.version, held.sequence + 1, held.hold)
    assert pointer.reason == f"revised from {first.version} by ada: erasure"
    assert find_release(tmp_path, channel="canary").version == second.version


def test_a_night_that_came_meanwhile_is_said_to_hold_the_ids(
    released: Released, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where LATEST has gone on, nothing is taken out for its readers: that is no success."""
    released()
    write_index = revise_module.write_index_without

    def slow(*asked: Any) -> Any:
        released(date="2026-03-02", shift=1)
        return write_index(*asked)

    monkeypatch.setattr(revise_module, "write_index_without", slow)
    with pytest.raises(ConflictError, match=r"LATEST has gone on from 2026-03-01.*revise that too"):
        revised(tmp_path)
    monkeypatch.undo()
    said = revised(tmp_path)
    assert (said.version[:10], said.moved) == ("2026-03-02", ("LATEST",))


def test_one_that_was_killed_between_two_channels_is_finished_by_the_next(
    released: Released, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked the same again, it leads to the same release as long as one channel names the old one."""
    first = released()
    promote(tmp_path, first.version, who="me", why="try", channel="shadow")
    move, moves = revise_module.move_pointer, []

    def die_at_the_second(*asked: Any, **options: Any) -> None:
        moves.append(asked)
        if len(moves) == 2:
            raise KeyboardInterrupt
        move(*asked, **options)

    monkeypatch.setattr(revise_module, "move_pointer", die_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        revised(tmp_path)
    monkeypatch.undo()
    said = revised(tmp_path)
    assert (said.stored, len(said.moved)) == (False, 1)
    assert {find_release(tmp_path, channel=name).version for name in ("LATEST", "shadow")} == {said.version}


def test_an_older_release_is_revised_without_a_pointer(released: Released, tmp_path: Path) -> None:
    """What no channel names is stored, and LATEST stays."""
    first, second = released(), released(date="2026-03-02", shift=1)
    said = revised(tmp_path, version=first.version)
    assert (said.moved, said.stored) == ((), True)
    assert find_release(tmp_path).version == second.version


def test_unknown_ids_are_counted(released: Released, tmp_path: Path) -> None:
    """Ids that the release does not have change nothing; if there are no others, it is left as it is."""
    old = released().version
    said = revised(tmp_path, users=[100, 5, 6, 7], items=[1, 1000])
    assert (said.taken_out.unknown_users, said.taken_out.unknown_items) == (3, 1)
    nothing = revised(tmp_path, users=[100, 5], items=[1])
    assert (nothing.version, nothing.stored, nothing.moved) == (said.version, False, ())
    assert (nothing.taken_out.users, nothing.taken_out.unknown_users) == (0, 2)
    assert versions(tmp_path) == sorted([old, said.version])


def test_users_without_anything_left_are_counted(released: Released, tmp_path: Path) -> None:
    """A user whose whole list goes is counted, one who is taken out is not; the vectors stay."""
    released(items=list(range(1000, 1012)), users=list(range(100, 124)))
    items = [1000 + (100 + rank) % 12 for rank in range(10)]  # the whole list of users 100 and 112
    said = revised(tmp_path, users=[112], items=items)
    assert said.taken_out.emptied == 1
    new = RootLayout(tmp_path).release(said.version).folder
    assert 100 not in tables(new, "scores")["user_id"].to_pylist()
    assert 100 in tables(new, "interests")["user_id"].to_pylist()


@pytest.mark.parametrize(
    ("users", "items", "match"),
    [
        (list(range(100, 160)), [], "no recommendation would be left"),
        ([], list(range(1000, 1040)), "no item of its index would be left"),
    ],
)
def test_nothing_left_is_refused(
    released: Released, tmp_path: Path, users: list[int], items: list[int], match: str
) -> None:
    """A release of nothing is never made; no work is left behind."""
    old = released().version
    with pytest.raises(RefusedError, match=match):
        revised(tmp_path, users=users, items=items)
    assert versions(tmp_path) == [old]
    assert list((tmp_path / "releases").glob(".staging-*")) == []


def test_a_changed_release_is_not_revised(released: Released, tmp_path: Path) -> None:
    """What is derived from is verified first."""
    folder = released().folder
    path = ReleaseLayout(folder).index.ivf
    path.write_bytes(path.read_bytes()[:-1] + b"\x07")
    with pytest.raises(CorruptError, match=r"ivf\.faiss"):
        revised(tmp_path)


def test_reason_ids_and_name_are_asked_for(released: Released, tmp_path: Path) -> None:
    """Without words or ids nothing is done."""
    released()
    users = ids_file(tmp_path, [100])
    with pytest.raises(UsageError, match="--reason: expected words"):
        revise(tmp_path, who="ada", why=" ", drop_users=users)
    with pytest.raises(UsageError, match="--drop-users or --drop-items"):
        revise(tmp_path, who="ada", why="erasure")


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("a.txt", "100\nuser\n", r"a\.txt, line 2: expected one id, as int64, found 'user'"),
        ("a.txt", "100\n1.5\n", "line 2"),
        ("a.txt", f"{2**63}\n", "line 1"),
        ("a.txt", "9" * 5000, "line 1"),
        ("a.txt", "²\n", "line 1"),
        ("a.txt", b"\xff\xfe1\x00", "UTF-8"),
        ("a.csv", "user_id\n100\n", "line 1"),
        ("a.csv", "100,ada\n", "line 1: expected one id, found 2 columns"),
        ("a.csv", '"100\n', "one id a line"),
        ("a.parquet", "PAR1", "expected a table"),
        ("a.arrow", "", "expected a table"),
        ("a.parquet", pa.table({"id": ["100"]}), "column id: the ids of the release are int64, found string"),
        ("a.parquet", pa.table({"id": [100.0]}), "found double"),
        ("a.parquet", pa.table({"id": pa.array([2**63], pa.uint64())}), "int64"),
        ("a.parquet", pa.table({"id": [100, None]}), "column id, row 1: expected an id, found null"),
        ("a.parquet", pa.table({"a": [1], "b": [2]}), "expected a column id, or one column only, found a, b"),
    ],
)
def test_a_file_of_something_else_is_named(
    released: Released, tmp_path: Path, name: str, content: Any, match: str
) -> None:
    """A line, a column or a file that holds no ids of the release's type is one message, and nothing is stored."""
    old = released().version
    path = tmp_path / name
    if isinstance(content, pa.Table):
        pq.write_table(content, path)
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=match):
        revise(tmp_path, who="ada", why="erasure", drop_users=path)
    assert versions(tmp_path) == [old]


@pytest.mark.parametrize(("name", "match"), [("none.txt", "missing"), ("ids.xlsx", "ends with .parquet")])
def test_a_file_that_is_none_is_a_usage_error(released: Released, tmp_path: Path, name: str, match: str) -> None:
    """A missing file, or one of another kind, is the caller's mistake."""
    released()
    (tmp_path / "ids.xlsx").touch()
    with pytest.raises(UsageError, match=match):
        revise(tmp_path, who="ada", why="erasure", drop_users=tmp_path / name)


@pytest.mark.parametrize(
    ("users", "items", "found"),
    [(list(range(100, 107)), [], "7 of 60 users"), ([], [1000, 1001, 1002, 1003, 1004], "5 of 40 items")],
)
def test_more_than_a_tenth_is_refused(
    released: Released, tmp_path: Path, users: list[int], items: list[int], found: str
) -> None:
    """A file of many ids is rather a wrong one: the message has both numbers, and the option that allows it."""
    old = released().version
    ids = ids_file(tmp_path, users or items)
    with pytest.raises(RefusedError, match=f"{found} would go, expected at most 0.1 .*--at-most"):
        revise(tmp_path, who="ada", why="erasure", **{"drop_users" if users else "drop_items": ids})
    assert versions(tmp_path) == [old]
    ids_file(tmp_path, (users or items)[1:])
    assert revise(tmp_path, who="ada", why="erasure", **{"drop_users" if users else "drop_items": ids}).stored
