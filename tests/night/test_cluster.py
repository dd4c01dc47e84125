"""Nights over a Ray cluster of two nodes: the bytes of a local night, whoever dies on the way."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

import pytest

from artifacts.layout import RunLayout
from artifacts.run import find_run
from artifacts.store import exclusive
from tests.night.shop import DATE, Shop, content_of, only_release, run_nightrec
from tests.stores.servers import Server, s3
from tests.stores.test_nights import config_for, content_in, mirror

pytestmark = pytest.mark.ray
SHARDS = 3
ON_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}  # else 127.0.0.1 becomes the address of this machine
DEADLINE = 300  # seconds until what does not come about is a failure


@dataclass(frozen=True)
class Cluster:
    """The process whose nodes it has, its address, where its caches lie, and a store that its nodes reach."""

    process: subprocess.Popen[str]
    address: str
    folder: Path
    store: Server

    def lose_node(self, raylet: int) -> None:
        assert self._told(str(raylet)) == "gone"

    def add_node(self) -> None:
        assert self._told("") == "there"

    def _told(self, line: str) -> str:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder for sockets, whose names must be short."""
    folder = Path(tempfile.mkdtemp(prefix="ray-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Two nodes of one core each; they are gone when the test is, however it ends."""
    folder = Path(tempfile.mkdtemp(prefix="ray-"))
    command = [sys.executable, "-m", "tests.night.cluster", folder]
    with (
        s3() as store,
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **store.environment, "NIGHTREC_CACHE": str(folder / "head")},
        ) as process,
    ):
        assert process.stdin
        assert process.stdout
        address = process.stdout.readline().strip()
        assert address, "the cluster did not come about"
        yield Cluster(process, address, folder, store)
        process.stdin.close()
        assert process.wait(DEADLINE) == 0
    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def night_on(address: str, config: Path, *verb: str, temporary: Path = Path("/tmp")) -> Iterator[subprocess.Popen[str]]:
    """Start a night over two workers of the cluster at *address*, in a session of its own."""
    starts = (
        "import signal, sys; from nightrec.main import main;"
        "signal.signal(signal.SIGINT, signal.default_int_handler); main()"  # a suite in the background ignores it
    )
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            starts,
            *(verb or ("run",)),
            "--config",
            config,
            "--date",
            DATE,
            "--engine",
            "ray",
            "--workers",
            "2",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **(ON_LOOPBACK if address else {}), "RAY_ADDRESS": address, "RAY_TMPDIR": str(temporary)},
        start_new_session=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def held(locks: Sequence[Path]) -> Iterator[None]:
    """Let whoever begins the shards of these *locks* wait in the middle of them."""
    with ExitStack() as stack:
        for lock in locks:
            lock.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(exclusive(lock))
        yield


def locks_of(run: RunLayout, table: Callable[[int, int], Path]) -> list[Path]:
    return [table(shard, SHARDS).with_name(f".{table(shard, SHARDS).name}.lock") for shard in range(SHARDS)]


def waiting_at(locks: Sequence[Path], *, workers: int) -> list[int]:
    """Wait until so many workers of a cluster stand before *locks*; give their process ids."""
    names = {str(lock) for lock in locks}
    found: list[int] = []
    end = time.monotonic() + DEADLINE
    while len(found) < workers:
        assert time.monotonic() < end, f"no {workers} workers came to {locks[0]}"
        time.sleep(0.05)
        found = [pid for pid in workers_alive() if names & opened_by(pid)]
    return found


def workers_alive() -> list[int]:
    return [int(path.name) for path in Path("/proc").glob("[0-9]*") if title_of(path).startswith("ray::Worker")]


def title_of(process: Path) -> str:
    try:
        return (process / "cmdline").read_text()
    except OSError:  # it has ended meanwhile
        return ""


def opened_by(pid: int) -> set[str]:
    try:
        return {str(file.readlink()) for file in Path(f"/proc/{pid}/fd").iterdir()}
    except OSError:
        return set()


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.05)


def prepared(config: Path) -> RunLayout:
    finished = run_nightrec("prepare", "--config", config, "--date", DATE)
    assert finished.returncode == 0, finished.stderr
    return find_run(config.parent / "store", DATE).layout


def test_a_stopped_night_goes_on_and_the_cluster_stays(
    shop: Shop, plain: Path, cluster: Cluster, tmp_path: Path
) -> None:
    """Ctrl-C ends the workers, not the cluster; the night that goes on there gives the bytes of a local one."""
    config = shop.config(tmp_path)
    run = prepared(config)
    locks = locks_of(run, run.scores)

    with held(locks), night_on(cluster.address, config) as night:
        workers = waiting_at(locks, workers=2)
        os.killpg(night.pid, signal.SIGINT)
        _, err = night.communicate(timeout=DEADLINE)
        wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))

    assert night.returncode == 128 + signal.SIGINT, err
    assert err.count("stopped by SIGINT; what is finished stays") == 1
    assert "Traceback" not in err
    with night_on(cluster.address, config) as night:
        _, err = night.communicate(timeout=DEADLINE)
    assert night.returncode == 0, err
    assert "interests: done already" in err
    assert content_of(only_release(tmp_path / "store")) == content_of(only_release(plain / "store"))


def test_a_worker_killed_and_a_node_lost_change_no_byte(
    shop: Shop, plain: Path, cluster: Cluster, tmp_path: Path
) -> None:
    """Shards that were begun are given to others: a new worker, or those of the machine that is left."""
    config = shop.config(tmp_path)
    run = prepared(config)
    interests, scores = locks_of(run, run.interests), locks_of(run, run.scores)

    with ExitStack() as both, night_on(cluster.address, config) as night:
        first = both.enter_context(ExitStack())
        both.enter_context(held(scores))
        first.enter_context(held(interests))
        victim, _ = waiting_at(interests, workers=2)
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: not Path(f"/proc/{victim}").exists())
        assert victim not in waiting_at(interests, workers=2)
        first.close()
        nodes = {parent_of(pid): pid for pid in waiting_at(scores, workers=2)}
        (away,) = set(nodes) - {head_of(cluster)}
        cluster.lose_node(away)
        wait_until(lambda: not Path(f"/proc/{nodes[away]}").exists())
        both.close()
        _, err = night.communicate(timeout=DEADLINE)
    cluster.add_node()

    assert night.returncode == 0, err
    assert "nightrec: interests: a worker is lost; shard" in err
    assert "nightrec: score: a worker is lost; shard" in err
    assert content_of(only_release(tmp_path / "store")) == content_of(only_release(plain / "store"))


def head_of(cluster: Cluster) -> int:
    """The raylet of the node that must not be lost: the first that was started."""
    children = [int(path.name) for path in Path("/proc").glob("[0-9]*") if "raylet/raylet" in title_of(path)]
    return min(pid for pid in children if parent_of(pid) == cluster.process.pid)


def test_an_error_of_a_worker_is_the_line_of_a_local_one(plain: Path, cluster: Cluster, tmp_path: Path) -> None:
    """A changed file is found where it is read; the line and the code say nothing of where that was."""
    shutil.copytree(plain, tmp_path / "night")
    config = tmp_path / "night" / "job.toml"
    run = find_run(config.parent / "store", DATE).layout
    shutil.rmtree(run.scores(0, SHARDS).parent)
    changed = run.interests(1, SHARDS)
    content = bytearray(changed.read_bytes())
    content[len(content) // 2] ^= 1
    changed.write_bytes(content)

    with night_on(cluster.address, config, "score") as night:
        _, err = night.communicate(timeout=DEADLINE)
    local = run_nightrec("score", "--config", config, "--date", DATE)

    assert (night.returncode, err.splitlines()[-1]) == (4, local.stderr.splitlines()[-1])
    assert str(changed) in err
    assert "Traceback" not in err


DEADLY = """
import os, sys
from artifacts.errors import NightrecError
from artifacts.run import StepResult
from batch.cluster import joined_cluster, run_shards
def open_():
    return lambda shards, advance: os._exit(7) if shards == [1] else StepResult("items", 1, 0, 5, {})
def run(shards):
    return run_shards(open_, shards, workers=2, cores=1, gpus=0, done=done.append, say=say)
def say(text):
    print(text, file=sys.stderr)
done = []
with joined_cluster():
    results = run([0, 2, 3])
    try:
        run([0, 1])
    except NightrecError as error:
        say(error)
assert sum(result.rows for result in results) == 15
assert set(done) == {0, 2, 3}
"""


def test_a_shard_that_takes_three_workers_with_it_ends_the_step(cluster: Cluster) -> None:
    """What dies of its own shard is not tried for ever, and the shard is named."""
    finished = subprocess.run(
        [sys.executable, "-c", DEADLY],
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE,
        env={**os.environ, **ON_LOOPBACK, "RAY_ADDRESS": cluster.address},
    )

    assert finished.returncode == 0, finished.stderr
    assert finished.stdout == ""  # which is for what --json answers
    *told, ended = finished.stderr.splitlines()
    assert [line.partition(", which")[0] for line in told] == ["a worker is lost; shard 1"] * 2
    assert ended.startswith("shard 1: its workers die, 3 of them so far")


def test_machines_that_share_a_store_and_nothing_else(
    shop: Shop, plain: Path, cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has a cache of its own, and what they make meets in the store."""
    for key, value in {**cluster.store.environment, "NIGHTREC_CACHE": str(tmp_path / "cache")}.items():
        monkeypatch.setenv(key, value)
    url = cluster.store.root()

    with night_on(cluster.address, config_for(shop, tmp_path, url)) as night:
        _, err = night.communicate(timeout=DEADLINE)

    assert night.returncode == 0, err
    assert content_in(mirror(url, tmp_path / "reader")) == content_of(only_release(plain / "store"))
    caches = [cluster.folder / name for name in ("head", "cache")]
    made = {path.name for cache in caches for path in cache.rglob(f"scores/*-of-{SHARDS:05}.arrow")}
    assert len(made) == SHARDS


def test_without_a_cluster_it_has_one_of_its_own(plain: Path, tmp_path: Path, short: Path) -> None:
    """It listens on the loopback alone, and is gone when the night is."""
    shutil.copytree(plain, tmp_path / "night")
    config = tmp_path / "night" / "job.toml"
    run = find_run(config.parent / "store", DATE).layout
    shutil.rmtree(run.scores(0, SHARDS).parent)
    locks = locks_of(run, run.scores)

    with held(locks), night_on("", config, "score", temporary=short) as night:
        waiting_at(locks, workers=1)  # it takes as many as there are cores
        listening = listened_to_by(session_of(night.pid))
        night.terminate()
        night.communicate(timeout=DEADLINE)
        wait_until(lambda: not session_of(night.pid))

    assert night.returncode == 128 + signal.SIGTERM
    assert listening == {"127.0.0.1"}


def session_of(leader: int) -> list[int]:
    found = []
    for pid in [int(path.name) for path in Path("/proc").glob("[0-9]*")]:
        with suppress(ProcessLookupError):  # it has ended meanwhile
            if os.getsid(pid) == leader:
                found.append(pid)
    return found


def listened_to_by(pids: Sequence[int]) -> set[str]:
    """The addresses at which some processes listen; one of version 4 that is written as version 6 is of version 4."""
    sockets = {name for pid in pids for name in opened_by(pid)}
    found = set()
    for line in [line for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]:
        _, local, _, state, *rest = line.split()
        if state == "0A" and f"socket:[{rest[5]}]" in sockets:
            words = bytes.fromhex(local.split(":")[0])
            address = ip_address(b"".join(words[at : at + 4][::-1] for at in range(0, len(words), 4)))
            found.add(str(getattr(address, "ipv4_mapped", None) or address))
    return found
