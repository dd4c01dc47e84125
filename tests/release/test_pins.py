"""Pins, claims and promotion: what stays, and where a pointer may go."""

from collections.abc import Callable
from pathlib import Path

import pytest

from artifacts.errors import ConflictError, CorruptError, NightrecError, RefusedError, UsageError
from artifacts.layout import RootLayout
from artifacts.run import Run
from release.pins import absolve, claimed, condemn, pinned, read_pin
from release.pointer import read_pointer
from release.publish import Published
from release.releases import list_releases, pin, promote, rollback, show, unpin

Make = Callable[..., Run]


def test_a_pin_says_who_and_why_until_it_is_lifted(released: Callable[..., Published], tmp_path: Path) -> None:
    """A pinned release is listed and shown as such; a second pin names the first."""
    version = released().version
    pin(tmp_path, version, who="ada", why="the audit\nof March")
    assert [one.pinned for one in list_releases(tmp_path)] == [True]
    assert show(tmp_path)["pin"] == {"version": version, "who": "ada", "why": "the audit\nof March"}
    with pytest.raises(UsageError, match="pinned already, by ada: the audit"):
        pin(tmp_path, version, who="bob", why="another audit")
    unpin(tmp_path, version)
    assert pinned(tmp_path) == []
    assert read_pin(tmp_path, version) is None
    with pytest.raises(UsageError, match="no release is"):
        unpin(tmp_path, version)


def test_only_what_is_stored_can_be_pinned_and_with_words(released: Callable[..., Published], tmp_path: Path) -> None:
    """An unknown release, a blank reason and text that cannot be written are refused, and nothing is pinned."""
    version = released().version
    with pytest.raises(UsageError, match=f"did you mean {version}"):
        pin(tmp_path, version[:-1] + "_", who="ada", why="audit")
    for who, why in (("ada", " "), ("", "audit"), ("ada", "\udcff")):
        with pytest.raises(UsageError, match="expected words"):
            pin(tmp_path, version, who=who, why=why)
    assert pinned(tmp_path) == []


def test_nobody_points_at_what_is_being_removed(released: Callable[..., Published], tmp_path: Path) -> None:
    """Once a release is condemned no pointer moves to it and no pin keeps it; the claim leaves nothing behind."""
    first, second = released(), released(date="2026-03-02", shift=1)
    condemn(tmp_path, first.version)
    with pytest.raises(ConflictError, match="being pruned"):
        rollback(tmp_path, first.version, who="me", why="a drill")
    with pytest.raises(ConflictError, match="being pruned"):
        pin(tmp_path, first.version, who="me", why="a drill")
    before = read_pointer(tmp_path)
    assert before is not None
    assert before.version == second.version
    assert pinned(tmp_path) == []
    assert list(RootLayout(tmp_path).claims.iterdir()) == []
    absolve(tmp_path, first.version)
    assert rollback(tmp_path, first.version, who="me", why="a drill").version == first.version


def test_a_claim_is_for_what_is_there(tmp_path: Path) -> None:
    """A release that is gone cannot be claimed."""
    with pytest.raises(ConflictError, match="gone"), claimed(tmp_path, "2026-03-01-000000000000"):
        pass


def test_promote_moves_latest_to_what_the_shadow_has(released: Callable[..., Published], tmp_path: Path) -> None:
    """A verified release of another channel becomes LATEST, with who and why recorded, once."""
    released()
    shadow = released("shadow", date="2026-03-02", shift=1)
    moved = promote(tmp_path, shadow.version, who="ada", why="better on clicks")
    assert (moved.version, moved.sequence, moved.reason) == (shadow.version, 2, "promoted by ada: better on clicks")
    assert read_pointer(tmp_path) == moved
    assert [one.channels for one in list_releases(tmp_path)] == [(), ("LATEST", "shadow")]
    with pytest.raises(UsageError, match=r"names .* already"):
        promote(tmp_path, shadow.version, who="ada", why="again")


def test_promote_fills_a_new_channel(released: Callable[..., Published], tmp_path: Path) -> None:
    """A channel that names nothing yet begins with what is promoted to it."""
    version = released().version
    assert promote(tmp_path, version, who="ada", why="canary", channel="canary").sequence == 1
    with pytest.raises(UsageError, match="letters, digits"):
        promote(tmp_path, version, who="ada", why="canary", channel="../LATEST")


def test_promote_goes_forward_only_and_under_no_hold(released: Callable[..., Published], tmp_path: Path) -> None:
    """An earlier date is a rollback's work, and a held pointer waits for resume; each message names the verb."""
    first, second = released(), released(date="2026-03-02", shift=1)
    with pytest.raises(RefusedError, match="releases rollback"):
        promote(tmp_path, first.version, who="ada", why="older")
    rollback(tmp_path, first.version, who="bob", why="bad night")
    with pytest.raises(RefusedError, match=r"held at .* by bob \(bad night\).*releases resume"):
        promote(tmp_path, second.version, who="ada", why="newer")


def test_promote_verifies_first(released: Callable[..., Published], tmp_path: Path) -> None:
    """A changed release is named, and the pointer stays."""
    released()
    shadow = released("shadow", date="2026-03-02", shift=1)
    path = shadow.folder / "index" / "index.json"
    path.write_bytes(path.read_bytes() + b" ")
    before = (tmp_path / "LATEST").read_bytes()
    with pytest.raises(CorruptError, match=r"index\.json"):
        promote(tmp_path, shadow.version, who="ada", why="better")
    assert (tmp_path / "LATEST").read_bytes() == before


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "[" * 100_000, '{"format": 1, "version": 3}', '{"format": 1}', "\x00"]
)
def test_a_strange_pin_is_named_and_counts_as_one(
    released: Callable[..., Published], tmp_path: Path, text: str
) -> None:
    """Whatever stands in a pin's file, the message names it, the release counts as pinned, and unpin removes it."""
    version = released().version
    path = RootLayout(tmp_path).pin(version)
    path.parent.mkdir()
    path.write_text(text)
    assert pinned(tmp_path) == [version]
    with pytest.raises(NightrecError, match=path.name):
        read_pin(tmp_path, version)
    unpin(tmp_path, version)
    assert pinned(tmp_path) == []
