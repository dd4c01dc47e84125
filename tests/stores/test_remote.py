"""What is sent to a store has arrived, what fails is tried again in time, and nothing secret is said."""

import hashlib
import multiprocessing
import os
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from artifacts.errors import ConflictError, CorruptError, StoreError
from artifacts.remote import REMAINS_SECONDS, Remote
from tests.stores.servers import BUCKET, SECRET, Proxy, Request, Server, azure_environment, put_behind_our_back

MANY = 17 << 20  # three parts


def made(path: Path, size: int) -> bytes:
    content = hashlib.shake_128(str(size).encode()).digest(size)
    path.write_bytes(content)
    return content


@pytest.mark.parametrize("size", [0, 1000, MANY])
def test_what_is_sent_comes_back(remote: Remote, tmp_path: Path, size: int) -> None:
    """A file comes back byte for byte, in one part or in several, and the store says its digest."""
    content = made(tmp_path / "a", size)
    sha256 = hashlib.sha256(content).hexdigest()
    assert remote.upload("deep/a", tmp_path / "a") == sha256
    stat = remote.stat("deep/a")
    assert stat is not None
    assert (stat.size, stat.sha256) == (size, sha256)
    assert abs(stat.written - time.time()) < 60
    assert remote.download("deep/a", tmp_path / "b") == (sha256, size)
    assert (tmp_path / "b").read_bytes() == content


def test_what_is_not_there_is_none(remote: Remote, tmp_path: Path) -> None:
    """A missing object is no error, and can be removed again."""
    assert remote.stat("none") is None
    assert remote.read("none", most=10) is None
    assert remote.download("none", tmp_path / "a") is None
    assert remote.names("") == remote.keys("") == []
    remote.delete(["none", "nor this"])


def test_names_are_those_of_a_folder(remote: Remote) -> None:
    """Folders and objects are named once each; a name that begins alike is another."""
    for key in ("a/x/1", "a/x/2", "a/y", "ab/z", "c"):
        remote.write(key, b"1")
    assert remote.names("") == ["a", "ab", "c"]
    assert remote.names("a") == ["x", "y"]
    assert remote.keys("a") == ["a/x/1", "a/x/2", "a/y"]
    remote.delete(["a/x/1", "gone", "a/y"])
    assert remote.keys("") == ["a/x/2", "ab/z", "c"]


def test_swaps_compare(remote: Remote) -> None:
    """A document is created once, and replaced only by who knows what stands there."""
    assert remote.create("p", b"1")
    assert not remote.create("p", b"2")
    before = remote.read("p", most=10)
    assert before is not None
    assert remote.swap("p", b"3", before[1].version)
    assert not remote.swap("p", b"4", before[1].version)
    assert not remote.swap("none", b"4", before[1].version)
    after = remote.read("p", most=10)
    assert after is not None
    assert after[0] == b"3"
    remote.require_swaps()
    assert remote.keys("") == ["p"]


def count_up(remote: Remote, times: int) -> None:
    """Add 1 to a number so many times, after each lost race again."""
    for _ in range(times):
        while True:
            found = remote.read("n", most=100)
            assert found is not None
            if remote.swap("n", str(int(found[0]) + 1).encode(), found[1].version):
                break


def test_no_swap_is_lost_between_processes(remote: Remote) -> None:
    """Three processes that each add 15 leave 45."""
    remote.write("n", b"0")
    spawn = multiprocessing.get_context("spawn")
    workers = [spawn.Process(target=count_up, args=(remote, 15)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    found = remote.read("n", most=100)
    assert found is not None
    assert found[0] == b"45"


def test_a_version_is_not_rewritten(remote: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same bytes are left alone; others are refused while they are young, and make way when they are old."""
    for size in (100, MANY):
        path, key = tmp_path / str(size), f"v/{size}"
        made(path, size)
        remote.upload_once(key, path)
        before = remote.stat(key)
        remote.upload_once(key, path)
        assert remote.stat(key) == before
        path.write_bytes(path.read_bytes()[::-1])
        with pytest.raises(ConflictError, match="someone else is storing this version"):
            remote.upload_once(key, path)
        assert remote.stat(key) == before
        with monkeypatch.context() as later:
            later.setattr("artifacts.remote.time.time", lambda now=time.time: now() + REMAINS_SECONDS + 60)
            assert remote.upload_once(key, path) == hashlib.sha256(path.read_bytes()).hexdigest()


def test_other_bytes_than_were_sent_are_not_taken(s3: Server, proxy: Proxy, behind: Remote, tmp_path: Path) -> None:
    """An object that is changed in the store is named, and what others put there has no digest of ours."""
    del proxy
    said = {"x-amz-meta-sha256": hashlib.sha256(b"good").hexdigest()}
    put_behind_our_back(s3, behind.url, "a", b"evil", **said)
    with pytest.raises(CorruptError, match=rf"{behind.url}/a: expected 4 bytes with sha256 .* changed in the store"):
        behind.download("a", tmp_path / "a")
    put_behind_our_back(s3, behind.url, "b", b"theirs")
    stat = behind.stat("b")
    assert stat is not None
    assert stat.sha256 == ""
    assert behind.download("b", tmp_path / "b") == (hashlib.sha256(b"theirs").hexdigest(), 6)


def test_a_document_of_absurd_size_is_not_read(remote: Remote) -> None:
    """What is too large for a document is refused by what the store says of it."""
    remote.write("a", b"x" * 100)
    with pytest.raises(CorruptError, match="at most 99 bytes, found 100"):
        remote.read("a", most=99)


def times(n: int, method: str, word: str, **changes: Any) -> Callable[[Request], None]:
    """Meddle with the first *n* requests of a method on an object whose path holds a word."""
    left = iter(range(n))

    def meddle(request: Request) -> None:
        if request.method == method and word in request.path and next(left, None) is not None:
            for name, value in changes.items():
                setattr(request, name, value)

    return meddle


SLOW_DOWN = (503, b"<Error><Code>SlowDown</Code></Error>")
BROKEN = (500, b"<Error><Code>InternalError</Code></Error>")
TOO_LATE = (400, b"<Error><Code>RequestTimeout</Code></Error>")


@pytest.mark.parametrize("answer", [SLOW_DOWN, BROKEN, TOO_LATE])
@pytest.mark.parametrize("method", ["PUT", "GET"])
def test_a_store_in_trouble_is_asked_again(
    proxy: Proxy, behind: Remote, tmp_path: Path, method: str, answer: tuple[int, bytes]
) -> None:
    """Errors of the server and throttling pass, for content and for documents."""
    content = made(tmp_path / "a", MANY)
    proxy.meddle = times(3, method, "/a", answer=answer)
    behind.upload("a", tmp_path / "a")
    assert behind.download("a", tmp_path / "b") == (hashlib.sha256(content).hexdigest(), MANY)
    proxy.meddle = times(2, method, "/p", answer=answer)
    assert behind.create("p", b"1")
    assert behind.read("p", most=10) is not None


def test_a_transfer_that_breaks_off_is_taken_up_again(proxy: Proxy, behind: Remote, tmp_path: Path) -> None:
    """An answer that is cut in the middle is completed, and verified as a whole."""
    content = made(tmp_path / "a", MANY)
    behind.upload("a", tmp_path / "a")
    proxy.meddle = times(2, "GET", "/a", cut_after=3_000_000)
    assert behind.download("a", tmp_path / "b") == (hashlib.sha256(content).hexdigest(), MANY)
    assert (tmp_path / "b").read_bytes() == content


@pytest.mark.parametrize("after", [0, 1, 100])
def test_a_listing_that_breaks_off_is_asked_for_again(proxy: Proxy, behind: Remote, after: int) -> None:
    """The library itself gives up where the answer to a listing ends too early; a night does not."""
    behind.write("a/b", b"x")
    left = [2]

    def meddle(request: Request) -> None:
        if "list-type" in request.path and left[-1]:
            left[-1] -= 1
            request.cut_after = after

    proxy.meddle = meddle

    assert behind.names("a") == ["b"]
    left[-1] = 2
    assert behind.keys("a") == ["a/b"]


@pytest.mark.parametrize("often", [1, 3])
def test_a_lost_answer_to_a_swap_counts_once(proxy: Proxy, behind: Remote, often: int) -> None:
    """A conditional write that was done, and of which nobody heard, is ours; another's is not."""
    behind.write("p", b"0")
    before = behind.read("p", most=10)
    assert before is not None
    proxy.meddle = times(often, "PUT", "/p", lose_answer=True)
    assert behind.swap("p", b"1", before[1].version)
    assert not behind.swap("p", b"2", before[1].version)
    found = behind.read("p", most=10)
    assert found is not None
    assert found[0] == b"1"


def test_a_lost_answer_to_a_swap_that_another_won_is_no_victory(proxy: Proxy, behind: Remote) -> None:
    """Where somebody else was quicker, and our answer is lost too, we have lost."""
    assert behind.create("p", b"theirs")
    proxy.meddle = times(1, "PUT", "/p", lose_answer=True)
    assert not behind.create("p", b"ours")
    found = behind.read("p", most=10)
    assert found is not None
    assert found[0] == b"theirs"


@pytest.mark.parametrize("method", ["PUT", "POST"])
def test_a_lost_answer_to_an_upload_is_no_loss(proxy: Proxy, behind: Remote, tmp_path: Path, method: str) -> None:
    """Parts, their completion and whole files are sent again where nobody heard that they arrived."""
    content = made(tmp_path / "a", MANY)
    proxy.meddle = times(2, method, "/a", lose_answer=True)
    behind.upload("a", tmp_path / "a")
    assert behind.download("a", tmp_path / "b") == (hashlib.sha256(content).hexdigest(), MANY)


def uploads_left(server: Server) -> bytes:
    """Ask the store for multipart uploads that nobody has finished."""
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/{BUCKET}?uploads") as found:
        listed: bytes = found.read()
    return listed


def test_an_upload_that_fails_is_never_visible(s3: Server, proxy: Proxy, behind: Remote, tmp_path: Path) -> None:
    """Where a part is refused, there is no object, no half of one, and no parts are left."""
    made(tmp_path / "a", MANY)
    proxy.meddle = times(99, "PUT", "partNumber=2", answer=(403, b"<Error><Code>AccessDenied</Code></Error>"))
    with pytest.raises(StoreError, match=r"refuses us \(403 AccessDenied\)"):
        behind.upload("a", tmp_path / "a")
    assert behind.stat("a") is None
    assert behind.url.rpartition("/")[2].encode() not in uploads_left(s3)


def test_bytes_that_changed_on_their_way_are_found(proxy: Proxy, behind: Remote, tmp_path: Path) -> None:
    """What the store holds is compared after writing; what it should not hold is removed again."""

    def flip(request: Request) -> None:
        if request.method == "PUT" and request.body:
            request.body = bytes([request.body[0] ^ 1]) + request.body[1:]

    made(tmp_path / "a", 1000)
    proxy.meddle = flip
    with pytest.raises(StoreError, match="does not hold what was sent"):
        behind.upload("a", tmp_path / "a")
    with pytest.raises(StoreError, match="does not hold what was sent"):
        behind.write("b", b"content")
    with pytest.raises(StoreError, match="does not hold what was sent"):
        behind.upload_once("c", tmp_path / "a")
    assert behind.keys("") == []


@pytest.mark.parametrize("header", ["If-None-Match", "If-Match"])
def test_a_store_that_ignores_conditions_is_refused(proxy: Proxy, behind: Remote, header: str) -> None:
    """Where a second create, or a stale update, succeeds, no pointer is trusted to the store."""

    def forget(request: Request) -> None:
        request.headers = {name: value for name, value in request.headers.items() if name.lower() != header.lower()}

    proxy.meddle = forget
    with pytest.raises(StoreError, match=r"does not honour conditional writes .* docs/stores\.md"):
        behind.require_swaps()
    assert behind.keys("") == []


def test_a_store_that_is_not_there_is_said_in_time(monkeypatch: pytest.MonkeyPatch, s3: Server) -> None:
    """A refused connection is tried for the declared time, and said in one line without a secret."""
    for key, value in {**s3.environment, "AWS_ENDPOINT_URL": "http://127.0.0.1:9"}.items():
        monkeypatch.setenv(key, value)
    remote = Remote(s3.root(), 1)
    start = time.monotonic()
    with pytest.raises(StoreError) as error:
        remote.write("a", b"1")
    assert str(error.value) == (
        f"{remote.url}: writing a failed: the store cannot be reached, tried for 1 seconds; "
        "is its address right, and the network up?"
    )
    assert time.monotonic() - start > 0.5


def test_a_store_that_stays_broken_is_said(proxy: Proxy, behind: Remote) -> None:
    """A server that always fails ends in its own words for it, and in an error that may be tried again."""
    proxy.meddle = times(10**6, "PUT", "/a", answer=BROKEN)
    with pytest.raises(StoreError, match="the store answers 500 InternalError, tried for 3 seconds") as error:
        behind.write("a", b"1")
    assert error.value.exit_code == 1
    assert error.value.__cause__ is None
    assert error.value.__suppress_context__


@pytest.mark.parametrize(
    ("status", "code"), [(403, "SignatureDoesNotMatch"), (400, "ExpiredToken"), (403, "InvalidAccessKeyId")]
)
def test_wrong_credentials_are_said_at_once(proxy: Proxy, behind: Remote, status: int, code: str) -> None:
    """A store that refuses us is not asked again; its answer, which may quote us, is not repeated."""
    body = f"<Error><Code>{code}</Code><StringToSign>{SECRET}</StringToSign></Error>".encode()
    proxy.meddle = lambda request: setattr(request, "answer", (status, body))
    for ask in (lambda: behind.stat("a"), lambda: behind.create("a", b"1"), lambda: behind.write("a", b"1")):
        proxy.seen.clear()
        with pytest.raises(StoreError, match="refuses us") as error:
            ask()
        assert SECRET not in str(error.value)
        assert len(proxy.seen) == 1


def test_azure_refuses_a_wrong_key(azure: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server itself refuses a signature, and the message tells so without the key."""
    for key, value in azure_environment(azure.port, "d3Jvbmdrb3dyb25na2V5d3Jvbmdrb3dyb25na2V5").items():
        monkeypatch.setenv(key, value)
    with pytest.raises(StoreError, match=r"refuses us \(403 AuthorizationFailure\)") as error:
        Remote(azure.root(), 3).write("a", b"1")
    assert "d3Jvbmdr" not in str(error.value)


def test_a_bucket_that_is_not_there_is_said(s3: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first write names the bucket."""
    for key, value in s3.environment.items():
        monkeypatch.setenv(key, value)
    with pytest.raises(StoreError, match="there is no bucket or container nowhere"):
        Remote("s3://nowhere/x", 3).require_swaps()


def test_the_usual_files_tell_who_we_are(s3: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A profile of the AWS files is used where the environment names no key."""
    (tmp_path / "credentials").write_text(
        "[default]\naws_access_key_id = no\n[job]\naws_access_key_id = id\naws_secret_access_key = key\n"
    )
    (tmp_path / "config").write_text("[profile job]\nregion = us-east-1\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_PROFILE", "job")
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.environment["AWS_ENDPOINT_URL"])
    assert "AWS_ACCESS_KEY_ID" not in os.environ
    remote = Remote(s3.root(), 3)
    remote.write("a", b"1")
    assert remote.read("a", most=10) is not None
