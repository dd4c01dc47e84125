"""What is on record of nights: every outcome is told as what it is, and one that cannot be read hides no other."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from artifacts.documents import amend_sealed, write_json
from artifacts.errors import RefusedError
from artifacts.layout import RootLayout
from artifacts.run import Run
from release.check import check
from release.nights import Outcome, Recorded, newest_night, recorded_nights
from release.publish import Published, publish
from release.releases import rollback

Make = Callable[..., Run]
Release = Callable[..., Published]


def prepared(root: Path, run: Run) -> Run:
    """Let *run* be the one of its date that was prepared last."""
    write_json(RootLayout(root).current_run(run.date), {"run_key": run.run_key})
    return run


def refused(root: Path, run: Run) -> Run:
    with pytest.raises(RefusedError):
        check(prepared(root, run), root, threads=1)
    return run


def outcomes(nights: tuple[Recorded, ...]) -> dict[str, str]:
    return {night.date: str(night.outcome) for night in nights}


def test_a_surface_without_nights_has_none(tmp_path: Path) -> None:
    """Nothing on record is no error."""
    assert recorded_nights(tmp_path, nights=60) == ()
    assert newest_night(tmp_path) is None


def test_every_outcome_is_told(night: Make, released: Release, tmp_path: Path) -> None:
    """Published, refused, unfinished and missing nights, in the order of their dates."""
    first = released(date="2026-03-01")
    released(date="2026-03-02", shift=1)
    bad = refused(tmp_path, night(date="2026-03-04", users=list(range(100, 130)), now=1_772_668_800))
    prepared(tmp_path, night(date="2026-03-05", shift=2))
    nights = recorded_nights(tmp_path, nights=60)

    assert outcomes(nights) == {
        "2026-03-01": "published",
        "2026-03-02": "published",
        "2026-03-04": "refused",
        "2026-03-05": "unfinished",
    }
    assert (nights[0].version, nights[0].figures["users"], nights[0].counts["interactions_read"]) == (
        first.version,
        60,
        110,
    )
    assert nights[0].size > 0
    assert (nights[2].run_key, nights[2].end, nights[2].version) == (bad.run_key, 1_772_668_800, "")
    assert "users_lost" in {verdict.name for verdict in nights[2].failed}
    assert newest_night(tmp_path) == nights[2]  # the unfinished one has not come to an end


def test_days_are_counted_up_to_the_newest_night(released: Release, tmp_path: Path) -> None:
    """The data date is the clock: so many days end with the newest night, gaps counted."""
    for day in ("2026-02-27", "2026-03-01", "2026-03-02"):
        released(date=day)

    assert list(outcomes(recorded_nights(tmp_path, nights=3))) == ["2026-03-01", "2026-03-02"]
    assert list(outcomes(recorded_nights(tmp_path, nights=4))) == ["2026-02-27", "2026-03-01", "2026-03-02"]


def test_what_the_channel_does_not_lead_to_is_only_stored(released: Release, tmp_path: Path) -> None:
    """A release that was withdrawn is no published night; what another channel leads to is none of this one's."""
    first = released(date="2026-03-01")
    released(date="2026-03-02", shift=1)
    released("shadow", date="2026-03-03", shift=2)
    rollback(tmp_path, first.version, who="ada", why="a drill")

    assert outcomes(recorded_nights(tmp_path, nights=60)) == {"2026-03-01": "published", "2026-03-02": "stored"}
    assert outcomes(recorded_nights(tmp_path, nights=60, channel="shadow"))["2026-03-03"] == "published"


def test_steps_are_added_up_over_their_groups(night: Make, tmp_path: Path) -> None:
    """Each time that a step did something counts, in the run and in the release that takes it over."""
    run = prepared(tmp_path, night())
    entries = [{"shards": 1, "rows": 300, "seconds": 1.5}, {"shards": 1, "rows": 299, "seconds": 0.75}]
    amend_sealed(run.layout.timings, lambda _: {"score": entries}, version=1)
    check(run, tmp_path, threads=1)
    (before,) = recorded_nights(tmp_path, nights=1)
    publish(run, tmp_path)
    (after,) = recorded_nights(tmp_path, nights=1)

    assert (before.outcome, after.outcome) == (Outcome.BLESSED, Outcome.PUBLISHED)
    for one in (before, after):
        assert (one.steps["score"].rows, one.steps["score"].seconds, one.seconds) == (599, 2.25, 2.25)


@pytest.mark.parametrize("name", ["record/gates.json", "record/record.json", "manifest.json"])
def test_a_night_that_cannot_be_read_hides_no_other(name: str, released: Release, tmp_path: Path) -> None:
    """A changed record is told as a problem of its night, with the file."""
    released(date="2026-03-01")
    broken = released(date="2026-03-02", shift=1)
    path = broken.folder / name
    path.write_bytes(path.read_bytes()[:-9] + b"}")
    first, second = recorded_nights(tmp_path, nights=60)

    assert first.outcome in {Outcome.PUBLISHED, Outcome.STORED}
    assert first.figures["users"] == 60
    assert second.outcome is Outcome.UNREADABLE
    assert path.name in second.problem


def test_what_was_told_stands_in_for_what_was_pruned(released: Release, tmp_path: Path) -> None:
    """A night survives as a document; where the store has it, the store is believed."""
    released(date="2026-03-02")
    (stored,) = recorded_nights(tmp_path, nights=60)
    told = [Recorded.from_document({**stored.document(), "date": day}) for day in ("2026-03-01", "2026-03-02")]
    gone, kept = recorded_nights(tmp_path, nights=60, told=[told[0], Recorded("2026-03-02", Outcome.REFUSED)])

    assert gone == told[0]
    assert kept == stored == told[1]
    shutil.rmtree(tmp_path / "releases")
    prepared(tmp_path, Run.read(RootLayout(tmp_path).run("2026-03-02", stored.run_key).folder))
    assert recorded_nights(tmp_path, nights=60, told=told) == tuple(told)  # the run that is left knows less
    with pytest.raises(ValueError, match="format 1"):
        Recorded.from_document({**stored.document(), "format": 2})
