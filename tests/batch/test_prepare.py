import datetime
import os
import pickle
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from artifacts.bundle import Bundle, Role
from artifacts.errors import DeviceError, InputError, NotReadyError, RefusedError, StaleRunError, UsageError
from artifacts.layout import RootLayout
from artifacts.run import Run, find_run
from artifacts.tables import read_table
from batch import prepare as step
from batch.interests import compute_interests
from batch.items import embed_items
from batch.prepare import PrepareRequest, prepare
from batch.session import open_session
from batch.towers import vectors_of
from features.inputs import Inputs, Source

DATE = "2026-02-01"
END = datetime.datetime(2026, 2, 2, tzinfo=datetime.UTC)  # of the data date, in UTC
USERS = 60

Ask = Callable[..., PrepareRequest]


def _events() -> pa.Table:
    """Events of 50 of 60 users, 0 to 9 each, the newest an hour before the day's end."""
    random = np.random.default_rng(3)
    counts = np.concatenate([random.integers(1, 10, 50), np.zeros(10, np.int64)])
    users = np.repeat(np.arange(USERS), counts)
    hours = random.permutation(len(users)) % 400 + 1
    items = random.integers(95, 150, len(users))  # some unknown to the model, some not in the catalogue
    times = [END - datetime.timedelta(hours=int(hour)) for hour in hours]
    return pa.table({"user": users, "item": items, "at": pa.array(times, pa.timestamp("us", "UTC"))})


def _write_inputs(folder: Path) -> None:
    (folder / "events").mkdir(parents=True)
    events = _events()
    pq.write_table(events.slice(0, 70), folder / "events" / "a.parquet")
    pq.write_table(events.slice(70), folder / "events" / "b.parquet")
    items = pa.table(
        {
            "id": list(range(100, 145)),
            "class": [f"c{n % 5}" for n in range(45)],
            "name": [f"item {n}" for n in range(45)],
            "sold": [n % 9 != 0 for n in range(45)],
        }
    )
    pq.write_table(items, folder / "items.parquet")
    pq.write_table(pa.table({"user": list(range(USERS)), "sex": ["f", "m", None] * 20}), folder / "users.parquet")


def _inputs_in(folder: Path) -> Inputs:
    items = {"item_id": "id", "category": "class", "title": "name", "eligible": "sold", "group_category": "class"}
    return Inputs(
        interactions=Source(str(folder / "events"), {"user_id": "user", "item_id": "item", "time": "at"}),
        histories=None,
        users=Source(str(folder / "users.parquet"), {"user_id": "user", "gender": "sex"}),
        items=Source(str(folder / "items.parquet"), items),
    )


@pytest.fixture
def ask(tmp_path: Path, item_bundle: Bundle, user_bundle: Bundle) -> Ask:
    """Ask for the run of the small raw tables, but for what a test says otherwise."""
    _write_inputs(tmp_path / "data")
    usual = PrepareRequest(
        date=DATE,
        zone="UTC",
        inputs=_inputs_in(tmp_path / "data"),
        bundles=(item_bundle.folder, user_bundle.folder),
        semantic={"retrieve": {"candidates": 10}},
        shards=3,
        groups=("category",),
        batch_users=16,
        batch_items=8,
        min_share_of_median=0,
        threads=1,
    )
    return lambda **changes: replace(usual, **changes)


def _bytes_under(folder: Path) -> dict[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def _stamps(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*.arrow")}


def _left_behind(root: Path) -> list[Path]:
    return sorted(root.rglob(".staging-*"))


def test_prepared_tables_say_what_a_plain_loop_says(tmp_path, ask):
    """Histories are each user's newest events, newest first, as vocabulary rows, users ascending in every shard."""
    run, result = prepare(tmp_path / "root", ask())
    tables = [read_table(run.layout.histories(shard, 3)) for shard in range(3)]
    assert all(table["user_id"].to_pylist() == sorted(table["user_id"].to_pylist()) for table in tables)
    found = {row["user_id"]: row for table in tables for row in table.to_pylist()}
    assert sorted(found) == list(range(USERS))
    events = _events().to_pylist()
    catalogue = {row["item_id"]: row for row in read_table(run.layout.catalogue).to_pylist()}
    for user, row in found.items():
        own = sorted((e for e in events if e["user"] == user), key=lambda e: (e["at"], e["item"]), reverse=True)[:6]
        assert row["history_item_id"] == [e["item"] - 98 if 100 <= e["item"] < 140 else 1 for e in own]
        unknown = {"feature_category": 1}
        assert row["history_category"] == [catalogue.get(e["item"], unknown)["feature_category"] for e in own]
        gaps = [(END - e["at"]).total_seconds() for e in own]
        assert row["gap"] == [1 + sum(gap >= edge for edge in (3600, 86400)) for gap in gaps]
        assert row["profile_gender"] == {0: 2, 1: 3, 2: 1}[user % 3]
        assert row["history_length"] == len(own)
    assert (result.shards, result.skipped, result.rows, run.counts["users_cold"]) == (3, 0, USERS, 10)
    assert run.now == int(END.timestamp())


def test_it_tells_how_far_it_is_of_how_much(tmp_path, ask):
    """Each part is opened with the rows that it will go through, and is told of every one of them."""
    told: dict[str, list[int | None]] = {}

    @contextmanager
    def progress(part, rows):
        told[part] = [rows, 0]

        def advance(done):
            told[part][1] += done

        yield advance

    run, _ = prepare(tmp_path / "root", ask(), progress=progress)

    read, users = run.counts["interactions_read"], run.counts["users"]
    assert told == {"reading": [read, read], "writing": [users, users]}
    assert read > 0
    assert users > 0


def test_seen_and_histories_hold_the_same_users_in_the_same_order(tmp_path, ask):
    """Both tables of a shard can be walked side by side."""
    run, _ = prepare(tmp_path / "root", ask())
    for shard in range(3):
        histories, seen = read_table(run.layout.histories(shard, 3)), read_table(run.layout.seen(shard, 3))
        assert histories["user_id"].equals(seen["user_id"])


def test_metadata_names_what_rows_were_encoded_with_but_not_the_run(tmp_path, ask, user_bundle):
    """The run's key is a digest of these tables, so it cannot be in them; date, spec and vocabularies are."""
    run, _ = prepare(tmp_path / "root", ask())
    said = read_table(run.layout.histories(0, 3)).schema.metadata
    assert sorted(said) == [
        b"data_date",
        b"format",
        b"spec",
        b"vocabulary_category",
        b"vocabulary_gender",
        b"vocabulary_item_id",
    ]
    assert said[b"vocabulary_gender"].decode() == user_bundle.digest_of("gender")


def test_a_request_that_was_answered_is_skipped(tmp_path, ask, monkeypatch):
    """The second time nothing is read but the files' digests, and nothing is written but the pointer."""
    first, _ = prepare(tmp_path / "root", ask())
    before = _stamps(tmp_path / "root")
    monkeypatch.setattr(step, "encode_catalogue", None)
    again, result = prepare(tmp_path / "root", ask())
    assert (again, result.skipped, result.rows) == (first, 3, 0)
    assert _stamps(tmp_path / "root") == before
    assert find_run(tmp_path / "root", DATE) == first


def test_the_same_rows_in_other_files_and_another_order_are_the_same_run(tmp_path, ask):
    """Names of files, order of rows, threads and memory enter neither the run's key nor a byte of it."""
    first, _ = prepare(tmp_path / "root", ask())
    before = _stamps(first.folder)
    other = tmp_path / "elsewhere"
    (other / "events").mkdir(parents=True)
    events = _events()
    shuffled = events.take(np.random.default_rng(1).permutation(len(events)))
    pq.write_table(shuffled, other / "events" / "z.parquet", row_group_size=7)
    for name in ("items", "users"):
        table = pq.read_table(tmp_path / "data" / f"{name}.parquet")
        pq.write_table(table.take(np.arange(len(table))[::-1]), other / f"{name}.parquet")
    changed = ask(inputs=_inputs_in(other), threads=2, memory="200MB")
    again, result = prepare(tmp_path / "root", changed)
    assert (again, result.skipped) == (first, 0)
    assert _stamps(first.folder) == before
    elsewhere, _ = prepare(tmp_path / "second", changed)
    assert elsewhere.run_key == first.run_key
    assert _bytes_under(elsewhere.folder) == _bytes_under(first.folder)
    assert not _left_behind(tmp_path / "root")


def test_no_file_of_a_run_names_a_place(tmp_path, ask):
    """A run can be carried to another machine, since it holds no path."""
    run, _ = prepare(tmp_path / "root", ask())
    assert all(str(tmp_path).encode() not in data for data in _bytes_under(run.folder).values())


@pytest.mark.parametrize(
    "change",
    [
        {"semantic": {"retrieve": {"candidates": 11}}},
        {"shards": 2},
        {"item_shards": 2},
        {"batch_users": 32},
        {"index_type": "SQ8"},
        {"sample_users": 5},
        {"popular_days": 3},
        {"groups": ()},
        {"zone": "Asia/Tokyo"},
    ],
)
def test_another_question_is_another_run(tmp_path, ask, change):
    """Whatever changes the content changes the run's key, and the newest question is the date's current run."""
    first, _ = prepare(tmp_path / "root", ask())
    second, result = prepare(tmp_path / "root", ask(newest_within_seconds=0, **change))
    assert second.run_key != first.run_key
    assert result.skipped == 0
    assert find_run(tmp_path / "root", DATE) == second
    prepare(tmp_path / "root", ask())
    assert find_run(tmp_path / "root", DATE) == first


def test_other_content_under_the_same_file_name_is_another_run(tmp_path, ask):
    """A file is known by what it holds."""
    first, _ = prepare(tmp_path / "root", ask())
    path = tmp_path / "data" / "events" / "b.parquet"
    table = pq.read_table(path)
    pq.write_table(table.slice(0, len(table) - 1), path)
    second, _ = prepare(tmp_path / "root", ask())
    assert second.run_key != first.run_key


def _late(tiny, weights, folder: Path) -> tuple[Path, ...]:
    bundles = [
        tiny.make_bundle(folder / str(role), role, weights, trained_through="2026-02-02")
        for role in (Role.ITEM, Role.USER)
    ]
    return tuple(bundle.folder for bundle in bundles)


def test_a_model_that_has_seen_the_future_needs_a_reason(tmp_path, ask, tiny, weights):
    """Trained a day past the data date it is refused; with a reason it passes, and the reason is in the run."""
    bundles = _late(tiny, weights, tmp_path / "late")
    with pytest.raises(RefusedError, match="trained through 2026-02-02, after the data date 2026-02-01"):
        prepare(tmp_path / "root", ask(bundles=bundles))
    run, _ = prepare(tmp_path / "root", ask(bundles=bundles, seen_future="a backfill"))
    assert run.semantic["seen_future"] == "a backfill"
    on_time, _ = prepare(tmp_path / "root", ask(seen_future="not needed"))
    assert "seen_future" not in on_time.semantic


def test_bundles_that_do_not_belong_together_are_refused(tmp_path, ask, tiny, item_bundle, user_bundle):
    """A night has an item and a user bundle of one model."""
    with pytest.raises(UsageError, match="expected an item, a user and at most one ranker bundle, found item"):
        prepare(tmp_path / "root", ask(bundles=(item_bundle.folder,)))
    other = tiny.make_bundle(tmp_path / "other", Role.USER, tiny.make_weights(1), model_id="another")
    with pytest.raises(UsageError, match="model_id is model in the one and another in the other"):
        prepare(tmp_path / "root", ask(bundles=(item_bundle.folder, other.folder)))


def test_a_missing_device_is_an_error_before_any_data_is_read(tmp_path, ask):
    """`gpu` without a GPU stops the night even where there is no input at all."""
    shutil.rmtree(tmp_path / "data")
    with pytest.raises(DeviceError, match="no GPU can be used"):
        prepare(tmp_path / "root", ask(device="gpu"))


def test_a_day_that_is_not_there_leaves_no_run(tmp_path, ask):
    """Without the day's events the night waits."""
    with pytest.raises(NotReadyError, match="newest event"):
        prepare(tmp_path / "root", ask(newest_within_seconds=60))
    with pytest.raises(StaleRunError, match="no run of 2026-02-01"):
        find_run(tmp_path / "root", DATE)
    assert not _left_behind(tmp_path / "root")


def test_a_wrong_input_leaves_nothing(tmp_path, ask):
    """A missing column is named, and no half of a run stays."""
    pq.write_table(pa.table({"user": [1], "sexe": ["f"]}), tmp_path / "data" / "users.parquet")
    with pytest.raises(InputError, match=r"users\.parquet.*sex"):
        prepare(tmp_path / "root", ask())
    assert not list((tmp_path / "root").rglob("*.arrow"))
    assert not _left_behind(tmp_path / "root")


def test_requests_that_cannot_be_are_mistakes_of_usage(tmp_path, ask):
    """A date that is none and a number below one are named."""
    with pytest.raises(UsageError, match="found '1 February'"):
        prepare(tmp_path / "root", ask(date="1 February"))
    with pytest.raises(UsageError, match="shards: expected at least 1, found 0"):
        prepare(tmp_path / "root", ask(shards=0))


def test_a_damaged_run_json_is_written_again(tmp_path, ask):
    """A changed byte in run.json ends no later `prepare`: the run is made anew, with the bytes it had."""
    run, _ = prepare(tmp_path / "root", ask())
    whole = _bytes_under(run.folder)
    run.layout.run.write_bytes(run.layout.run.read_bytes().replace(b'"counts"', b'"caunts"'))
    again, result = prepare(tmp_path / "root", ask())
    assert (again.run_key, result.skipped) == (run.run_key, 0)
    assert _bytes_under(run.folder) == whole


@pytest.mark.parametrize("damage", ["missing", "shorter"])
def test_a_damaged_table_is_prepared_again(tmp_path, ask, damage):
    """A run whose table is gone or cut short is no answer; its other files stay."""
    run, _ = prepare(tmp_path / "root", ask())
    whole = _bytes_under(run.folder)
    path = run.layout.seen(1, 3)
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-1])
    (run.folder / "items").mkdir()
    (run.folder / "items" / "kept").write_bytes(b"computed from the same content")
    again, result = prepare(tmp_path / "root", ask())
    assert (again.run_key, result.skipped) == (run.run_key, 0)
    assert _bytes_under(run.folder) == {**whole, "items/kept": b"computed from the same content"}


_PREPARE = """
import os, pickle, signal, sys
from pathlib import Path
from batch import prepare as step

if sys.argv[3] != "no":
    step.__dict__[sys.argv[3]] = lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL)
run, result = step.prepare(Path(sys.argv[1]), pickle.loads(Path(sys.argv[2]).read_bytes()))
print(run.run_key, result.skipped)
"""


def _start(tmp_path: Path, request: PrepareRequest, dies_in: str = "no") -> subprocess.Popen[str]:
    (tmp_path / "request").write_bytes(pickle.dumps(request))
    command = [sys.executable, "-c", _PREPARE, str(tmp_path / "root"), str(tmp_path / "request"), dies_in]
    environment = {**os.environ, "PYTHONHASHSEED": "77", "TZ": "Asia/Tokyo"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


@pytest.mark.parametrize("dies_in", ["open_histories", "run_key_of", "settle"])
def test_a_killed_prepare_leaves_a_staging_folder_that_the_next_one_removes(tmp_path, ask, dies_in):
    """After kill -9 there is no run, and the next prepare makes the one that would have been."""
    process = _start(tmp_path, ask(), dies_in)
    process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL
    assert len(_left_behind(tmp_path / "root")) == 1
    with pytest.raises(StaleRunError):
        find_run(tmp_path / "root", DATE)
    run, result = prepare(tmp_path / "root", ask())
    assert result.skipped == 0
    assert not _left_behind(tmp_path / "root")
    alone, _ = prepare(tmp_path / "alone", ask())
    assert _bytes_under(alone.folder) == _bytes_under(run.folder)


def test_two_at_once_make_one_run_and_the_second_finds_it(tmp_path, ask):
    """Who comes second waits, and is then answered."""
    processes = [_start(tmp_path, ask()) for _ in range(2)]
    answers = [process.communicate(timeout=120)[0].split() for process in processes]
    assert answers[0][0] == answers[1][0]
    assert sorted(skipped for _, skipped in answers) == ["0", "3"]
    assert find_run(tmp_path / "root", DATE).run_key == answers[0][0]
    assert len(list(RootLayout(tmp_path / "root").current_run(DATE).parent.glob("*/run.json"))) == 1


def _interests(run: Run) -> dict[int, list[list[float]]]:
    tables = [read_table(run.layout.interests(shard, run.shards)) for shard in range(run.shards)]
    return {row["user_id"]: row["vectors"] for table in tables for row in table.to_pylist()}


def test_a_prepared_run_feeds_the_next_steps(tmp_path, ask, item_bundle, user_bundle):
    """Items and interests run on it, and the sample's vectors equal the interests table bit for bit."""
    run, _ = prepare(tmp_path / "root", ask(sample_users=20))
    assert embed_items(run, item_bundle, range(1)).rows == 45
    assert compute_interests(run, user_bundle, range(3)).rows == USERS
    table, sample = _interests(run), read_table(run.layout.sample)
    found = vectors_of(open_session(user_bundle, rows=16), sample.to_batches())
    assert (found.counts > 0).all()
    assert len(found.counts) == 20
    expected = [vector for user in sample["user_id"].to_pylist() for vector in table[user]]
    np.testing.assert_array_equal(found.vectors, np.array(expected, np.float32))
