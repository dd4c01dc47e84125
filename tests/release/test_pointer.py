"""Where the pointers move and where they stay: forward in date, back by rollback, never to what is not whole."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from artifacts.documents import read_sealed, write_sealed
from artifacts.errors import CorruptError, RefusedError, UsageError
from artifacts.release import Manifest, verify_release
from release.check import check
from release.pointer import earlier_release, follow, move_pointer, read_pointer, versions
from release.publish import Published, _store_record, publish
from release.releases import promote, resume, rollback
from tests.release.judged import Make, flip, root_of


def test_next_night_moves_forward_and_names_its_parent(released: Callable[..., Published], tmp_path: Path) -> None:
    """LATEST moves to the next date, and the manifest names the version that readers had."""
    first = released()
    second = released(date="2026-03-02", shift=1)
    assert second.sequence == 2
    assert Manifest.read(second.folder / "manifest.json").parent == first.version
    assert follow(tmp_path).version == second.version


def test_older_date_is_stored_and_latest_stays(released: Callable[..., Published], tmp_path: Path) -> None:
    """A backfilled day becomes a release, whatever the order, and LATEST stays on the newest date."""
    newest = released(date="2026-03-05")
    older = released(date="2026-03-03", shift=1)
    assert (older.stored, older.moved) == (True, False)
    assert "later date" in older.note
    assert follow(tmp_path).version == newest.version
    assert Manifest.read(older.folder / "manifest.json").parent is None


def test_same_date_with_other_content_needs_a_reason(night: Make, released: Callable[..., Published]) -> None:
    """Other content of a published date is refused without a reason; with one it replaces it, and that is recorded."""
    before = released(date="2026-02-28")
    first = released()
    run = night(shift=1)
    check(run, root_of(run), threads=1)
    with pytest.raises(RefusedError, match="--supersede REASON"):
        publish(run, root_of(run))
    assert versions(root_of(run)) == [before.version, first.version]
    second = publish(run, root_of(run), supersede="the catalogue was late")
    assert second.moved
    assert follow(root_of(run)).version == second.version
    (entry,) = Manifest.read(second.folder / "manifest.json").overrides
    assert (entry["found"], entry["reason"]) == (first.version, "the catalogue was late")
    assert Manifest.read(second.folder / "manifest.json").parent == before.version
    later = released(date="2026-03-02", shift=1)
    assert Manifest.read(later.folder / "manifest.json").parent == second.version


def test_rollback_holds_latest_until_resume(night: Make, released: Callable[..., Published], tmp_path: Path) -> None:
    """Under a hold nights are stored and LATEST stays; after resume the next publish moves it."""
    first, second = released(), released(date="2026-03-02", shift=1)
    held = rollback(tmp_path, first.version, who="on call", why="empty lists in the app")
    assert (held.version, held.sequence) == (first.version, 3)
    assert held.hold
    assert (held.hold.who, held.hold.why, held.hold.withdrawn) == ("on call", "empty lists in the app", second.version)
    assert follow(tmp_path).version == first.version

    run = night(date="2026-03-03", shift=2)
    assert check(run, tmp_path, threads=1).earlier == first.version  # what was withdrawn is no yardstick
    third = publish(run, tmp_path)
    assert (third.stored, third.moved, third.current, third.held, third.sequence) == (True, False, False, True, 3)
    assert "empty lists in the app" in third.note
    assert follow(tmp_path).version == first.version

    assert resume(tmp_path, who="on call", why="fixed").hold is None
    assert follow(tmp_path).version == first.version
    again = publish(run, tmp_path)
    assert (again.stored, again.moved, again.sequence) == (False, True, 5)
    assert follow(tmp_path).version == third.version
    with pytest.raises(UsageError, match="not held"):
        resume(tmp_path, who="on call")


def test_what_was_rolled_back_comes_back_by_promotion_alone(
    night: Make, released: Callable[..., Published], tmp_path: Path
) -> None:
    """After resume, publishing a withdrawn night again says so and moves nothing; promoting it moves, on purpose.

    Of three nights two are rolled back, one after the other; both stay withdrawn until a later one is published.
    """
    first, second = released(), released(date="2026-03-02", shift=1)
    run = night(date="2026-03-03", shift=2)
    check(run, tmp_path, threads=1)
    third = publish(run, tmp_path)
    for version in (second.version, first.version):
        rollback(tmp_path, version, who="on call", why="empty lists")
    resume(tmp_path, who="on call")
    pointer = read_pointer(tmp_path)
    assert pointer
    assert pointer.withdrawn == (third.version, second.version)
    assert check(run, tmp_path, threads=1).earlier == first.version

    again = publish(run, tmp_path)

    assert (again.stored, again.moved, again.current, again.held) == (False, False, False, False)
    assert again.note.endswith(
        f"LATEST stays at {first.version}: a rollback took {third.version} back; "
        f"`nightrec releases promote {third.version}` gives it to readers again"
    )
    assert read_pointer(tmp_path) == pointer
    promote(tmp_path, second.version, who="on call", why="it was another's fault")
    moved = read_pointer(tmp_path)
    assert moved
    assert (moved.version, moved.withdrawn) == (second.version, (third.version,))
    fourth = released(date="2026-03-04", shift=3)
    assert fourth.moved
    assert "withdrawn" not in json.loads((tmp_path / "LATEST").read_text())


@pytest.mark.parametrize("withdrawn", ["2026-03-02-aaaaaaaaaaaa", ["2026-03-02"], [1]])
def test_strange_withdrawals_are_no_pointer(
    released: Callable[..., Published], tmp_path: Path, withdrawn: object
) -> None:
    """A pointer whose list of withdrawn releases is none is refused."""
    released()
    document = read_sealed(tmp_path / "LATEST", version=1)
    write_sealed(tmp_path / "LATEST", {**document, "withdrawn": withdrawn}, version=1)
    with pytest.raises(CorruptError, match=r"LATEST: expected the fields of a pointer \(.*withdrawn"):
        read_pointer(tmp_path)


@pytest.mark.parametrize("when", ["stored", "moved"])
def test_equal_content_that_someone_else_publishes_meanwhile_is_a_no_op(
    night: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, when: str
) -> None:
    """Whoever comes second, while it copies or before it moves the pointer, finds the release and LATEST as wanted."""
    run = night()
    answers: list[Published] = []
    theirs: Callable[..., None] = {"stored": _store_record, "moved": move_pointer}[when]
    name = f"release.publish.{theirs.__name__}"

    def overtaken(*args: Any, **said: Any) -> None:
        monkeypatch.setattr(name, theirs)
        answers.append(publish(run, tmp_path, override="a reason"))
        theirs(*args, **said)

    monkeypatch.setattr(name, overtaken)
    second = publish(run, tmp_path, override="another reason")

    (first,) = answers
    assert (first.stored, first.moved, first.sequence) == (when == "stored", True, 1)
    assert (second.stored, second.moved, second.current, second.sequence) == (when == "moved", False, True, 1)
    assert second.manifest_sha256 == first.manifest_sha256
    verify_release(first.folder)
    assert follow(tmp_path).version == first.version


def test_rollback_goes_back_to_what_is_whole(released: Callable[..., Published], tmp_path: Path) -> None:
    """A rollback to a broken, unknown or newer release, or without name and reason, changes nothing."""
    first, second = released(), released(date="2026-03-02", shift=1)
    before = (tmp_path / "LATEST").read_bytes()
    with pytest.raises(UsageError, match=f"did you mean {first.version}"):
        rollback(tmp_path, first.version[:-1] + "_", who="me", why="because")
    for one in (first, second):  # a day is typed, and its own release is named, never the other night's
        with pytest.raises(UsageError, match=f"did you mean {one.version}"):
            rollback(tmp_path, one.version[:10], who="me", why="because")
    with pytest.raises(UsageError, match="--who: expected words"):
        rollback(tmp_path, first.version, who="", why="because")
    flip(first.folder / "index" / "ivf.faiss")
    with pytest.raises(CorruptError, match=r"ivf\.faiss"):
        rollback(tmp_path, first.version, who="me", why="because")
    assert (tmp_path / "LATEST").read_bytes() == before
    flip(first.folder / "index" / "ivf.faiss")
    rollback(tmp_path, first.version, who="me", why="because")
    with pytest.raises(RefusedError, match="goes back"):
        rollback(tmp_path, second.version, who="me", why="because")


def test_stored_release_is_verified_before_latest_names_it(night: Make, released: Callable[..., Published]) -> None:
    """A release that rotted while it was only stored is not given to readers."""
    released()
    run = night(date="2026-03-02", shift=1)
    root = root_of(run)
    rollback(root, versions(root)[0], who="me", why="a drill")
    check(run, root, threads=1)
    stored = publish(run, root)
    resume(root, who="me")
    flip(stored.folder / "scores" / "00000-of-00002.arrow")
    with pytest.raises(CorruptError, match="00000-of-00002"):
        publish(run, root)
    assert follow(root).version != stored.version


def test_channels_are_pointers_of_their_own(night: Make, tmp_path: Path) -> None:
    """Publishing to a channel stores the release once and leaves LATEST alone."""
    run = night()
    check(run, tmp_path, threads=1)
    shadow = publish(run, tmp_path, channel="shadow")
    assert follow(tmp_path, "shadow").version == shadow.version
    assert read_pointer(tmp_path) is None
    both = publish(run, tmp_path)
    assert (both.stored, both.moved) == (False, True)
    with pytest.raises(UsageError, match="channel"):
        publish(run, tmp_path, channel="../LATEST")


def test_follow_refuses_what_latest_did_not_name(released: Callable[..., Published], tmp_path: Path) -> None:
    """A reader gets no release whose manifest is missing or differs from the one that LATEST names."""
    with pytest.raises(UsageError, match="nothing is published"):
        follow(tmp_path)
    published = released()
    manifest = published.folder / "manifest.json"
    data = manifest.read_bytes()
    manifest.write_bytes(data.replace(b'"parent": null', b'"parent":  null'))
    with pytest.raises(CorruptError, match=r"manifest\.json"):
        follow(tmp_path)
    manifest.unlink()
    with pytest.raises(CorruptError, match="missing"):
        follow(tmp_path)


def test_foreign_latest_is_an_error_that_names_it(released: Callable[..., Published], tmp_path: Path) -> None:
    """Whatever stands in LATEST that is not ours, or leads out of the root, is an error of one line."""
    released()
    good = read_sealed(tmp_path / "LATEST", version=1)
    for bad in (
        {},
        {**good, "version": "../.."},
        {**good, "version": None},
        {**good, "more": 1},
        {**good, "date": "2026-03-09"},
        {**good, "hold": {"who": "me"}},
        {**good, "hold": 7},
    ):
        write_sealed(tmp_path / "LATEST", bad, version=1)
        with pytest.raises(CorruptError, match="LATEST"):
            follow(tmp_path)
    for text in ("", "[]", "{}", json.dumps(good)):
        (tmp_path / "LATEST").write_text(text)
        with pytest.raises(CorruptError, match="LATEST"):
            follow(tmp_path)


def test_no_digit_of_latest_can_change_unseen(released: Callable[..., Published], tmp_path: Path) -> None:
    """One other digit, of the version, the sequence or anything else, and neither readers nor publish go on."""
    released()
    text = (tmp_path / "LATEST").read_text()
    digits = [place for place, letter in enumerate(text) if letter.isdigit()]
    for place in digits:
        (tmp_path / "LATEST").write_text(f"{text[:place]}{(int(text[place]) + 1) % 10}{text[place + 1 :]}")
        with pytest.raises(CorruptError, match="LATEST"):
            read_pointer(tmp_path)
    (tmp_path / "LATEST").write_text(text.replace('"sequence": 1', '"sequence": 8'))
    with pytest.raises(CorruptError, match="LATEST: its bytes are not those that were written"):
        released(date="2026-03-02", shift=1)


def test_earlier_release_follows_the_parents_among_equal_dates(
    released: Callable[..., Published], tmp_path: Path
) -> None:
    """Of two releases of one date the one that was not superseded is the yardstick, for any later date."""
    released(date="2026-03-01")
    kept = released(date="2026-03-01", shift=1, supersede="better")
    released(date="2026-03-02", shift=2)
    for date in ("2026-03-02", "2026-03-03"):
        found = earlier_release(tmp_path, date)
        assert found
        assert found.version == (kept.version if date == "2026-03-02" else follow(tmp_path).version)
    assert earlier_release(tmp_path, "2026-03-01") is None
