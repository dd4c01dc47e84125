import subprocess
import sys
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from artifacts import schemas, tables
from artifacts.bundle import Role
from artifacts.errors import DeviceError, InputError, StaleRunError
from artifacts.layout import BundleLayout
from artifacts.run import Run
from artifacts.store import STAGING_PREFIX
from artifacts.tables import read_sidecar, read_table, writing_table
from batch import interests as step
from batch.interests import compute_interests
from batch.session import open_session
from batch.towers import cut, vectors_of


def _files(run: Run) -> dict[int, bytes]:
    return {shard: run.layout.interests(shard, run.shards).read_bytes() for shard in range(run.shards)}


def test_active_interests_are_what_numpy_computes_and_cold_users_have_none(make_run, tiny, user_bundle, weights):
    """Only active vectors are written, users keep their order, and who has no behaviours is marked cold."""
    run = make_run(users=50)
    result = compute_interests(run, user_bundle, range(1))
    table = read_table(run.layout.interests(0, 1))
    user_ids, inputs = tiny.shard_users(50, 0)
    interests, count = weights.interests(*inputs.values())
    lengths = (inputs["history_item_id"] > 0).sum(axis=1)
    count[lengths == 0] = 0
    assert table.schema.remove_metadata() == schemas.interests(pa.int64(), tiny.WIDTH)
    np.testing.assert_array_equal(table["user_id"].to_numpy(), user_ids)
    np.testing.assert_array_equal(table["history_length"].to_numpy(), lengths)
    assert table["cold"].to_pylist() == (lengths == 0).tolist()
    for user, vectors in enumerate(table["vectors"].to_pylist()):
        assert len(vectors) == count[user]
        for interest, vector in enumerate(vectors):
            np.testing.assert_allclose(vector, interests[user, interest], rtol=1e-5, atol=1e-6)
    assert 0 < result.counts["cold"] == int((lengths == 0).sum())
    assert (result.rows, result.counts["vectors"]) == (50, int(count.sum()))


@pytest.mark.parametrize("rows", [1, 7, 64])
def test_no_user_is_lost_or_moved_by_the_batch_shape(make_run, user_bundle, rows):
    """Another batch shape is another profile, so bits may differ; users, counts and values do not."""
    one, other = make_run(users=40, name="one"), make_run(users=40, batch_users=rows, name="other")
    written = []
    for run in (one, other):
        compute_interests(run, user_bundle, range(1))
        written.append(read_table(run.layout.interests(0, 1)))
    for column in ("user_id", "history_length", "cold"):
        assert written[0][column].equals(written[1][column])
    lists = [table["vectors"].combine_chunks() for table in written]
    assert lists[0].offsets.equals(lists[1].offsets)
    flat = [array.flatten().flatten().to_numpy() for array in lists]
    np.testing.assert_allclose(flat[0], flat[1], rtol=1e-5, atol=1e-6)


def test_a_sample_computed_apart_equals_the_table_bit_for_bit(make_run, user_bundle):
    """The index encodes its sample with the same code and batch shape, so its rows are the table's."""
    run = make_run(users=40)
    compute_interests(run, user_bundle, range(1))
    table = read_table(run.layout.interests(0, 1))
    sample = read_table(run.layout.histories(0, 1)).take([3, 4, 11, 29, 38]).combine_chunks()
    found = vectors_of(open_session(user_bundle, rows=run.profile["batch_users"]), sample.to_batches())
    expected = table["vectors"].take([3, 4, 11, 29, 38]).combine_chunks()
    np.testing.assert_array_equal(found.vectors.reshape(-1), expected.flatten().flatten().to_numpy())
    assert found.counts.tolist() == [len(vectors) for vectors in expected.to_pylist()]


def test_shards_in_another_order_and_one_by_one_give_the_same_bytes(make_run, user_bundle):
    """A shard's bytes depend on the shard, not on the group or the order it was done in."""
    together, apart = make_run(shards=4, name="together"), make_run(shards=4, name="apart")
    compute_interests(together, user_bundle, range(4))
    for shard in (2, 0, 3, 1):
        compute_interests(apart, user_bundle, [shard])
    assert _files(together) == _files(apart)


def test_a_killed_shard_is_repeated_and_a_finished_one_is_not(make_run, user_bundle, monkeypatch):
    """A run that dies within shard 1 resumes there, keeps shard 0 and leaves no half of a file."""
    run, whole = make_run(shards=3), make_run(shards=3, name="whole")
    compute_interests(whole, user_bundle, range(3))
    real, calls = step.user_vectors, []

    def dies(session, batch):
        calls.append(1)
        if len(calls) == 4:  # two batches a shard: within shard 1
            raise KeyboardInterrupt
        return real(session, batch)

    monkeypatch.setattr(step, "user_vectors", dies)
    with pytest.raises(KeyboardInterrupt):
        compute_interests(run, user_bundle, range(3), threads=1)
    assert not run.layout.interests(1, 3).exists()
    first = run.layout.interests(0, 3).stat().st_mtime_ns
    result = compute_interests(run, user_bundle, range(3))
    assert (result.shards, result.skipped) == (3, 1)
    assert run.layout.interests(0, 3).stat().st_mtime_ns == first
    assert _files(run) == _files(whole)


def test_what_a_killed_writer_left_behind_is_removed(make_run, user_bundle):
    """A kill -9 leaves a staging file; who does the shard next removes it, and nothing else."""
    run = make_run()
    target = run.layout.interests(0, 1)
    target.parent.mkdir(parents=True)
    dead = target.with_name(f"{STAGING_PREFIX}0123-{target.name}")
    other = target.with_name(f"{STAGING_PREFIX}4567-00001-of-00002.arrow")
    dead.write_bytes(b"half")
    other.write_bytes(b"someone else's")
    compute_interests(run, user_bundle, range(1))
    assert not dead.exists()
    assert other.exists()


def test_a_rerun_with_fewer_rows_leaves_no_old_row(make_run, user_bundle):
    """New histories under the same name replace the table and its sidecar whole."""
    run = make_run(users=50)
    compute_interests(run, user_bundle, range(1))
    path = run.layout.histories(0, 1)
    fewer = read_table(path).slice(0, 12)
    with writing_table(path, fewer.schema.remove_metadata(), metadata={}, inputs="") as writer:
        writer.write(fewer)
    result = compute_interests(run, user_bundle, range(1))
    assert result.skipped == 0
    assert read_table(run.layout.interests(0, 1)).num_rows == 12
    assert read_sidecar(run.layout.interests(0, 1)).rows == 12


_WORK = """
import sys
from pathlib import Path
from artifacts.bundle import read_bundle
from artifacts.run import Run
from batch.interests import compute_interests

result = compute_interests(Run.read(Path(sys.argv[1])), read_bundle(Path(sys.argv[2])), range(4), threads=1)
print(result.skipped, result.rows)
"""


def test_two_processes_given_the_same_shards_do_each_once(make_run, user_bundle):
    """Who comes second finds the shard done; nothing is written twice, and the bytes are the same."""
    run, alone = make_run(shards=4), make_run(shards=4, name="alone")
    compute_interests(alone, user_bundle, range(4))
    command = [sys.executable, "-c", _WORK, str(run.folder), str(user_bundle.folder)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    results = [[int(number) for number in process.communicate(timeout=120)[0].split()] for process in processes]
    assert sum(skipped for skipped, _ in results) == 4
    assert sum(rows for _, rows in results) == 4 * 30
    assert _files(run) == _files(alone)


def test_a_vector_that_is_no_number_is_an_error_that_names_the_user(make_run, tiny, tmp_path, weights):
    """No NaN or Inf leaves inference, and no half of a table is left."""
    gender = weights.gender.copy()
    gender[3] = np.inf
    folder = tmp_path / "user"
    tiny.make_bundle(folder, Role.USER, weights)
    tiny._user_graph(BundleLayout(folder).graph, replace(weights, gender=gender))
    canary = tiny.random_histories(64, seed=9)
    canary["profile_gender"] = np.minimum(canary["profile_gender"], 2)
    interests, count = weights.interests(*canary.values())
    tiny.write_canary(BundleLayout(folder).canary, {**canary, "interests": interests, "count": count})
    bundle = tiny.finish_bundle(folder, Role.USER)
    run = make_run()
    ids = {"model_id": bundle.model_id, "bundle_id": bundle.bundle_id}
    run = replace(run, bundles={**run.bundles, "user": ids})
    user_ids, inputs = tiny.shard_users(30, 0)
    has_history = (inputs["history_item_id"] > 0).any(axis=1)
    first = user_ids[has_history & (inputs["profile_gender"] == 3)][0]
    with pytest.raises(InputError, match=rf"user_id {first}: an interest vector holds NaN or Inf"):
        compute_interests(run, bundle, range(1))
    assert not run.layout.interests(0, 1).exists()


def test_an_id_beyond_the_vocabulary_stops_the_shard(make_run, tiny, user_bundle):
    """A history with a row that the model has not is an error before the graph sees it."""
    run = make_run()
    user_ids, inputs = tiny.shard_users(30, 0)
    inputs["history_item_id"][17, 0] = 4000
    rows = tiny.history_rows(inputs, user_ids)
    with writing_table(run.layout.histories(0, 1), rows.schema, metadata={}, inputs="") as writer:
        writer.write(rows)
    with pytest.raises(InputError, match="history_item_id: expected rows 0 to 41, found 4000"):
        compute_interests(run, user_bundle, range(1))


def test_a_missing_device_is_an_error_before_any_data_is_read(make_run, user_bundle):
    """`gpu` without a GPU stops the step even where the tables are not there at all."""
    run = make_run()
    run.layout.histories(0, 1).unlink()
    with pytest.raises(DeviceError, match="no GPU can be used"):
        compute_interests(run, user_bundle, range(1), device="gpu")


def test_a_shard_that_prepare_has_not_finished_is_named(make_run, user_bundle):
    """Without its histories a shard cannot be done, and the message says which file is missing."""
    run = make_run(shards=2)
    sidecar = run.layout.histories(1, 2)
    sidecar.with_name(sidecar.name + ".done.json").unlink()
    with pytest.raises(StaleRunError, match=r"histories/00001-of-00002\.arrow is not finished"):
        compute_interests(run, user_bundle, range(2))


def test_a_shard_without_users_is_a_table_without_rows(make_run, user_bundle):
    """An empty shard is done like any other."""
    run = make_run(users=0)
    result = compute_interests(run, user_bundle, range(1))
    assert (result.rows, read_table(run.layout.interests(0, 1)).num_rows) == (0, 0)


def test_nothing_to_do_loads_no_model(make_run, user_bundle, monkeypatch):
    """A rerun with all done opens no session."""
    run = make_run()
    compute_interests(run, user_bundle, range(1))
    monkeypatch.setattr(step, "open_session", None)
    assert compute_interests(run, user_bundle, range(1)).skipped == 1


def test_batches_are_cut_without_losing_a_row():
    """Slices of record batches keep every row in order, whatever the size."""
    batches = [pa.record_batch({"x": list(range(start, start + n))}) for start, n in ((0, 10), (10, 3), (13, 8))]
    for rows in (1, 3, 8, 100):
        parts = list(cut(batches, rows))
        assert [x for part in parts for x in part.column("x").to_pylist()] == list(range(21))
        assert max(part.num_rows for part in parts) <= rows


@pytest.mark.parametrize("rows", [1, 7, 12, 50])
def test_record_batches_end_where_they_must_however_batches_of_users_fall(make_run, user_bundle, monkeypatch, rows):
    """Users who come in fives are cut at full record batches; each has what it has where all are in one."""
    run = make_run(users=50, batch_users=5)
    path = run.layout.interests(0, 1)
    compute_interests(run, user_bundle, range(1))
    in_one = read_table(path)
    path.unlink()
    for module in (step, tables):
        monkeypatch.setattr(module, "BATCH_ROWS", rows)
    result = compute_interests(run, user_bundle, range(1))
    cut_up = read_table(path)
    assert result.rows == 50
    assert cut_up.equals(in_one)
    assert [len(chunk) for chunk in cut_up["vectors"].chunks] == [rows] * (50 // rows) + [50 % rows] * (50 % rows > 0)
