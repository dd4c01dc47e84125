"""The gates over whole runs: an ordinary night passes, and each fault is refused by the gate that names it."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from artifacts.errors import CorruptError, InputError, RefusedError, StaleRunError
from artifacts.layout import sidecar_of
from artifacts.release import record_problems
from artifacts.tables import finish_file
from release.check import check, standing_report
from release.figures import measure_night
from release.gate import Against
from release.gates import GATES, configured_gates
from release.verdicts import GateReport, State
from tests.release.judged import Make, assign, flip, refused, released, root_of, states, with_column


def test_ordinary_first_night_passes(night: Make) -> None:
    """A first night passes, and what cannot be compared says why it is not."""
    run = night()
    report = check(run, root_of(run), threads=1)
    found = states(report)
    assert report.passed
    assert not report.warned
    absolute = {gate.name for gate in GATES if gate.against is Against.ABSOLUTE}
    assert {name for name, state in found.items() if state is State.PASS} == absolute - {"model_age"}
    assert all("first night" in v.why for v in report.verdicts if v.name not in absolute)
    assert len(found) == len(GATES)


def test_verdict_is_kept_and_has_no_clock(night: Make) -> None:
    """Checking twice writes the same record, listed with checksums that hold."""
    run = night()
    report = check(run, root_of(run), threads=1)
    first = run.layout.record.gates.read_bytes()
    check(run, root_of(run), threads=1)
    assert run.layout.record.gates.read_bytes() == first
    assert list(record_problems(run.layout.record)) == []
    assert GateReport.from_document(json.loads(first)) == report


def test_verdict_stands_until_something_else_is_asked(night: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is measured again for the same question; other gates, ages, files or an earlier release ask anew."""
    measured: list[str] = []

    def counting(*arguments: Any, **options: Any) -> Any:
        measured.append("")
        return measure_night(*arguments, **options)

    monkeypatch.setattr("release.check.measure_night", counting)
    run = night(date="2026-03-02")
    root = root_of(run)

    def times(**options: Any) -> int:
        measured.clear()
        check(run, root, threads=1, **options)
        return len(measured)

    assert standing_report(run, root) is None
    assert [times(), times()] == [1, 0]
    assert standing_report(run, root) == check(run, root, threads=1)
    stricter = configured_gates({"churn": 0.7})
    assert [times(gates=stricter), times(gates=stricter), times()] == [1, 0, 1]
    assert [times(trained_through={"user": "2026-03-01"}), times()] == [1, 1]
    run.layout.index.ivf.write_bytes(b"another index")
    finish_file(run.layout.index.ivf, inputs="i")
    assert [times(), times()] == [1, 0]
    released(night)
    measured.clear()
    assert [times(), times()] == [1, 0]
    run.layout.record.gates.write_text("{}")
    assert [times(), times()] == [1, 0]


def test_refusal_stands_too(night: Make) -> None:
    """Asked again, a refused night is refused in the same words."""
    run = night(parameters={"recall": 0.5})
    said = []
    for _ in range(2):
        with pytest.raises(RefusedError) as error:
            check(run, root_of(run), threads=1)
        said.append(str(error.value))
    assert said[0] == said[1]


def drop_first_user(table: pa.Table) -> pa.Table:
    return table.filter(pc.not_equal(table["user_id"], table["user_id"][0]))


SCORE_FAULTS: dict[str, tuple[str, Callable[[pa.Table], pa.Table], float]] = {
    "a user without rows": ("users_missing", drop_first_user, 2),
    "a user nobody knows": ("users_unknown", lambda t: with_column(t, "user_id", assign(slice(-10, None), 9999)), 2),
    "an item twice": ("items_repeated", lambda t: with_column(t, "item_id", lambda v: v.__setitem__(1, v[0])), 2),
    "a rank left out": ("rows_unsorted", lambda t: with_column(t, "rank", assign(9, 11)), 2),
    "a rank from 0": ("rows_unsorted", lambda t: with_column(t, "rank", lambda v: v.__isub__(1)), 600),
    "users swapped": ("rows_unsorted", lambda t: pa.concat_tables([t.slice(10, 10), t.slice(0, 10), t.slice(20)]), 2),
    "a user in two places": ("rows_unsorted", lambda t: pa.concat_tables([t.slice(5), t.slice(0, 5)]), 12),
    "a NaN score": ("not_finite", lambda t: with_column(t, "score", assign(3, np.nan)), 2),
    "an infinite retrieval score": ("not_finite", lambda t: with_column(t, "retrieval_score", assign(3, np.inf)), 2),
    "an item of another shop": ("items_foreign", lambda t: with_column(t, "item_id", assign(4, 77)), 2),
    "no rows": ("rows", lambda t: t.slice(0, 0), 0),
}


@pytest.mark.parametrize("fault", SCORE_FAULTS)
def test_fault_in_scores_is_refused_by_its_gate(night: Make, fault: str) -> None:
    """Each fault of the score tables, made once in each of two shards, is counted by the gate that names it."""
    gate, change, count = SCORE_FAULTS[fault]
    failed = refused(night(scores=change))
    assert failed[gate]["value"] == count
    assert failed[gate]["why"]


def test_missing_score_of_a_ranked_row_is_refused(night: Make) -> None:
    """A ranked row without a score counts as not finite; a fallback row needs none."""

    def forget(table: pa.Table) -> pa.Table:
        scores = pc.if_else(pc.equal(table["rank"], 2), pa.scalar(None, pa.float32()), table["score"])
        return table.set_column(4, table.schema.field("score"), scores)

    assert refused(night(scores=forget))["not_finite"]["value"] == 60
    run = night(cold=(100, 101), date="2026-03-02")
    assert check(run, root_of(run), threads=1).figures["rows_fallback"] == 20


def test_ineligible_item_is_refused(night: Make) -> None:
    """A recommended item that may not be recommended is counted, whoever it was given to."""
    run = night(
        eligible=lambda item: item != 1005,
        scores=lambda t: with_column(t, "item_id", assign(0, 1005)),
    )
    assert refused(run)["items_foreign"]["value"] == 2


def without(*users: int) -> Callable[[pa.Table], pa.Table]:
    return lambda table: table.filter(pc.invert(pc.is_in(table["user_id"], value_set=pa.array(users, pa.int64()))))


def had_all(*users: int, but: int | None = None, ago: int = 60) -> Callable[[Any], list[tuple[int, int]]]:
    """Give *users* all 40 items of the catalogue but one, so many seconds ago, and the others two."""
    return lambda user: [(row, ago) for row in range(40 if user in users else 2) if row != but]


def test_who_has_had_everything_is_counted_and_not_missed(night: Make) -> None:
    """A user for whom nothing is left does not refuse the night; ineligible items were never to be had."""
    run = night(scores=without(107), seen=had_all(107))
    report = check(run, root_of(run), threads=1)
    figures = {verdict.name: verdict.value for verdict in report.verdicts}
    assert (figures["users_missing"], figures["users_empty"]) == (0, pytest.approx(1 / 60))
    run = night(date="2026-03-02", scores=without(107), seen=had_all(107, but=5), eligible=lambda item: item != 1005)
    assert states(check(run, root_of(run), threads=1))["users_missing"] is State.PASS


@pytest.mark.parametrize(
    "night_of",
    [
        {"seen": had_all(108)},  # somebody else has had everything
        {"seen": had_all(107, but=5)},  # one item is left
        {"seen": had_all(107), "exclude_seen": "none"},
        {"seen": had_all(107, ago=2 * 86_400 + 1), "exclude_seen": "days"},
    ],
)
def test_who_could_have_had_a_row_is_missing(night: Make, night_of: dict[str, Any]) -> None:
    """One user without rows among 60 refuses the night as long as one item was left for them."""
    failed = refused(night(scores=without(107), **night_of))
    assert list(failed) == ["users_missing"]
    assert failed["users_missing"]["value"] == 1


def test_exclusion_by_days_is_followed(night: Make) -> None:
    """What was had on the last of the days counts as had."""
    run = night(scores=without(107), seen=had_all(107, ago=2 * 86_400), exclude_seen="days")
    assert check(run, root_of(run), threads=1).figures["users_empty"] == pytest.approx(1 / 60)


def test_lost_shard_is_refused(night: Make) -> None:
    """A shard of no rows is half of the users missing; that one of them has had everything explains that one."""
    run = night(scores=lambda t: t.slice(0, 0) if t["user_id"][0].as_py() == 100 else t, seen=had_all(100))
    assert refused(run)["users_missing"]["value"] == 29


def test_many_who_have_had_everything_are_refused(night: Make) -> None:
    """Each is explained, but a night that has nothing for a tenth of the users is not published unseen."""
    gone = tuple(range(100, 106))
    failed = refused(night(scores=without(*gone), seen=had_all(*gone)))
    assert list(failed) == ["users_empty"]
    assert failed["users_empty"]["value"] == pytest.approx(0.1)


def test_user_in_two_shards_is_refused(night: Make) -> None:
    """A user whose histories lie in two shards is counted."""

    def same_first(table: pa.Table) -> pa.Table:
        return with_column(table, "user_id", assign(0, 1))

    failed = refused(
        night(
            histories=same_first,
            interests=same_first,
            scores=lambda t: with_column(t, "user_id", assign(slice(0, 10), 1)),
        )
    )
    assert list(failed) == ["users_repeated"]
    assert failed["users_repeated"]["value"] == 1


def test_lost_rows_are_refused(night: Make) -> None:
    """Users who went into interests and did not come out, and items that no count explains, are unaccounted rows."""
    assert refused(night(interests=lambda t: t.slice(1)))["rows_unaccounted"]["value"] == 2
    run = night(parameters={"counts": {"indexed": 40, "zero_vectors": 3}}, date="2026-03-02")
    assert refused(run)["rows_unaccounted"]["value"] == 3
    run = night(parameters={"counts": {"indexed": 38, "zero_vectors": 2}}, date="2026-03-03")
    assert refused(run)["rows_unaccounted"]["value"] == 2


@pytest.mark.parametrize(
    ("counts", "lost"),
    [({"interactions": 99}, 1), ({"users": 58}, 2), ({"items": 45}, 5), ({"interactions_null": 0}, 1)],
)
def test_what_prepare_cannot_account_for_is_refused(night: Make, counts: dict[str, int], lost: int) -> None:
    """Each interaction, user and item that was read is kept or counted by the reason it was dropped for."""
    assert refused(night(counts=counts))["rows_unaccounted"]["value"] == lost


def test_bad_vectors_are_refused(night: Make) -> None:
    """Zero and NaN item vectors, and NaN or zero interest vectors, are shares with gates of their own."""

    def spoil(vectors: np.ndarray) -> np.ndarray:
        vectors[0] = 0
        vectors[1, 2] = np.nan
        return vectors

    assert refused(night(vectors=spoil))["items_unusable"]["value"] == pytest.approx(2 / 40)

    def zero(table: pa.Table) -> pa.Table:
        kind = table.schema.field("vectors").type
        rows = table["vectors"].to_pylist()
        rows[0] = [[0.0] * 4, [np.nan, 0, 0, 0]]
        return table.set_column(1, table.schema.field("vectors"), pa.array(rows, kind))

    failed = refused(night(interests=zero, date="2026-03-02"))
    assert failed["interests_zero"]["value"] == pytest.approx(2 / 120)
    assert failed["not_finite"]["value"] == 2


def test_unknown_ids_and_recall_are_judged(night: Make) -> None:
    """Histories full of unknown ids, and an index that finds too little, are refused."""

    def forget(table: pa.Table) -> pa.Table:
        lists = pa.array([[1, 1, 5]] * table.num_rows, table.schema.field("history_item_id").type)
        return table.set_column(1, table.schema.field("history_item_id"), lists)

    failed = refused(night(histories=forget, parameters={"recall": 0.5}))
    assert failed["unknown_share"]["value"] == pytest.approx(2 / 3)
    assert failed["recall"]["value"] == 0.5
    assert failed["recall"]["bound"] == 0.9


def test_collapsed_recommendations_are_refused(night: Make) -> None:
    """One list for everybody fails coverage when the bound asks for more than it covers."""
    run = night(
        shift=0,
        scores=lambda t: with_column(
            t, "item_id", lambda v: v.__setitem__(slice(None), np.tile(np.arange(1000, 1010), len(v) // 10))
        ),
    )
    report = check(run, root_of(run), threads=1)
    values = {v.name: v.value for v in report.verdicts}
    assert values["coverage"] == pytest.approx(10 / 40)
    assert values["exposure_top"] == pytest.approx(1 / 10)
    with pytest.raises(RefusedError, match=r"coverage: 0\.25, expected at least 0\.5"):
        check(run, root_of(run), gates=configured_gates({"coverage": 0.5}), threads=1)


def test_old_model_warns_and_does_not_refuse(night: Make) -> None:
    """The model's age is counted in days from its last training day to the data date; too old is a warning."""
    run = night()
    last = {"user": "2025-03-01", "ranker": "2026-02-01", "item": ""}
    report = check(run, root_of(run), threads=1, trained_through=last)
    assert [(v.name, v.value) for v in report.warned] == [("model_age", 365)]
    with pytest.raises(InputError, match="yesterday"):
        check(run, root_of(run), threads=1, trained_through={"user": "yesterday"})


def test_recall_without_users_does_not_apply(night: Make) -> None:
    """Where no user has a history, recall says why it is not known; elsewhere a missing recall is an error."""
    run = night(parameters={"recall": None, "recall_users": 0})
    assert states(check(run, root_of(run), threads=1))["recall"] is State.SKIP
    run = night(parameters={"recall": None}, date="2026-03-02")
    with pytest.raises(CorruptError, match=r"index\.json: expected a number for recall"):
        check(run, root_of(run), threads=1)


def test_unfinished_run_is_not_judged(night: Make) -> None:
    """A run that lacks a shard says which file, and writes no verdict."""
    run = night()
    sidecar_of(run.layout.scores(1, 2)).unlink()
    with pytest.raises(StaleRunError, match="00001-of-00002"):
        check(run, root_of(run), threads=1)
    assert not run.layout.record.gates.exists()


@pytest.mark.parametrize("of", ["scores", "interests", "histories"])
def test_changed_byte_of_the_run_is_found_before_it_is_judged(night: Make, of: str) -> None:
    """A flipped byte of a table that is read is an error that names the file."""
    run = night()
    path = getattr(run.layout, of)(0, 2)
    flip(path)
    with pytest.raises(CorruptError, match=of):
        check(run, root_of(run), threads=1)


def test_string_and_unsigned_ids_are_compared_alike(night: Make) -> None:
    """String ids in byte order and unsigned ids beyond int64 pass the same gates."""
    names = sorted((f"ü{n:03d}" if n % 2 else f"z{n:03d}" for n in range(40)), key=str.encode)
    run = night(users=names, user_type="string")
    assert check(run, root_of(run), threads=1).passed
    big = list(range(2**63 - 10, 2**63 + 30))
    run = night(users=big, user_type="uint64", date="2026-03-02")
    assert check(run, root_of(run), threads=1).figures["users"] == 40


def test_users_across_record_batches_are_counted_once(night: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user whose rows lie in two record batches is one user, with ranks and items looked at together."""
    monkeypatch.setattr("artifacts.tables.BATCH_ROWS", 7)
    run = night()
    report = check(run, root_of(run), threads=1)
    assert report.figures["users"] == 60
    bad = night(date="2026-03-02", scores=lambda t: with_column(t, "item_id", lambda v: v.__setitem__(9, v[0])))
    assert refused(bad)["items_repeated"]["value"] == 2


def test_constant_scores_are_refused_on_a_first_night_too(night: Make) -> None:
    """Users whose items all have one score are counted without another night to compare with."""
    run = night(scores=lambda t: with_column(t, "score", assign(slice(None, 40), 0.5)))
    assert refused(run)["scores_constant"]["value"] == pytest.approx(8 / 60)  # four users in each of two shards
