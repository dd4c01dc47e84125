"""Pruning: what may go, what must, what stays whatever is asked, and what happens in the middle."""

import os
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from artifacts.documents import write_json
from artifacts.errors import ConflictError, CorruptError, UsageError
from artifacts.layout import RootLayout
from release import prune as pruning
from release.check import check
from release.pins import condemn, is_condemned, pinned
from release.pointer import follow, read_pointer, versions
from release.prune import Fate, plan, prune, rules_of
from release.publish import Published, publish
from release.releases import pin, promote, rollback, verify
from tests.release.conftest import Night, make_run

NOW = datetime(2026, 3, 20, 12, tzinfo=UTC).timestamp()
Released = Callable[..., Published]


def age(root: Path, days: float = 10) -> None:
    """Let all that is stored be *days* old on NOW."""
    for path in root.rglob("*"):
        if path.is_file():
            os.utime(path, (NOW - days * 86_400,) * 2)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with five nights in a row, from 1 March on; LATEST names the last."""
    root = tmp_path_factory.mktemp("five")
    for day in range(1, 6):
        run = make_run(root, Night(date=f"2026-03-0{day}", shift=day))
        check(run, root, threads=1)
        publish(run, root)
    return root


@pytest.fixture
def five(made: Path, tmp_path: Path) -> list[str]:
    """The versions of five nights in a row, oldest first, long stored."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    age(tmp_path)
    return versions(tmp_path)


def fates(root: Path, **said: Any) -> dict[str, Fate]:
    return {fate.name: fate for fate in plan(root, rules_of(root, now=NOW, **said))}


def going(root: Path, **said: Any) -> list[str]:
    return [name for name, fate in fates(root, **said).items() if fate.goes]


def test_keep_and_older_than_ask_the_data_date(five: list[str], tmp_path: Path) -> None:
    """Days count back from the newest data date, whatever the clock says; both rules must let a release go."""
    assert going(tmp_path, keep=2) == five[:3]
    assert going(tmp_path, keep=9) == []
    assert going(tmp_path, older_than="3") == five[:1]
    assert going(tmp_path, older_than="2026-03-03") == five[:2]
    assert going(tmp_path, keep=4, older_than="2026-03-03") == five[:1]
    assert going(tmp_path, keep=2, older_than="2026-03-02") == five[:1]
    assert going(tmp_path, older_than="99999999999") == []


def test_keep_counts_dates(released: Released, tmp_path: Path) -> None:
    """All releases of a kept date stay: the withdrawn one is what people look at."""
    old = released().version
    first = released(date="2026-03-02", shift=1).version
    second = released("shadow", date="2026-03-02", shift=2).version
    released(date="2026-03-03", shift=3)
    age(tmp_path)
    assert going(tmp_path, keep=2) == [old]
    assert sorted(going(tmp_path, keep=1)) == sorted([old, first])
    assert second not in going(tmp_path, keep=1)


def test_what_is_current_stays_whatever_is_asked(five: list[str], tmp_path: Path) -> None:
    """The release of any channel, held or not, is never removed, and an overdue or named one is refused aloud."""
    promote(tmp_path, five[1], who="me", why="try", channel="shadow")
    rollback(tmp_path, five[2], who="me", why="bad night")
    age(tmp_path)
    assert going(tmp_path, keep=1) == [five[0], five[3]]
    told = fates(tmp_path, max_age=1)
    assert [told[version].goes for version in five] == [True, False, False, True, True]
    assert [version for version in five if told[version].refused] == [five[1], five[2]]
    assert told[five[1]].why == "current: shadow names it"
    assert fates(tmp_path, versions_named=[five[2]])[five[2]].refused


def test_a_pin_keeps_until_the_greatest_age(five: list[str], tmp_path: Path) -> None:
    """A pin outranks the ordinary rules and a name; what was promised to be gone outranks the pin, and lifts it."""
    pin(tmp_path, five[0], who="ada", why="audit")
    age(tmp_path)
    assert going(tmp_path, keep=3) == five[1:2]
    assert fates(tmp_path, keep=3)[five[0]].why == "pinned by ada: audit"
    assert fates(tmp_path, versions_named=[five[0]])[five[0]].refused
    assert going(tmp_path, max_age=18) == five[:1]
    assert going(tmp_path, max_age=19) == []
    prune(tmp_path, rules_of(tmp_path, max_age=18, now=NOW))
    assert versions(tmp_path) == five[1:]
    assert pinned(tmp_path) == []


def test_an_unreadable_pin_is_a_pin(five: list[str], tmp_path: Path) -> None:
    """A damaged pin does not let its release go."""
    write_json(RootLayout(tmp_path).pin(five[0]), {})
    assert going(tmp_path, keep=3) == five[1:2]


def test_what_was_stored_lately_stays(five: list[str], tmp_path: Path) -> None:
    """A release of an old date that was stored a moment ago is within the grace time, and in the future too."""
    manifest = RootLayout(tmp_path).release(five[0]).manifest
    for stored in (NOW - 3600, NOW + 86_400):
        os.utime(manifest, (stored, stored))
        assert going(tmp_path, keep=1) == five[1:4]
        assert fates(tmp_path, max_age=3)[five[0]].refused
    os.utime(manifest, (NOW - 3600, NOW - 3600))
    assert five[0] in going(tmp_path, keep=1, grace_hours=0.5)


@pytest.mark.parametrize("damage", ["cut", "missing", "link", "renamed"])
def test_what_cannot_be_read_stays(five: list[str], tmp_path: Path, damage: str) -> None:
    """A release whose manifest is damaged or missing, or that lies elsewhere, is left for people to look at."""
    folder = RootLayout(tmp_path).release(five[0]).folder
    if damage == "cut":
        (folder / "manifest.json").write_text("{")
    elif damage == "missing":
        (folder / "manifest.json").unlink()
    elif damage == "link":
        folder.rename(tmp_path / "elsewhere")
        folder.symlink_to(tmp_path / "elsewhere")
    else:
        folder.rename(folder.with_name("2026-03-01-000000000000"))
    age(tmp_path)
    for said in ({"keep": 1}, {"max_age": 1}):
        told = fates(tmp_path, **said)
        first = min(told)
        assert not told[first].goes
        assert "cannot be read" in told[first].why
        assert told[first].refused == ("max_age" in said)
    prune(tmp_path, rules_of(tmp_path, keep=1, now=NOW))
    assert len(versions(tmp_path, whole=False)) == 2


def test_an_unreadable_pointer_stops_all(five: list[str], tmp_path: Path) -> None:
    """Where it is not known what is current, nothing goes."""
    channel = RootLayout(tmp_path).channel("shadow")
    channel.parent.mkdir()
    channel.write_text("{")
    with pytest.raises(CorruptError, match="shadow"):
        prune(tmp_path, rules_of(tmp_path, keep=1, now=NOW))
    assert versions(tmp_path) == five


def test_prune_removes_what_the_plan_said(five: list[str], tmp_path: Path) -> None:
    """What goes is gone with all its files, what stays is whole, and the sizes are those on the disk."""
    rules = rules_of(tmp_path, keep=2, now=NOW)
    said = plan(tmp_path, rules)
    folder = RootLayout(tmp_path).releases
    size = sum(path.stat().st_size for path in (folder / five[0]).rglob("*") if path.is_file())
    lists = sum((folder / five[0] / name).stat().st_size for name in ("manifest.json", "record/record.json"))
    assert said[0].size == size - lists
    assert prune(tmp_path, rules) == said
    assert sorted(path.name for path in folder.iterdir() if path.name[0] != ".") == five[3:]
    for version in five[3:]:
        verify(tmp_path, version)
    assert not any(is_condemned(tmp_path, version) for version in five)
    assert follow(tmp_path).version == five[4]


def test_named_releases_go_alone(five: list[str], tmp_path: Path) -> None:
    """--version takes those, and no rule with it; an unknown one is refused before anything goes."""
    assert going(tmp_path, versions_named=[five[3], five[1]]) == [five[1], five[3]]
    with pytest.raises(UsageError, match="no such release"):
        rules_of(tmp_path, versions_named=[five[1], "2026-03-01-zzz"], now=NOW)
    with pytest.raises(UsageError, match="either --version"):
        rules_of(tmp_path, versions_named=[five[1]], keep=1, now=NOW)
    with pytest.raises(UsageError, match="to say what may go"):
        rules_of(tmp_path, now=NOW)
    with pytest.raises(UsageError, match=r"--older-than yesterday: .*YYYY-MM-DD"):
        rules_of(tmp_path, older_than="yesterday", now=NOW)


def test_a_pointer_that_moves_meanwhile_saves_its_release(
    five: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rollback between plan and removal, or one that has only claimed its release, keeps it from going."""
    planned = pruning.plan

    def then_roll_back(root: Path, rules: pruning.Rules) -> list[Fate]:
        found = planned(root, rules)
        rollback(root, five[0], who="me", why="just now")
        write_json(RootLayout(root).claims / f"{five[1]}.1", {})
        os.utime(RootLayout(root).claims / f"{five[1]}.1", (NOW, NOW))
        return found

    monkeypatch.setattr(pruning, "plan", then_roll_back)
    done = {fate.name: fate for fate in prune(tmp_path, rules_of(tmp_path, keep=1, now=NOW))}
    assert versions(tmp_path) == [five[0], five[1], five[4]]
    assert done[five[0]].why == "current: LATEST names it"
    assert done[five[1]].why == "somebody points at it just now"
    assert not is_condemned(tmp_path, five[0])
    assert follow(tmp_path).version == five[0]


def test_the_claim_of_a_dead_process_is_no_claim(five: list[str], tmp_path: Path) -> None:
    """What somebody claimed long ago and never named goes."""
    write_json(RootLayout(tmp_path).claims / f"{five[0]}.1", {})
    age(tmp_path)
    prune(tmp_path, rules_of(tmp_path, keep=4, now=NOW))
    assert versions(tmp_path) == five[1:]


def test_what_the_dead_left_behind_is_forgotten(
    five: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed when the folder was gone, a removal condemns nothing that is stored later; old claims are swept."""

    def killed(root: Path, version: str) -> None:
        raise KeyboardInterrupt

    layout = RootLayout(tmp_path)
    write_json(layout.claims / f"{five[3]}.dead", {})
    age(tmp_path)
    write_json(layout.claims / f"{five[3]}.alive", {})
    with monkeypatch.context() as patch:
        patch.setattr(pruning, "remove_pin", killed)
        with pytest.raises(KeyboardInterrupt):
            prune(tmp_path, rules_of(tmp_path, keep=4, now=NOW))
    assert is_condemned(tmp_path, five[0])
    prune(tmp_path, rules_of(tmp_path, keep=4, now=NOW))
    assert not is_condemned(tmp_path, five[0])
    assert [path.name for path in layout.claims.iterdir()] == [f"{five[3]}.alive"]


def test_all_is_as_old_as_the_store_says(five: list[str], tmp_path: Path) -> None:
    """A machine whose clock is days ahead takes no living claim for one of the dead, and keeps the grace time."""
    write_json(RootLayout(tmp_path).claims / f"{five[0]}.alive", {})
    os.utime(RootLayout(tmp_path).release(five[1]).manifest)
    ahead = rules_of(tmp_path, versions_named=five[:2], now=time.time() + 7 * 86_400)
    done = {fate.name: fate for fate in prune(tmp_path, ahead)}
    assert (done[five[0]].goes, done[five[0]].why) == (False, "somebody points at it just now")
    assert (done[five[1]].goes, "within the grace time" in done[five[1]].why) == (False, True)


def test_a_removal_that_was_killed_is_finished(
    five: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after the manifest went, the rest goes next time, under any rule; killed before, the release stays."""

    def killed(folder: Path) -> None:
        (folder / "manifest.json").unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pruning, "remove_folder", killed)
        with pytest.raises(KeyboardInterrupt):
            prune(tmp_path, rules_of(tmp_path, keep=1, now=NOW))
    condemn(tmp_path, five[1])
    assert going(tmp_path, keep=9) == five[:1]
    prune(tmp_path, rules_of(tmp_path, keep=9, now=NOW))
    assert versions(tmp_path) == five[1:]
    assert not is_condemned(tmp_path, five[0])
    assert rollback(tmp_path, five[1], who="me", why="still there").version == five[1]


def test_runs_go_by_the_same_rules(five: list[str], tmp_path: Path) -> None:
    """With --runs, a date's runs go as its releases do: by age, by name, and not within the grace time."""
    runs = RootLayout(tmp_path).runs
    assert [name for name in going(tmp_path, keep=4, runs=True) if "runs/" in name] == ["runs/2026-03-01"]
    named = going(tmp_path, versions_named=[five[1]], runs=True)
    assert named == [five[1], "runs/2026-03-02"]
    (path,) = (runs / "2026-03-01").glob("*/run.json")
    os.utime(path, (NOW, NOW))
    assert "runs/2026-03-01" not in going(tmp_path, keep=4, runs=True)
    age(tmp_path)
    done = prune(tmp_path, rules_of(tmp_path, max_age=17, runs=True, now=NOW))
    assert sorted(path.name for path in runs.iterdir()) == ["2026-03-03", "2026-03-04", "2026-03-05"]
    assert sum(fate.size for fate in done if fate.name == "runs/2026-03-01") > 1000


def test_nothing_is_there_to_prune(tmp_path: Path) -> None:
    """An empty root is pruned without a word."""
    assert prune(tmp_path, rules_of(tmp_path, keep=1, older_than="30", runs=True, now=time.time())) == []
    assert read_pointer(tmp_path) is None


@pytest.mark.parametrize("attempt", range(20))
def test_prune_and_rollback_at_once(five: list[str], tmp_path: Path, attempt: int) -> None:
    """Whoever comes first, LATEST names a whole release: it was pruned and the rollback says so, or it stays."""

    def go_back() -> bool:
        time.sleep(attempt / 4000)
        try:
            rollback(tmp_path, five[0], who="me", why="a drill")
        except (ConflictError, CorruptError, UsageError):
            return False
        return True

    def remove() -> bool:
        fates = prune(tmp_path, rules_of(tmp_path, versions_named=[five[0]], grace_hours=0, now=NOW))
        return any(fate.goes for fate in fates)

    with ThreadPoolExecutor(2) as pool:
        back, gone = pool.submit(go_back), pool.submit(remove)
        assert not (back.result() and gone.result())
    assert follow(tmp_path).version == (five[0] if back.result() else five[4])
    assert (five[0] in versions(tmp_path)) == (not gone.result())
    verify(tmp_path)
