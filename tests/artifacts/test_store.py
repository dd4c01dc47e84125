"""Writing whole or not at all, and pointers that swap safely between processes."""

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from multiprocessing.synchronize import Barrier
from pathlib import Path
from subprocess import PIPE
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from artifacts.digest import canonical_json, document_digest, file_digest
from artifacts.documents import read_json, swap_json, write_json
from artifacts.errors import ConflictError, CorruptError
from artifacts.store import (
    STAGING_PREFIX,
    exclusive,
    fetched,
    files_under,
    is_there,
    names_in,
    read_bytes,
    remove_file,
    remove_folder,
    scratch_folder,
    size_of,
    staged_file,
    staged_folder,
    sweep_staged_folders,
    written_at,
)


def test_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    """The name holds the old content until the block ends well; a block that fails changes nothing."""
    path = tmp_path / "new" / "a"
    with staged_file(path) as file:
        file.write(b"one")
        assert not path.exists()
    assert path.read_bytes() == b"one"
    with pytest.raises(KeyboardInterrupt), staged_file(path) as file:
        file.write(b"two")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"one"
    assert [entry.name for entry in path.parent.iterdir()] == ["a"]


def test_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    """A folder takes its name with all that is in it, or leaves nothing behind."""
    with pytest.raises(ZeroDivisionError), staged_folder(tmp_path / "v") as folder:
        (folder / "a").write_bytes(b"1")
        1 / 0  # noqa: B018
    assert list(tmp_path.iterdir()) == []
    with staged_folder(tmp_path / "v") as folder:
        (folder / "deep").mkdir()
        (folder / "deep" / "a").write_bytes(b"1")
        assert not (tmp_path / "v").exists()
    assert (tmp_path / "v" / "deep" / "a").read_bytes() == b"1"


def test_folder_is_never_rewritten(tmp_path: Path) -> None:
    """The second writer of a name is told so, and the first one's content stays."""
    with staged_folder(tmp_path / "v") as first:
        (first / "a").write_bytes(b"1")
    with pytest.raises(ConflictError, match="never rewritten"), staged_folder(tmp_path / "v") as second:
        (second / "a").write_bytes(b"2")
    assert (tmp_path / "v" / "a").read_bytes() == b"1"


def test_content_is_flushed_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each file and folder is brought to the disk before the rename, and the parent after it."""
    calls: list[str] = []
    fsync, rename = os.fsync, Path.rename

    def note_fsync(descriptor: int) -> None:
        calls.append(os.path.realpath(f"/proc/self/fd/{descriptor}"))
        fsync(descriptor)

    def note_rename(source: Path, target: Path) -> Path:
        calls.append("rename")
        return rename(source, target)

    monkeypatch.setattr("artifacts.store.os.fsync", note_fsync)
    monkeypatch.setattr(Path, "rename", note_rename)
    with staged_folder(tmp_path / "v") as folder:
        (folder / "a").write_bytes(b"1")
        staging = str(folder)
    at = calls.index("rename")
    assert {f"{staging}/a", staging} <= set(calls[:at])
    assert calls[at + 1 :] == [str(tmp_path)]


json_documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(document=st.dictionaries(st.text(), json_documents, max_size=4))
@settings(max_examples=25, deadline=None)
def test_digest_of_a_document_does_not_see_the_order_of_keys(document: dict[str, Any]) -> None:
    """Equal documents have equal bytes and digests, whatever order their keys came in."""
    turned = dict(reversed(document.items()))
    assert canonical_json(turned) == canonical_json(document)
    assert document_digest(turned) == document_digest(document)


def test_digests_are_those_of_sha256(tmp_path: Path) -> None:
    """Known values: an empty file, and a document as it stands on disk."""
    path = tmp_path / "a.json"
    path.write_bytes(b"")
    assert file_digest(path) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    write_json(path, {"b": 1, "a": ["ü"]})
    assert path.read_bytes() == '{\n  "a": [\n    "ü"\n  ],\n  "b": 1\n}\n'.encode()
    assert file_digest(path) == document_digest({"a": ["ü"], "b": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"a": float("nan")})
    assert read_json(path) == {"a": ["ü"], "b": 1}


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"3", b"\xff\xfe", b'{"a": 1} x'])
def test_what_is_no_object_is_corrupt(tmp_path: Path, data: bytes) -> None:
    """Whatever is not a JSON object is an error that names the file."""
    path = tmp_path / "a.json"
    path.write_bytes(data)
    with pytest.raises(CorruptError, match=r"a\.json"):
        read_json(path)
    with pytest.raises(CorruptError, match="cannot be read"):
        read_json(tmp_path / "none.json")


def test_swap_needs_what_was_expected(tmp_path: Path) -> None:
    """A pointer moves only from the document that was read; after a lost race it is unchanged."""
    path = tmp_path / "LATEST"
    swap_json(path, expected=None, document={"n": 1})
    with pytest.raises(ConflictError):
        swap_json(path, expected=None, document={"n": 2})
    with pytest.raises(ConflictError):
        swap_json(path, expected={"n": 0}, document={"n": 2})
    assert read_json(path) == {"n": 1}
    swap_json(path, expected={"n": 1}, document={"n": 2})
    assert read_json(path) == {"n": 2}


def count_up(barrier: Barrier, path: Path, times: int, lost: Any) -> None:
    """Add 1 to the pointer *times* times, trying again after each lost race."""
    barrier.wait()
    losses = 0
    for _ in range(times):
        while True:
            found = read_json(path)
            try:
                swap_json(path, expected=found, document={"n": found["n"] + 1})
            except ConflictError:
                losses += 1
            else:
                break
    lost.put(losses)


def make_folder(barrier: Barrier, path: Path, mine: bytes, answers: Any) -> None:
    """Write one folder name at the same moment as another process."""
    barrier.wait()
    try:
        with staged_folder(path) as folder:
            for number in range(20):
                (folder / str(number)).write_bytes(mine)
    except ConflictError:
        answers.put("lost")
    else:
        answers.put("won")


def in_two_processes(target: Callable[..., None], *arguments: tuple[Any, ...]) -> list[Any]:
    """Run *target* in two spawned processes that start together; give what they answered."""
    spawn = multiprocessing.get_context("spawn")
    barrier, answers = spawn.Barrier(2), spawn.Queue()
    workers = [spawn.Process(target=target, args=(barrier, *mine, answers)) for mine in arguments]
    for worker in workers:
        worker.start()
    found = [answers.get(timeout=120) for _ in workers]
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    return found


def test_no_move_of_a_pointer_is_lost_between_processes(tmp_path: Path) -> None:
    """Two processes that each add 30 leave 60: no swap overwrites another."""
    path = tmp_path / "LATEST"
    write_json(path, {"n": 0})
    in_two_processes(count_up, (path, 30), (path, 30))
    assert read_json(path) == {"n": 60}


def test_one_of_two_writers_of_a_folder_wins(tmp_path: Path) -> None:
    """Two processes that write one name: one wins, one is told so, and the content is all of one of them."""
    path = tmp_path / "releases" / "v"
    answers = in_two_processes(make_folder, (path, b"a"), (path, b"b"))
    assert sorted(answers) == ["lost", "won"]
    assert len({entry.read_bytes() for entry in path.iterdir()}) == 1
    assert len(list(path.iterdir())) == 20
    assert {entry.name for entry in path.parent.iterdir()} == {"v", ".lock"}


def test_lock_is_dropped_with_its_block(tmp_path: Path) -> None:
    """A lock can be taken again after a block that failed."""
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), exclusive(tmp_path / "deep" / ".lock"):
            1 / 0  # noqa: B018


def test_what_is_under_a_root_is_told_in_one_way(tmp_path: Path) -> None:
    """Whether a file is there, its size, the names beside it, and all files at any depth."""
    write_json(tmp_path / "b" / "deep" / "x.json", {})
    write_json(tmp_path / "a.json", {"n": 1})
    assert is_there(tmp_path / "a.json")
    assert not is_there(tmp_path / "b")
    assert not is_there(tmp_path / "none")
    assert (size_of(tmp_path / "b" / "deep" / "x.json"), size_of(tmp_path / "none")) == (3, None)
    assert names_in(tmp_path) == ["a.json", "b"]
    assert names_in(tmp_path / "none") == []
    assert files_under(tmp_path) == [tmp_path / "a.json", tmp_path / "b" / "deep" / "x.json"]
    assert read_bytes(tmp_path / "a.json") == b'{\n  "n": 1\n}\n'
    assert fetched(tmp_path / "a.json") == tmp_path / "a.json"
    with pytest.raises(CorruptError, match=r"none: the file is missing"):
        fetched(tmp_path / "none")
    os.utime(tmp_path / "a.json", (5, 7))
    assert (written_at(tmp_path / "a.json"), written_at(tmp_path / "none")) == (7, 0)


def test_the_manifest_of_a_removed_folder_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that is half removed has no manifest, and what is gone already can be removed again."""
    folder = tmp_path / "v"
    write_json(folder / "scores" / "a.json", {})
    write_json(folder / "manifest.json", {})
    left: list[list[str]] = []
    rmtree = shutil.rmtree

    def look(path: Path) -> None:
        left.append([entry.name for entry in files_under(path)])
        rmtree(path)

    monkeypatch.setattr("artifacts.store.shutil.rmtree", look)
    for _ in range(2):
        remove_folder(folder)
    assert left == [["a.json"]]
    assert names_in(tmp_path) == []
    remove_file(folder / "a.json")


HOLDS = """
import sys, time
from pathlib import Path
from artifacts.store import exclusive
with exclusive(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def holding(lock: Path) -> subprocess.Popen[str]:
    """Start a process that takes *lock*, says so, and lets it go when its input ends."""
    return subprocess.Popen([sys.executable, "-c", HOLDS, lock], stdin=PIPE, stdout=PIPE, stderr=PIPE, text=True)


def test_who_waits_for_a_lock_says_for_whom(tmp_path: Path) -> None:
    """A stopped process keeps its lock: who waits names it once; it goes on when that one has ended."""
    lock = tmp_path / ".lock"
    with holding(lock) as first:
        assert first.stdout
        assert first.stdout.readline() == "held\n"
        first.send_signal(signal.SIGSTOP)
        with holding(lock) as second:
            assert second.stderr
            said = second.stderr.readline()
            first.send_signal(signal.SIGCONT)
            first.communicate()
            out, more = second.communicate()

    assert said.startswith(f"nightrec: waiting for process {first.pid} on ")
    assert f"which holds {lock}" in said
    assert (out, more) == ("held\n", "")


def test_what_a_killed_writer_of_a_pointer_left_is_swept(tmp_path: Path) -> None:
    """The next move removes it, and nothing of another name."""
    path = tmp_path / "LATEST"
    for name in (f"{STAGING_PREFIX}ab-LATEST", f"{STAGING_PREFIX}cd-shadow"):
        (tmp_path / name).write_text("half")

    swap_json(path, expected=None, document={"n": 1})

    assert sorted(entry.name for entry in tmp_path.iterdir()) == [
        ".LATEST.lock",
        f"{STAGING_PREFIX}cd-shadow",
        "LATEST",
    ]


def test_scratch_is_gone_afterwards_and_swept_when_its_owner_was_killed(tmp_path: Path) -> None:
    """While its block lasts a scratch folder is nobody else's; a killed one leaves what the next sweep removes."""
    with scratch_folder(tmp_path / "releases") as folder:
        (folder / "big").write_bytes(b"1")
        assert sweep_staged_folders(tmp_path / "releases") == 0
        assert (folder / "big").exists()
    assert names_in(tmp_path / "releases") == []
    code = (
        "import os, pathlib, sys; from artifacts.store import scratch_folder\n"
        "with scratch_folder(pathlib.Path(sys.argv[1])) as folder: (folder / 'big').touch(); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "releases"], check=False)
    assert len(list(tmp_path.glob("releases/.staging-*/big"))) == 1
    assert sweep_staged_folders(tmp_path / "releases") == 1
    assert names_in(tmp_path / "releases") == []
