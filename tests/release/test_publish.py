"""Publishing: a release is whole or absent, says what it holds, and moves LATEST only when it may."""

import json
import multiprocessing
import shutil
import time
from collections.abc import Callable
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pytest

from artifacts.digest import document_digest, file_digest
from artifacts.errors import ConflictError, CorruptError, RefusedError, StaleRunError, UsageError
from artifacts.layout import RootLayout, sidecar_of
from artifacts.release import Manifest, record_problems, verify_release
from artifacts.run import Run
from artifacts.store import STAGING_PREFIX
from artifacts.tables import finish_file
from release.check import check
from release.pointer import earlier_release, follow, move_pointer, point_at, read_pointer, versions
from release.publish import Published, publish
from tests.release.judged import Make, flip, root_of


def tree(folder: Path) -> dict[str, bytes]:
    """Read everything under *folder*."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_release_holds_the_run_without_prepare(night: Make) -> None:
    """The content is the run's files byte for byte, named in the manifest with size, sha256 and rows."""
    run = night()
    check(run, root_of(run), threads=1)
    published = publish(run, root_of(run))
    assert (published.stored, published.moved, published.sequence) == (True, True, 1)
    manifest = verify_release(published.folder)
    content = {name: data for name, data in tree(published.folder).items() if not name.startswith("record/")}
    del content["manifest.json"]
    assert (
        set(content)
        == set(manifest.files)
        == {
            "items/00000-of-00001.arrow",
            *(f"{kind}/{shard:05d}-of-00002.arrow" for kind in ("interests", "scores") for shard in (0, 1)),
            "index/ivf.faiss",
            "index/items.arrow",
            "index/index.json",
        }
    )
    for name, data in content.items():
        assert data == (run.folder / name).read_bytes()
        assert manifest.files[name].size == len(data)
        assert manifest.files[name].sha256 == file_digest(run.folder / name)
    assert manifest.rows("scores") == 600
    assert manifest.parent is None
    assert published.version == f"2026-03-01-{manifest.content_digest[:12]}"
    assert set(tree(published.folder / "record")) == {"gates.json", "record.json", "run.json"}


def test_latest_names_version_and_manifest(released: Callable[..., Published], tmp_path: Path) -> None:
    """LATEST holds exactly version, digest of the manifest, sequence and date, and leads to the release."""
    published = released()
    said = json.loads((tmp_path / "LATEST").read_text())
    assert said.pop("digest") == document_digest(said)
    assert said == {
        "format": 1,
        "version": published.version,
        "manifest_sha256": file_digest(published.folder / "manifest.json"),
        "sequence": 1,
        "date": "2026-03-01",
    }
    assert follow(tmp_path).version == published.version


def test_same_night_in_another_root_gives_the_same_bytes(night: Make, tmp_path: Path) -> None:
    """Content, manifest and LATEST of equal nights are equal, wherever the root lies."""
    run = night()
    check(run, tmp_path, threads=1)
    other = tmp_path / "elsewhere"
    shutil.copytree(tmp_path / "runs", other / "runs")
    copy = Run.read(other / run.folder.relative_to(tmp_path))
    one, two = publish(run, tmp_path), publish(copy, other)
    assert tree(one.folder) == tree(two.folder)
    assert (tmp_path / "LATEST").read_bytes() == (other / "LATEST").read_bytes()


def test_equal_content_is_a_no_op_and_says_so(night: Make) -> None:
    """Publishing twice changes no byte under the root and says that nothing was written."""
    run = night()
    check(run, root_of(run), threads=1)
    first = publish(run, root_of(run))
    before = tree(root_of(run))
    again = publish(run, root_of(run))
    assert tree(root_of(run)) == before
    assert (again.version, again.stored, again.moved, again.sequence) == (first.version, False, False, 1)
    assert (first.current, again.current) == (True, True)  # who lost the first answer still learns it from the second
    assert "nothing is written" in again.note
    assert "names it already" in again.note


def test_unchecked_run_is_refused(night: Make) -> None:
    """Without a verdict nothing is published, and the message says how to get one."""
    run = night()
    with pytest.raises(RefusedError, match="run `nightrec check") as error:
        publish(run, root_of(run))
    assert error.value.exit_code == 3
    assert not RootLayout(root_of(run)).releases.exists()


def test_failed_run_needs_a_reason_that_is_recorded(night: Make) -> None:
    """A refused night is published only with a reason, and the manifest holds the reason and what was overridden."""
    run = night(parameters={"recall": 0.5})
    with pytest.raises(RefusedError):
        check(run, root_of(run), threads=1)
    with pytest.raises(RefusedError, match="recall"):
        publish(run, root_of(run))
    with pytest.raises(UsageError, match="--override: expected words"):
        publish(run, root_of(run), override=" ")
    published = publish(run, root_of(run), override="sale starts today")
    overrides = Manifest.read(published.folder / "manifest.json").overrides
    assert [(entry["reason"], "recall" in entry["found"]) for entry in overrides] == [("sale starts today", True)]
    assert verify_release(published.folder)
    pointer = read_pointer(root_of(run))
    assert pointer
    assert "sale starts today" in pointer.reason


def test_reason_that_was_not_needed_is_not_recorded(night: Make) -> None:
    """A blessed run overrides nothing, whatever reason is given."""
    run = night()
    check(run, root_of(run), threads=1)
    published = publish(run, root_of(run), override="just in case", supersede="just in case")
    assert Manifest.read(published.folder / "manifest.json").overrides == ()


def test_zero_rows_are_never_published(night: Make) -> None:
    """No reason publishes an empty night."""
    run = night(scores=lambda table: table.slice(0, 0))
    with pytest.raises(RefusedError):
        check(run, root_of(run), threads=1)
    with pytest.raises(RefusedError, match="zero rows"):
        publish(run, root_of(run), override="I insist")


def test_verdict_about_other_content_does_not_bless(night: Make) -> None:
    """A file that was written anew after the check makes the verdict void."""
    run = night()
    check(run, root_of(run), threads=1)
    run.layout.index.ivf.write_bytes(b"another index")
    finish_file(run.layout.index.ivf, inputs="i")
    with pytest.raises(RefusedError, match="judges other content"):
        publish(run, root_of(run))


def test_changed_verdict_is_found(night: Make) -> None:
    """A verdict that was edited by hand is no verdict."""
    run = night(parameters={"recall": 0.5})
    with pytest.raises(RefusedError):
        check(run, root_of(run), threads=1)
    gates = run.layout.record.gates
    gates.write_text(gates.read_text().replace('"fail"', '"warn"'))
    with pytest.raises(CorruptError, match=r"gates\.json"):
        publish(run, root_of(run))
    with pytest.raises(RefusedError):
        check(run, root_of(run), threads=1)  # a new check mends the record
    assert list(record_problems(run.layout.record)) == []


@pytest.mark.parametrize("name", ["scores/00001-of-00002.arrow", "index/ivf.faiss", "items/00000-of-00001.arrow"])
def test_changed_byte_is_found_while_copying(night: Make, name: str) -> None:
    """The sidecar is the truth: a byte changed after the check is named, and no release, not even half, is left."""
    run = night()
    check(run, root_of(run), threads=1)
    flip(run.folder / name)
    with pytest.raises(CorruptError, match=name):
        publish(run, root_of(run))
    assert versions(root_of(run)) == []
    assert [p for p in RootLayout(root_of(run)).releases.iterdir() if p.name.startswith(STAGING_PREFIX)] == []
    assert read_pointer(root_of(run)) is None


def test_missing_file_and_missing_sidecar_are_told_apart(night: Make) -> None:
    """A file that vanished is corruption; one without a sidecar was never finished."""
    run = night()
    check(run, root_of(run), threads=1)
    path = run.layout.scores(0, 2)
    path.unlink()
    with pytest.raises(CorruptError, match="missing"):
        publish(run, root_of(run))
    sidecar_of(path).unlink()
    with pytest.raises(StaleRunError):
        publish(run, root_of(run))


def test_lost_race_is_a_conflict(night: Make, released: Callable[..., Published], tmp_path: Path) -> None:
    """Who read the pointer before it moved cannot move it: exit 4, and the winner stays."""
    first = released()
    stale = read_pointer(tmp_path)
    second = released(date="2026-03-02", shift=1)
    with pytest.raises(ConflictError) as error:
        move_pointer(tmp_path, "LATEST", expected=stale, pointer=point_at(follow(tmp_path), stale))
    assert error.value.exit_code == 4
    with pytest.raises(ConflictError):
        move_pointer(tmp_path, "LATEST", expected=None, pointer=point_at(follow(tmp_path), None))
    assert follow(tmp_path).version == second.version != first.version


def test_a_night_is_never_published_past_one_that_it_was_not_compared_with(
    night: Make, released: Callable[..., Published], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is published once it is known which release readers have had makes the verdict's night a conflict."""
    released()
    run = night(date="2026-03-03", shift=2)
    check(run, root_of(run), threads=1)
    meanwhile: list[Published] = []

    def slow(*asked: Any) -> Any:
        found = earlier_release(*asked)
        with monkeypatch.context() as other:
            other.setattr("release.publish.earlier_release", earlier_release)
            meanwhile.append(released(date="2026-03-02", shift=1))
        return found

    monkeypatch.setattr("release.publish.earlier_release", slow)
    with pytest.raises(ConflictError, match="changed by someone else"):
        publish(run, root_of(run))
    assert follow(root_of(run)).version == meanwhile[0].version


def publish_at(barrier: Barrier, root: Path, folder: Path, reason: str, answers: Any) -> None:
    """Publish in a process of its own, at the same moment as another."""
    run = Run.read(folder)
    barrier.wait()
    try:
        answers.put(("done", publish(run, root, supersede=reason).version))
    except ConflictError:
        answers.put(("conflict", ""))


def test_two_publishers_at_once_leave_one_winner(night: Make, tmp_path: Path) -> None:
    """Two processes that publish two contents of a date: every version is whole, LATEST is one who said it won."""
    runs = [night(shift=shift) for shift in (0, 1)]
    for run in runs:
        check(run, tmp_path, threads=1)
    spawn = multiprocessing.get_context("spawn")
    barrier, answers = spawn.Barrier(2), spawn.Queue()
    workers = [
        spawn.Process(target=publish_at, args=(barrier, tmp_path, run.folder, "a race", answers)) for run in runs
    ]
    for worker in workers:
        worker.start()
    found = [answers.get(timeout=120) for _ in workers]
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    winners = [version for said, version in found if said == "done"]
    pointer = read_pointer(tmp_path)
    assert pointer
    assert pointer.sequence == len(winners) >= 1
    assert follow(tmp_path).version in winners
    for version in versions(tmp_path):
        verify_release(RootLayout(tmp_path).release(version).folder)


def test_killed_publisher_leaves_no_release(night: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a publisher leaves that died before the rename is not a release, and the next one succeeds."""
    run = night()
    check(run, root_of(run), threads=1)
    monkeypatch.setattr("artifacts.store.shutil.rmtree", lambda *_, **__: None)  # as if the process were gone

    def die(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as dying:
        dying.setattr(Manifest, "write", die)
        with pytest.raises(KeyboardInterrupt):
            publish(run, root_of(run))
    assert list(RootLayout(root_of(run)).releases.iterdir())
    assert versions(root_of(run)) == []
    assert publish(run, root_of(run)).stored


def publish_and_hang(root: Path, folder: Path, writing: Any) -> None:
    """Publish, and hang when all files but the manifest are written."""

    def hang(*_: Any, **__: Any) -> None:
        writing.set()
        time.sleep(600)

    Manifest.write = hang  # type: ignore[method-assign]  # in a process of its own
    publish(Run.read(folder), root)


def test_what_a_killed_publisher_left_is_swept(night: Make, tmp_path: Path) -> None:
    """The next publisher removes the folder of one that was killed, and leaves that of one who is still writing."""
    runs = [night(date=f"2026-03-0{day}") for day in (1, 2, 3)]
    check(runs[0], tmp_path, threads=1)
    releases = RootLayout(tmp_path).releases
    spawn = multiprocessing.get_context("spawn")
    writing = spawn.Event()
    worker = spawn.Process(target=publish_and_hang, args=(tmp_path, runs[0].folder, writing))
    worker.start()
    try:
        assert writing.wait(timeout=120)
        (staged,) = releases.glob(".staging-*/")
        check(runs[1], tmp_path, threads=1)
        publish(runs[1], tmp_path)
        assert (staged / "index" / "ivf.faiss").exists()
    finally:
        worker.kill()
        worker.join()
    assert list(releases.glob(".staging-*"))
    check(runs[2], tmp_path, threads=1)
    publish(runs[2], tmp_path)
    assert list(releases.glob(".staging-*")) == []
    assert len(versions(tmp_path)) == 2


def test_release_tells_what_it_was_made_with(released: Callable[..., Published], night: Make) -> None:
    """The record holds the run's document, checked like the rest of it, and outside of the manifest."""
    published = released()
    record = RootLayout(published.folder.parents[1]).release(published.version).record
    assert json.loads(record.run.read_text()) == night().document()
    manifest = verify_release(published.folder)
    assert not any("run.json" in name for name in manifest.files)
    flip(record.run)
    with pytest.raises(CorruptError, match=r"run\.json"):
        verify_release(published.folder)


def test_interrupted_between_store_and_pointer_is_resumed(night: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A publisher that died after the rename left a stored release; publishing again moves LATEST to it."""
    run = night()
    check(run, root_of(run), threads=1)

    def die(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as dying:
        dying.setattr("release.publish.move_pointer", die)
        with pytest.raises(KeyboardInterrupt):
            publish(run, root_of(run))
    assert read_pointer(root_of(run)) is None
    again = publish(run, root_of(run))
    assert (again.stored, again.moved) == (False, True)
