"""The verbs on releases whose root is an object store: as in a folder, and what is pruned is gone there."""

import shutil
import time
from pathlib import Path

import pytest

from artifacts.errors import RefusedError
from artifacts.layout import RootLayout
from artifacts.mirror import Mirror, mirror_of, open_mirror
from artifacts.store import fetched, is_there, remove_file
from release.check import check
from release.diff import diff
from release.nights import newest_night, recorded_nights
from release.pointer import read_pointer, versions
from release.prune import plan, prune, rules_of
from release.publish import publish
from release.refusal import write_refusal
from release.releases import list_releases, pin, promote, resume, rollback, unpin, verify
from release.revise import revise
from tests.release.conftest import Night, make_run


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three nights in a folder; LATEST names the second, the shadow the third."""
    root = tmp_path_factory.mktemp("three")
    for day in (1, 2, 3):
        run = make_run(root, Night(date=f"2026-03-0{day}", shift=day))
        channel = "shadow" if day == 3 else "LATEST"
        check(run, root, channel=channel, threads=1)
        publish(run, root, channel=channel)
    return root


@pytest.fixture
def mirror(root: Path, made: Path) -> Mirror:
    """The same, in a store."""
    mirror = mirror_of(root)
    assert mirror is not None
    for path in sorted(made.rglob("*")):
        key = path.relative_to(made)
        if path.is_file() and not any(part.startswith(".") for part in key.parts):
            mirror.remote.upload(key.as_posix(), path)
    return mirror


def test_the_page_of_a_refusal_is_the_newest_and_goes_everywhere(root: Path, mirror: Mirror, tmp_path: Path) -> None:
    """One machine refuses the night, twice, and a third does it: no other reads an older page, or one that is gone."""
    there = open_mirror(mirror.remote.url, cache=tmp_path / "elsewhere", retry_seconds=5, most_bytes=1 << 40)
    page, seen = RootLayout(root).refusal("2026-03-04"), RootLayout(there).refusal("2026-03-04")
    for reason in ("the day is not there", "the model has seen the future"):
        assert write_refusal(root, "2026-03-04", "prepare", RefusedError(reason)) == []
        text = fetched(seen, anew=True).read_text("utf-8")
        assert f"Refused in the step prepare: {reason}" in text
    assert f"<dd>{versions(root)[1]}</dd>" in text

    for _ in range(2):  # every night that is prepared takes the page away, and nearly all have none
        remove_file(page)

    assert not is_there(seen)


def test_every_verb_does_there_what_it_does_here(root: Path, made: Path, mirror: Mirror, tmp_path: Path) -> None:
    """Each verb gives in the store what it gives in a folder, and its trace is in the store."""
    first, second, third = versions(root)
    assert list_releases(root) == list_releases(made)
    assert recorded_nights(root, nights=60) == recorded_nights(made, nights=60)
    assert newest_night(root, "shadow") == newest_night(made, "shadow")
    assert verify(root, first) == verify(made, first)
    assert verify(root, second, quick=True) == verify(made, second)
    assert diff(root, first, second, threads=1) == diff(made, first, second, threads=1)
    pin(root, first, who="ada", why="audit")
    assert mirror.remote.names("pins") == [f"{first}.json"]
    promote(root, third, who="ada", why="better")
    rollback(root, second, who="ada", why="worse")
    resume(root, who="ada")
    ids = tmp_path / "erase.txt"
    ids.write_text("101\n")
    revised = revise(root, who="ada", why="erasure", drop_users=ids)
    assert revised.moved == ("LATEST",)
    assert verify(root).version == revised.version
    pointer = read_pointer(root)
    assert pointer is not None
    assert pointer.sequence == 6
    assert mirror.remote.names("claims") == []
    lately = plan(root, rules_of(root, keep=1, now=time.time()))
    assert lately[0].why.endswith("within the grace time")
    unpin(root, first)
    done = prune(root, rules_of(root, versions_named=[first, second], runs=True, grace_hours=0, now=time.time() + 60))
    assert [fate.name for fate in done if fate.goes] == [first, second, "runs/2026-03-01", "runs/2026-03-02"]
    assert versions(root) == sorted([revised.version, third])
    left = mirror.remote.keys("")
    assert not [key for key in left if first in key or second in key or key.startswith(("runs/2026-03-01", "pins"))]
    for version in versions(root):
        verify(root, version)


def test_the_same_bytes_as_in_a_folder(root: Path, made: Path, mirror: Mirror, tmp_path: Path) -> None:
    """A revised release has one version, wherever it is made."""
    shutil.copytree(made, tmp_path / "here")
    ids = tmp_path / "takedown.csv"
    ids.write_text("1003\n1017\n")
    there = revise(root, who="ada", why="takedown", drop_items=ids)
    here = revise(tmp_path / "here", who="ada", why="takedown", drop_items=ids)
    assert here == there


def test_a_release_whose_manifest_is_gone_is_no_release(root: Path, mirror: Mirror) -> None:
    """What a killed prune or publisher left in the store is not listed, and prune leaves it to people unless begun."""
    first = versions(root)[0]
    mirror.remote.delete([f"releases/{first}/manifest.json"])
    assert first not in versions(root)
    (fate,) = (one for one in plan(root, rules_of(root, keep=1, now=time.time() + 1e6)) if one.name == first)
    assert not fate.goes
    assert "manifest.json" in fate.why
