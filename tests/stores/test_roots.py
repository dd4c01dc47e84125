"""A root in a store is used like a folder: a release is whole or absent, a pointer moves once, no byte is stale."""

import fcntl
import multiprocessing
import os
import threading
import time
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from artifacts.digest import canonical_json, file_digest
from artifacts.documents import amend_sealed, read_json, swap_json, write_json
from artifacts.errors import ConflictError, CorruptError, StoreError
from artifacts.layout import RootLayout
from artifacts.mirror import MARKER, mirror_of, open_mirror
from artifacts.release import verify_content_file
from artifacts.remote import REMAINS_SECONDS, Remote
from artifacts.run import Run
from artifacts.store import (
    fetched,
    files_under,
    is_there,
    names_in,
    read_bytes,
    remove_file,
    remove_folder,
    size_of,
    staged_file,
    staged_folder,
    written_at,
)
from release.pointer import LATEST, find_release, follow, move_pointer, point_at, read_pointer, versions
from release.publish import Published, publish
from release.releases import verify
from tests.release.conftest import Night, make_run
from tests.stores.servers import Server


@pytest.fixture
def elsewhere(root: Path, tmp_path: Path) -> Path:
    """The same root, on a machine that has seen nothing of it."""
    mirror = mirror_of(root)
    assert mirror is not None
    return open_mirror(mirror.remote.url, cache=tmp_path / "elsewhere", retry_seconds=5, most_bytes=1 << 40)


def write(path: Path, content: bytes) -> None:
    with staged_file(path) as file:
        file.write(content)


def cached(cache: Path) -> list[Path]:
    return sorted((cache / "sha256").glob("??/[0-9a-f]*"))


def test_files_are_told_as_in_a_folder(root: Path, elsewhere: Path) -> None:
    """What one machine writes, another sees, with its size, its time, and the names beside it."""
    write_json(root / "b" / "deep" / "x.json", {})
    write(root / "a.arrow", b"content")
    for here in (root, elsewhere):
        assert is_there(here / "a.arrow")
        assert not is_there(here / "b")
        assert (size_of(here / "a.arrow"), size_of(here / "none")) == (7, None)
        assert names_in(here) == ["a.arrow", "b"]
        assert names_in(here / "none") == []
        assert files_under(here) == [here / "a.arrow", here / "b" / "deep" / "x.json"]
        assert read_json(here / "b" / "deep" / "x.json") == {}
        assert read_bytes(here / "a.arrow") == b"content"
        assert abs(written_at(here / "a.arrow") - time.time()) < 60
        assert fetched(here / "a.arrow").read_bytes() == b"content"
        with pytest.raises(CorruptError, match="none"):
            read_json(here / "none")
        with pytest.raises(CorruptError, match="none is missing"):
            fetched(here / "none")
    remove_file(elsewhere / "a.arrow")
    assert names_in(root) == ["b"]
    remove_folder(root / "b")
    assert names_in(elsewhere) == []


def test_what_failed_leaves_nothing(root: Path, elsewhere: Path) -> None:
    """A block that raises writes nothing, here or there."""
    with pytest.raises(KeyboardInterrupt), staged_file(root / "a") as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert names_in(elsewhere) == []
    assert [path.name for path in root.iterdir()] == [MARKER]


def test_documents_are_always_fresh(root: Path, elsewhere: Path) -> None:
    """A document that another machine wrote a moment ago is the one that is read."""
    for number in range(3):
        write_json(root / "d.json", {"n": number})
        assert read_json(elsewhere / "d.json") == {"n": number}
        write_json(elsewhere / "d.json", {"n": -number})
        assert read_json(root / "d.json") == {"n": -number}


def test_content_that_was_written_anew_is_fetched_anew(root: Path, elsewhere: Path) -> None:
    """The digest says which bytes are wanted, so that an old copy is never taken for them."""
    for content in (b"one", b"two"):
        write(root / "a.arrow", content)
        digest = file_digest(root / "a.arrow")
        assert fetched(elsewhere / "a.arrow", digest).read_bytes() == content
        assert fetched(elsewhere / "a.arrow").read_bytes() == content
    with pytest.raises(CorruptError, match=r"expected sha256 0000.*changed or swapped"):
        fetched(elsewhere / "a.arrow", "0" * 64)


def test_a_damaged_cache_is_mended(root: Path, elsewhere: Path, tmp_path: Path) -> None:
    """Bytes that changed in the cache are not used: the store is asked again."""
    write(root / "a.arrow", b"content")
    digest = file_digest(root / "a.arrow")
    path = fetched(elsewhere / "a.arrow", digest)
    (entry,) = cached(tmp_path / "elsewhere")
    assert entry.samefile(path)
    entry.write_bytes(b"cOntent")
    assert fetched(elsewhere / "a.arrow", digest).read_bytes() == b"content"
    assert cached(tmp_path / "elsewhere")[0].read_bytes() == b"content"


def test_what_was_used_longest_ago_makes_room(root: Path, tmp_path: Path) -> None:
    """A cache that is too large loses its oldest content with every name of it, but nothing of the last hour."""
    for number in range(4):
        write(root / f"{number}.arrow", bytes([number]) * 1000)
    for number in (0, 1, 2):
        os.utime(root / f"{number}.arrow", (0, time.time() - 7200 + number))
    mirror = mirror_of(root)
    assert mirror is not None
    again = open_mirror(mirror.remote.url, cache=tmp_path / "cache", retry_seconds=5, most_bytes=1500)
    write(again / "new.arrow", b"n")
    assert sorted(path.name for path in root.glob("*.arrow")) == ["3.arrow", "new.arrow"]
    assert len(cached(tmp_path / "cache")) == 2
    assert fetched(again / "0.arrow").read_bytes() == bytes(1000)


def test_what_is_used_at_the_moment_makes_no_room(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that another process takes between the look at its age and its removal stays, under every name."""
    for number in range(2):
        write(root / f"{number}.arrow", bytes([number]) * 1000)
        os.utime(root / f"{number}.arrow", (0, time.time() - 7200 + number))
    mirror = mirror_of(root)
    assert mirror is not None
    again = open_mirror(mirror.remote.url, cache=tmp_path / "cache", retry_seconds=5, most_bytes=500)
    lock = fcntl.flock

    def late(descriptor: int, how: int) -> None:
        lock(descriptor, how)
        if (again / "0.arrow").exists():
            os.utime(again / "0.arrow")

    monkeypatch.setattr("artifacts.mirror.fcntl.flock", late)
    write(again / "new.arrow", b"n")
    assert sorted(path.name for path in root.glob("*.arrow")) == ["0.arrow", "new.arrow"]


def test_a_marker_that_is_not_in_a_cache_says_nothing(tmp_path: Path) -> None:
    """Who may write to a folder above a root does not lead it to a store."""
    (tmp_path / MARKER).write_bytes(canonical_json({"url": "s3://theirs/x", "retry_seconds": 5, "most_bytes": 1}))
    assert mirror_of(tmp_path / "root" / "LATEST") is None
    write_json(tmp_path / "root" / "LATEST", {"n": 1})
    assert read_json(tmp_path / "root" / "LATEST") == {"n": 1}


def test_pointers_move_once(root: Path, elsewhere: Path) -> None:
    """Of two machines that expect the same, one moves the pointer."""
    swap_json(root / "LATEST", expected=None, document={"n": 1})
    for here, wrong in ((elsewhere, None), (root, {"n": 0})):
        with pytest.raises(ConflictError, match="changed by someone else"):
            swap_json(here / "LATEST", expected=wrong, document={"n": 2})
    swap_json(elsewhere / "LATEST", expected={"n": 1}, document={"n": 2})
    assert read_json(root / "LATEST") == {"n": 2}


def amend(path: Path, name: str, times: int) -> None:
    """Add so many numbers to a document, under a name of one's own."""
    for number in range(times):
        amend_sealed(path, lambda said, n=number: {**said, name: [*said.get(name, []), n]}, version=1)


def test_what_several_amend_at_once_is_all_there(root: Path) -> None:
    """Two processes that amend one document lose nothing of each other's."""
    spawn = multiprocessing.get_context("spawn")
    workers = [spawn.Process(target=amend, args=(root / "t.json", name, 8)) for name in "ab"]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    said = read_json(root / "t.json")
    assert (said["a"], said["b"]) == ([*range(8)], [*range(8)])


def test_a_version_appears_whole_and_is_never_rewritten(root: Path, elsewhere: Path) -> None:
    """The manifest comes last; a second writer of the name is told so, and changes nothing."""
    with staged_folder(root / "releases" / "v") as folder:
        write_json(folder / "manifest.json", {"n": 1})
        (folder / "scores").mkdir()
        (folder / "scores" / "a.arrow").write_bytes(b"1")
        assert names_in(elsewhere) == []
    with pytest.raises(ConflictError, match="never rewritten"), staged_folder(elsewhere / "releases" / "v") as folder:
        write_json(folder / "manifest.json", {"n": 2})
    assert fetched(elsewhere / "releases" / "v" / "scores" / "a.arrow").read_bytes() == b"1"
    assert read_json(root / "releases" / "v" / "manifest.json") == {"n": 1}


def published(root: Path, **changes: object) -> Published:
    """Publish a small night, made by hand."""
    night = Night(**changes)  # type: ignore[arg-type]
    return publish(make_run(root, night), root, override="made by hand")


def killed_before_the_manifest(run: Run, root: Path, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Publish, until all is sent but the manifest."""
    create = Remote.create

    def die(remote: Remote, key: str, content: bytes) -> bool:
        if key.endswith("manifest.json"):
            raise StoreError("killed")
        return create(remote, key, content)

    with monkeypatch.context() as dying, pytest.raises(StoreError, match="killed"):
        dying.setattr(Remote, "create", die)
        publish(run, root, override=reason)


def test_a_killed_publisher_leaves_no_release_and_the_next_one_completes_it(
    root: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files without a manifest are no version; the same night, published again, is whole."""
    run = make_run(root, Night())
    killed_before_the_manifest(run, root, "made by hand", monkeypatch)
    assert versions(elsewhere) == []
    assert len(versions(elsewhere, whole=False)) == 1
    assert read_pointer(elsewhere) is None
    done = publish(run, root, override="made by hand")
    assert (done.stored, done.moved) == (True, True)
    assert verify(elsewhere).version == done.version


def test_what_a_killed_publisher_recorded_otherwise_makes_way_after_an_hour(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it may be at work, its record is not overwritten."""
    run = make_run(root, Night())
    killed_before_the_manifest(run, root, "made by hand", monkeypatch)
    (version,) = versions(root, whole=False)
    layout = RootLayout(root).release(version)
    write_json(layout.record.folder / "stray.json", {})
    left = {path: size_of(path) for path in files_under(layout.folder)}
    amend_sealed(run.layout.timings, lambda said: {**said, "score": [{"seconds": 3}]}, version=1)
    with pytest.raises(ConflictError, match="someone else is storing this version"):
        publish(run, root, override="made by hand")
    assert {path: size_of(path) for path in files_under(layout.folder)} == left
    monkeypatch.setattr("artifacts.remote.time.time", lambda now=time.time: now() + REMAINS_SECONDS + 60)
    assert publish(run, root, override="made by hand").stored
    assert read_json(layout.record.timings)["score"] == [{"seconds": 3}]
    assert verify(root).version == version


@pytest.mark.parametrize("moment", ["upload_once", "keys"], ids=["before the record", "before strangers are removed"])
def test_two_machines_that_store_one_version_do_no_harm(
    root: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Who is quicker has published it, and the slower one takes nothing away, neither manifest nor record."""
    run = make_run(elsewhere, Night())
    quicker: list[Published] = []
    original, first = getattr(Remote, moment), threading.Lock()

    def overtaken(remote: Remote, key: str, *rest: Path) -> object:
        if key.startswith("releases/") and first.acquire(blocking=False):
            amend_sealed(run.layout.timings, lambda said: {**said, "score": [{"seconds": 3}]}, version=1)
            with monkeypatch.context() as other:
                other.setattr(Remote, moment, original)
                quicker.append(publish(run, elsewhere, override="made by hand"))
        return original(remote, key, *rest)

    monkeypatch.setattr(Remote, moment, overtaken)
    monkeypatch.setattr("artifacts.remote.REMAINS_SECONDS", 0)
    slower = publish(run, root, override="made by hand")
    assert (slower.stored, slower.moved, slower.current) == (False, False, True)
    (done,) = quicker
    assert done.moved
    assert follow(root).version == verify(elsewhere).version == done.version
    assert read_json(RootLayout(root).release(done.version).record.timings)["score"] == [{"seconds": 3}]
    again = publish(run, root, override="made by hand")
    assert (again.stored, again.moved) == (False, False)


def test_a_slow_zombie_moves_nothing(root: Path, elsewhere: Path) -> None:
    """Who read LATEST before another published finds out, and LATEST names the newer one."""
    first = published(root, date="2026-03-01")
    before = read_pointer(root)
    newer = published(elsewhere, date="2026-03-03", shift=1)
    with pytest.raises(ConflictError, match="changed by someone else"):
        move_pointer(root, LATEST, expected=before, pointer=point_at(find_release(root, first.version), before))
    pointer = read_pointer(root)
    assert pointer is not None
    assert (pointer.version, pointer.sequence) == (newer.version, 2)
    assert versions(root) == [first.version, newer.version]


def swap_to_and_fro(root: Path, names: list[str], times: int, started: Event) -> None:
    """Let LATEST name one release after the other."""
    started.wait(300)
    for number in range(times):
        before, release = read_pointer(root), find_release(root, names[number % len(names)])
        move_pointer(root, LATEST, expected=before, pointer=point_at(release, before))


@pytest.fixture(params=["folder", "s3", "azure"])
def roots(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A root of each kind, as two machines see it."""
    if request.param == "folder":
        return tmp_path / "root", tmp_path / "root"
    server: Server = request.getfixturevalue(request.param)
    for key, value in server.environment.items():
        monkeypatch.setenv(key, value)
    url = server.root()
    one, other = (
        open_mirror(url, cache=tmp_path / name, retry_seconds=5, most_bytes=1 << 40) for name in ("one", "other")
    )
    return one, other


def test_readers_see_whole_releases_through_fifty_swaps(roots: tuple[Path, Path]) -> None:
    """Who follows LATEST while it moves has one release with its own files each time, and never goes back."""
    root, elsewhere = roots
    names = [published(root, date=f"2026-03-0{day}", shift=day).version for day in (1, 2, 3)]
    spawn = multiprocessing.get_context("spawn")
    started = spawn.Event()
    publisher = spawn.Process(target=swap_to_and_fro, args=(root, names, 50, started))
    publisher.start()
    started.set()
    seen, sequence = set(), 0
    while publisher.is_alive() or sequence < 53:
        release = follow(elsewhere)
        assert release.manifest.version == release.version
        path = verify_content_file(release.layout, release.manifest, "scores/00000-of-00002.arrow")
        assert file_digest(path) == release.manifest.files["scores/00000-of-00002.arrow"].sha256
        pointer = read_pointer(elsewhere)
        assert pointer is not None
        assert pointer.sequence >= sequence
        sequence = pointer.sequence
        seen.add(release.version)
    publisher.join(60)
    assert publisher.exitcode == 0
    assert sequence == 53
    assert seen <= set(names)
