"""Rows kept from an earlier run: the bytes are those of a full night, whatever changed, and nothing damaged is used."""

import itertools
from collections.abc import Callable
from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from artifacts import tables
from artifacts.bundle import Bundle, Role
from artifacts.layout import sidecar_of
from artifacts.run import Run, run_key_of
from artifacts.tables import writing_table
from batch import earlier as module
from batch import interests as step
from batch.earlier import LOOKS, earlier_runs, keeps_bits
from batch.interests import compute_interests
from batch.towers import UserVectors

NUMBER = itertools.count()
Inputs = dict[str, np.ndarray]


def write_shard(run: Run, tiny: ModuleType, user_ids: np.ndarray, inputs: Inputs, shard: int = 0) -> None:
    rows = tiny.history_rows(inputs, user_ids)
    with writing_table(run.layout.histories(shard, run.shards), rows.schema, metadata={}, inputs="") as writer:
        writer.write(rows)


def computed(run: Run, bundle: Bundle, *earlier: Run) -> tuple[bytes, dict[str, int]]:
    """The bytes of the run's only shard, and what was counted."""
    result = compute_interests(run, bundle, range(1), earlier=earlier, threads=2)
    return run.layout.interests(0, 1).read_bytes(), result.counts


@pytest.fixture
def two_nights(make_run: Callable[..., Run], tiny: ModuleType, user_bundle: Bundle) -> tuple[Run, Run, bytes]:
    """Last night, done; tonight, in which 3 of 50 users have another history; and tonight's bytes, all computed."""
    before, tonight, full = (make_run(users=50, name=name) for name in ("before", "tonight", "full"))
    user_ids, inputs = tiny.shard_users(50, 0)
    changed = {name: array.copy() for name, array in inputs.items()}
    changed["profile_gender"][[4, 17, 49]] = (inputs["profile_gender"][[4, 17, 49]] + 1) % 3 + 1
    for run in (tonight, full):
        write_shard(run, tiny, user_ids, changed)
    computed(before, user_bundle)
    return before, tonight, computed(full, user_bundle)[0]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_what_is_kept_gives_the_bytes_of_a_full_night(make_run, tiny, user_bundle, monkeypatch, data):
    """Users come, go, turn cold or change, in tables of many record batches: bytes and counts are a full night's."""
    record_batch = data.draw(st.sampled_from([7, 40, 65_536]), "rows of a record batch")
    for writing in (tables, step):
        monkeypatch.setattr(writing, "BATCH_ROWS", record_batch)
    number, batch = next(NUMBER), data.draw(st.sampled_from([1, 4, 16]), "rows of a batch")
    random = np.random.default_rng(data.draw(st.integers(0, 2**32), "seed"))
    old_ids, new_ids = (np.flatnonzero(random.random(120) < data.draw(st.sampled_from([0, 0.5, 1]))) for _ in range(2))
    old, new = tiny.random_histories(120, 5), tiny.random_histories(120, 6)
    changed = random.random(120) < data.draw(st.sampled_from([0, 0.1, 0.9, 1]), "share of the changed")
    tonight = {
        name: np.where(changed.reshape(-1, *[1] * (array.ndim - 1)), new[name], array) for name, array in old.items()
    }
    runs = [make_run(users=0, batch_users=batch, name=f"{name}-{number}") for name in ("before", "kept", "full")]
    write_shard(runs[0], tiny, old_ids, {name: array[old_ids] for name, array in old.items()})
    for run in runs[1:]:
        write_shard(run, tiny, new_ids, {name: array[new_ids] for name, array in tonight.items()})

    computed(runs[0], user_bundle)
    kept, counts = computed(runs[1], user_bundle, runs[0])
    full, plain = computed(runs[2], user_bundle)

    assert kept == full
    same = [all((old[name][user] == tonight[name][user]).all() for name in old) for user in new_ids]
    assert counts["kept"] == int((np.isin(new_ids, old_ids) & np.array(same, bool)).sum())
    assert {**counts, "kept": 0} == plain


def test_only_what_changed_is_computed(two_nights, user_bundle, monkeypatch):
    """Of 50 users 3 changed: the graph is given these, and kept ones only to fill up the batch they stand in."""
    before, tonight, full = two_nights
    asked = []
    real = step.user_vectors
    monkeypatch.setattr(step, "user_vectors", lambda session, batch: asked.append(batch) or real(session, batch))

    found, counts = computed(tonight, user_bundle, before)

    assert found == full
    assert counts["kept"] == 47
    assert [batch.rows.num_rows for batch in asked] == [16]
    assert {40, 170, 490} <= set(asked[0].rows.column("user_id").to_pylist())


def test_of_users_who_were_all_cold_the_first_to_come_are_computed(make_run, tiny, user_bundle):
    """Last night had no vector at all; who has a history by now is given some, and the cold stay so."""
    before, kept, full = (make_run(users=0, name=name) for name in ("before", "kept", "full"))
    user_ids, inputs = tiny.shard_users(20, 0)
    cold = {**inputs, **{name: np.zeros_like(inputs[name]) for name in ("history_item_id", "history_category")}}
    write_shard(before, tiny, user_ids, cold)
    for run in (kept, full):
        write_shard(run, tiny, user_ids, inputs)
    computed(before, user_bundle)

    found, counts = computed(kept, user_bundle, before)

    assert found == computed(full, user_bundle)[0]
    assert counts["kept"] == counts["cold"] > 0


@pytest.mark.parametrize("which", ["histories", "interests"])
@pytest.mark.parametrize("place", [100, -100, "sidecar"])
def test_a_changed_byte_of_the_earlier_run_is_found_and_all_is_computed(two_nights, user_bundle, which, place):
    """Damage to what would be kept costs the saving, never a byte of tonight's."""
    before, tonight, full = two_nights
    path = getattr(before.layout, which)(0, 1)
    damaged = sidecar_of(path) if place == "sidecar" else path
    content = bytearray(damaged.read_bytes())
    content[30 if place == "sidecar" else place] ^= 1
    damaged.write_bytes(content)

    found, counts = computed(tonight, user_bundle, before)

    assert (found, counts["kept"]) == (full, 0)


def test_a_run_that_is_pruned_meanwhile_is_done_without(two_nights, user_bundle, monkeypatch):
    """What was whole a moment ago is gone when it is opened: tonight goes on, and computes all."""
    before, tonight, full = two_nights
    real = module.verify_file

    def pruned(path):
        found = real(path)
        path.unlink()
        return found

    monkeypatch.setattr(module, "verify_file", pruned)
    found, counts = computed(tonight, user_bundle, before)

    assert (found, counts["kept"]) == (full, 0)


def test_other_histories_than_the_vectors_were_computed_from_are_not_compared_with(two_nights, tiny, user_bundle):
    """Last night's histories written anew, whole and with a sidecar, are not what last night's vectors came from."""
    before, tonight, full = two_nights
    user_ids, inputs = tiny.shard_users(50, 0)
    inputs["history_item_id"] = np.roll(inputs["history_item_id"], 1, axis=0)
    write_shard(before, tiny, user_ids, inputs)

    found, counts = computed(tonight, user_bundle, before)

    assert (found, counts["kept"]) == (full, 0)


def test_what_is_not_repeated_is_computed_in_full(two_nights, user_bundle, monkeypatch):
    """Where the machine gives a kept user other bits than last night, the whole shard is computed, and that is said."""
    before, tonight, _ = two_nights
    real = step.user_vectors

    def otherwise(session, batch):
        found = real(session, batch)
        return UserVectors(np.nextafter(found.vectors, np.float32(np.inf)), found.counts)

    monkeypatch.setattr(step, "user_vectors", otherwise)
    found, counts = computed(tonight, user_bundle, before)
    sidecar_of(tonight.layout.interests(0, 1)).unlink()

    assert (counts["kept"], counts["not_repeated"]) == (0, 1)
    assert found == computed(tonight, user_bundle)[0]


def test_an_unfinished_run_is_passed_over_for_the_one_before(two_nights, make_run, user_bundle):
    """The newest run that has finished the shard is used; one that was given up on is none."""
    before, tonight, full = two_nights
    unfinished = make_run(users=50, name="unfinished")

    found, counts = computed(tonight, user_bundle, unfinished, before)

    assert (found, counts["kept"]) == (full, 47)


def test_another_bundle_means_a_full_night(two_nights, tiny, tmp_path):
    """A model fitted anew says other things of the same histories."""
    before, tonight, _ = two_nights
    bundle = tiny.make_bundle(tmp_path / "other", Role.USER, tiny.make_weights(seed=3))
    ids = {**tonight.bundles, "user": {"model_id": bundle.model_id, "bundle_id": bundle.bundle_id}}

    assert computed(replace(tonight, bundles=ids), bundle, before)[1]["kept"] == 0


def test_a_graph_whose_bits_depend_on_the_place_keeps_nothing(two_nights, tiny, tmp_path, weights):
    """What the exporter found of the graph decides; where nothing is known of it, nothing is kept."""
    before, tonight, _ = two_nights
    bundle = tiny.make_bundle(tmp_path / "moving", Role.USER, weights, bits_depend_on=["positions"])

    assert not keeps_bits(bundle)
    assert not keeps_bits(replace(bundle, about={}))
    assert computed(tonight, bundle, before)[1]["kept"] == 0


def _settled(make_run, date: str, key: str, **said: int) -> Run:
    run = make_run(users=1, name=f"root/runs/{date}/{key}", date=date, **said)
    run = replace(run, semantic={"key": key})
    run = replace(run, run_key=run_key_of(run.inputs, run.bundles, run.semantic, run.profile))
    run.folder.rename(run.folder.with_name(run.run_key))
    run = replace(run, folder=run.folder.with_name(run.run_key))
    run.write()
    return run


def test_runs_are_looked_for_newest_first_up_to_the_date(make_run, tmp_path):
    """Another run of the date comes first, then the nights before; later ones, other shards and damaged ones do not."""
    tonight = _settled(make_run, "2026-02-05", "tonight")
    same_day = _settled(make_run, "2026-02-05", "other gates")
    older = _settled(make_run, "2026-02-03", "older")
    _settled(make_run, "2026-02-06", "later")
    _settled(make_run, "2026-02-04", "more shards", shards=2)
    _settled(make_run, "2026-02-04", "other batches", batch_users=8)
    damaged = _settled(make_run, "2026-02-04", "damaged")
    damaged.layout.run.write_bytes(b"{}")
    (tmp_path / "root" / "runs" / "2026-02-02" / ".staging-1").mkdir(parents=True)

    assert [run.run_key for run in earlier_runs(tmp_path / "root", tonight)] == [same_day.run_key, older.run_key]


def test_only_so_many_runs_are_looked_at(make_run, tmp_path):
    """A store of a thousand nights costs no more than one of a week."""
    nights = [_settled(make_run, f"2026-01-{day:02d}", f"night {day}") for day in range(1, LOOKS + 4)]

    found = earlier_runs(tmp_path / "root", nights[-1])

    assert [run.date for run in found] == [run.date for run in nights[-2 : -2 - LOOKS : -1]]
