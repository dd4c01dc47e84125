"""The same input gives the same bytes, whatever else differs."""

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from artifacts import tables
from artifacts.bundle import read_bundle
from artifacts.run import find_run
from batch.session import open_session
from batch.towers import vectors_of
from tests.night.shop import DATE, Shop, content_of, only_release, run_nightrec

ELSEWHERE = {"PYTHONHASHSEED": "77", "TZ": "Asia/Kolkata", "LC_ALL": "C", "OMP_NUM_THREADS": "1"}
SHARDS = 3


def test_a_night_elsewhere_gives_the_same_bytes(shop: Shop, plain: Path, tmp_path: Path) -> None:
    """Another process, hash seed, zone, locale, file names, row order, worker count and shard order change no byte."""
    places = {name: tmp_path / f"other-{name}" for name in ("interactions", "items", "users")}
    for name, folder in places.items():
        _scatter(shop.data / f"{name}.parquet", folder)
    places["interactions"] /= "*.parquet"
    config = shop.config(tmp_path, tables=places, workers=2)
    night = ["--config", config, "--date", DATE]
    backwards = [[step, "--shard", f"{shard}/{SHARDS}"] for step in ("interests", "score") for shard in (2, 0, 1)]

    whole = ["--shard", "0/1"]
    for verb in [["prepare"], ["items"], ["index", *whole], *backwards, ["check", *whole], ["publish", *whole]]:
        finished = run_nightrec(*verb, *night, environment=ELSEWHERE)
        assert finished.returncode == 0, finished.stderr

    assert content_of(only_release(tmp_path / "store")) == content_of(only_release(plain / "store"))


def test_two_workers_give_the_same_bytes(shop: Shop, plain: Path, tmp_path: Path) -> None:
    """A night shared by two worker processes equals the night of one."""
    finished = run_nightrec("run", "--config", shop.config(tmp_path, workers=2), "--date", DATE, environment=ELSEWHERE)

    assert finished.returncode == 0, finished.stderr
    assert content_of(only_release(tmp_path / "store")) == content_of(only_release(plain / "store"))


def test_histories_given_as_lists_give_the_same_scores(shop: Shop, plain: Path, tmp_path: Path) -> None:
    """A team that already has histories gets what the same events give."""
    events = pq.read_table(shop.data / "interactions.parquet").sort_by(
        [("user_id", "ascending"), ("time", "ascending")]
    )
    grouped = events.group_by("user_id", use_threads=False).aggregate([("item_id", "list"), ("time", "list")])
    lists = grouped.rename_columns(["user_id", "item_ids", "times"])
    pq.write_table(lists, tmp_path / "lists.parquet", row_group_size=50)
    config = shop.config(tmp_path)
    text = config.read_text().replace("[inputs.interactions]", "[inputs.histories]")
    config.write_text(text.replace(str(shop.data / "interactions.parquet"), str(tmp_path / "lists.parquet")))

    finished = run_nightrec("run", "--config", config, "--date", DATE)

    assert finished.returncode == 0, finished.stderr
    assert _rows(only_release(tmp_path / "store")) == _rows(only_release(plain / "store"))


def test_the_index_sample_is_part_of_the_interests(shop: Shop, plain: Path) -> None:
    """The users that tune the index have the histories and, bit for bit, the vectors of the night's own tables."""
    run = find_run(plain / "store", DATE)
    sample = tables.read_table(run.layout.sample)
    shards = range(run.shards)
    histories = pa.concat_tables(tables.read_table(run.layout.histories(shard, run.shards)) for shard in shards)
    interests = pa.concat_tables(tables.read_table(run.layout.interests(shard, run.shards)) for shard in shards)
    session = open_session(read_bundle(shop.folder / "bundles" / "user"), rows=run.profile["batch_users"])

    found = vectors_of(session, sample.to_batches())

    places = pc.index_in(sample["user_id"], value_set=histories["user_id"])
    assert sample.num_rows == 128
    assert sample.to_pylist() == histories.take(places).to_pylist()
    wanted = interests.take(places)["vectors"].combine_chunks()
    assert found.counts.tolist() == pc.list_value_length(wanted).to_pylist()
    assert found.vectors.tobytes() == wanted.flatten().flatten().to_numpy().tobytes()


@pytest.mark.parametrize("directory", ["releases", "runs"])
def test_nothing_names_where_or_when_it_was_made(plain: Path, directory: str) -> None:
    """No content file holds a path of this machine, a host name or the name of its user's folder."""
    words = [str(plain).encode()]
    if len(os.uname().nodename) >= 8:  # a shorter name is found by chance among the bytes of vectors
        words.append(os.uname().nodename.encode())
    files = [path for path in (plain / "store" / directory).rglob("*") if path.is_file() and "record" not in path.parts]

    assert len(files) > 10
    for path in files:
        content = path.read_bytes()
        assert not [word for word in words if word in content], path


def _scatter(source: Path, folder: Path) -> None:
    """Write the rows of *source* in another order, into three files with other names and row groups."""
    table = pq.read_table(source)
    table = table.take(np.random.default_rng(3).permutation(table.num_rows))
    folder.mkdir()
    third = table.num_rows // 3
    for number, name in enumerate(["zeta", "alpha", "mid"]):
        part = table.slice(number * third, third if number < 2 else None)
        pq.write_table(part, folder / f"{name}.parquet", row_group_size=77)


def _rows(release: Path) -> list[dict[str, object]]:
    return [
        row
        for path in sorted((release / "scores").glob("*.arrow"))
        for row in pa.ipc.open_file(path).read_all().to_pylist()
    ]
