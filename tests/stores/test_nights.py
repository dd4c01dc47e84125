"""Whole nights in a store: the same bytes as in a folder, from one machine or from many."""

import json
import os
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from artifacts.documents import read_json
from artifacts.layout import RootLayout
from artifacts.mirror import open_mirror
from artifacts.run import find_run
from artifacts.store import fetched, names_in, read_bytes
from release.releases import verify
from tests.night.shop import DATE, NIGHTREC, Shop, content_of, only_release, run_nightrec
from tests.stores import servers
from tests.stores.servers import KEY_ID, SECRET, Server, environment_of, put_behind_our_back


def config_for(shop: Shop, folder: Path, url: str, **changes: str) -> Path:
    """Write a config whose root is *url*."""
    path = shop.config(folder)
    text = path.read_text().replace('root = "store"', f'root = "{url}"')
    for before, after in changes.items():
        text = text.replace(f"{before} = 1\n", f"{before} = {after}\n")
    path.write_text(f"{text}\n[store]\nretry_seconds = 3\n")
    return path


@pytest.fixture(scope="module")
def night(shop: Shop, s3: Server, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A night done in S3 step by step, each on a machine of its own; its config, and its address."""
    folder, url = tmp_path_factory.mktemp("apart"), s3.root()
    config = config_for(shop, folder, url, workers="2")
    run = ""
    for verb, *more in (
        ("prepare",),
        ("items", "--shard", "0/2"),
        ("items", "--shard", "1/2"),
        ("index",),
        ("interests", "--group", "0/2"),
        ("interests", "--group", "1/2"),
        ("score", "--shard", "0/3"),
        ("score", "--shard", "1-2/3"),
        ("check",),
        ("publish",),
    ):
        machine = folder / "-".join([verb, *more]).replace("/", "of")
        pinned = ["--run", run] if run else []
        finished = run_nightrec(
            *(verb, "--config", config, "--date", DATE, *more, *pinned, "--json"),
            environment=environment_of(s3, machine),
        )
        assert finished.returncode == 0, finished.stderr
        run = json.loads(finished.stdout)["run_key"]
    return config, url


def mirror(url: str, cache: Path) -> Path:
    return open_mirror(url, cache=cache, retry_seconds=5, most_bytes=1 << 40)


def content_in(root: Path) -> dict[str, bytes]:
    """Every file of the one release under *root* that its manifest lists, and the manifest itself."""
    (version,) = names_in(RootLayout(root).releases)
    layout = RootLayout(root).release(version)
    names = read_json(layout.manifest)["files"]
    return {name: fetched(layout.folder / name).read_bytes() for name in names} | {
        "manifest.json": read_bytes(layout.manifest)
    }


@pytest.fixture
def reach_s3(s3: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process reach the server."""
    for key, value in s3.environment.items():
        monkeypatch.setenv(key, value)


@pytest.mark.usefixtures("reach_s3")
def test_steps_on_machines_of_their_own_give_the_bytes_of_a_local_night(
    night: tuple[Path, str], plain: Path, tmp_path: Path
) -> None:
    """Ten steps, each with an empty cache, publish what one machine publishes in a folder."""
    root = mirror(night[1], tmp_path)
    assert content_in(root) == content_of(only_release(plain / "store"))
    assert verify(root).files == len(content_in(root)) - 1
    (version,) = names_in(RootLayout(root).releases)
    timings = read_json(RootLayout(root).release(version).record.timings)
    assert {step: len(done) for step, done in timings.items() if step != "format"} == {
        **dict.fromkeys(["prepare", "index", "check"], 1),
        **dict.fromkeys(["items", "interests", "score"], 2),
    }


def test_a_step_fetches_what_it_needs_and_no_more(night: tuple[Path, str]) -> None:
    """Who scores shard 0 has its own three tables, and what all shards share; nobody else's."""
    folder = night[0].parent / "score---shard-0of3" / "stores"
    here = {path.parent.name + "/" + path.name for path in folder.rglob("*.arrow") if "replay" not in path.parts}
    own = {f"{name}/00000-of-00003.arrow" for name in ("histories", "seen", "interests", "scores")}
    shared = {"prepare/catalogue.arrow", "prepare/popular.arrow", "index/items.arrow"}
    assert here == own | shared | {f"items/0000{part}-of-00002.arrow" for part in (0, 1)}


@pytest.mark.usefixtures("reach_s3")
def test_content_is_fetched_once(night: tuple[Path, str], tmp_path: Path) -> None:
    """A file that is read again, in the run or in the release, is the one in the cache, whatever it is called."""
    root = mirror(night[1], tmp_path / "cache")
    (version,) = names_in(RootLayout(root).releases)
    name = "scores/00000-of-00003.arrow"
    run = read_json(RootLayout(root).current_run(DATE))["run_key"]
    of_release = fetched(RootLayout(root).release(version).folder / name)
    of_run = fetched(RootLayout(root).run(DATE, run).folder / name)
    assert of_release.samefile(of_run)
    assert len(list((tmp_path / "cache" / "sha256").glob("??/[0-9a-f]*"))) == 1


@pytest.mark.usefixtures("reach_s3")
def test_what_another_machine_computed_last_night_is_kept(shop: Shop, s3: Server, plain: Path, tmp_path: Path) -> None:
    """A machine that has never seen the bucket keeps the rows of last night's run there, in the bytes of any night."""
    url = s3.root()
    config = config_for(shop, tmp_path, url)
    kept = {}
    for date in ("2026-03-30", DATE):
        for verb in ("prepare", "items", "index", "interests"):
            environment = environment_of(s3, tmp_path / f"{verb}-{date}")
            finished = run_nightrec(verb, "--config", config, "--date", date, "--json", environment=environment)
            assert finished.returncode == 0, finished.stderr
            kept[verb, date] = json.loads(finished.stdout)["steps"][0]["counts"]

    assert kept["interests", "2026-03-30"]["kept"] == 0 < kept["interests", DATE]["kept"]
    assert kept["items", DATE]["kept"] > 0 < kept["index", DATE]["kept_lists"]
    local, there = find_run(plain / "store", DATE), find_run(mirror(url, tmp_path / "cache"), DATE)
    for name in ("interests/00001-of-00003.arrow", "items/00001-of-00002.arrow", "index/ivf.faiss"):
        assert fetched(there.folder / name).read_bytes() == (local.folder / name).read_bytes()


@pytest.mark.parametrize("which", ["s3", "azure"])
def test_a_whole_night_and_its_verbs(
    shop: Shop, plain: Path, tmp_path: Path, which: str, request: pytest.FixtureRequest
) -> None:
    """One command does the night, with two workers; a second finds all done; other machines read what is published."""
    server: Server = request.getfixturevalue(which)
    config = config_for(shop, tmp_path, server.root(), workers="2")

    def nightrec(*arguments: str, machine: str = "one") -> subprocess.CompletedProcess[str]:
        finished = run_nightrec(
            *arguments, "--config", config, "--json", environment=environment_of(server, tmp_path / machine)
        )
        assert finished.returncode == 0, finished.stderr
        return finished

    version = only_release(plain / "store").name
    first = json.loads(nightrec("run", "--date", DATE).stdout)
    assert first["release"] == version
    again = json.loads(nightrec("run", "--date", DATE, machine="two").stdout)
    assert [step for step in again["steps"] if step["skipped"] < step["shards"]] == []
    (listed,) = json.loads(nightrec("releases", "list", machine="three").stdout)["releases"]
    assert (listed["version"], listed["channels"], listed["problem"]) == (version, ["LATEST"], "")
    assert json.loads(nightrec("releases", "show", machine="three").stdout)["version"] == version
    assert json.loads(nightrec("releases", "verify", machine="three").stdout)["version"] == version
    items = json.loads(nightrec("recommend", "7", machine="four").stdout)["items"]
    assert len(items) == 10
    nightrec("releases", "rollback", version, "--reason", "a drill", machine="three")
    assert json.loads(nightrec("releases", "resume", machine="four").stdout)["sequence"] == 3
    assert "hold" not in json.loads(nightrec("releases", "show", machine="five").stdout)["pointers"]["LATEST"]


def test_nothing_secret_is_said_or_written(shop: Shop, s3: Server, tmp_path: Path) -> None:
    """No file, line of output or command line of a night, and of nights that fail, holds who we are."""
    config = config_for(shop, tmp_path / "job", s3.root(), workers="2")
    with servers.between(s3) as proxy:
        environment = {**environment_of(proxy, tmp_path / "cache"), "TMPDIR": str(tmp_path)}
        texts = []
        watched = _watched([NIGHTREC, "--debug", "run", "--config", config, "--date", DATE, "--json"], environment)
        assert watched[0] == 0, watched[1]
        texts += watched[1:]
        body = f"<Error><Code>SignatureDoesNotMatch</Code><StringToSign>{SECRET} {KEY_ID}</StringToSign></Error>"
        proxy.meddle = lambda request: setattr(request, "answer", (403, body.encode()))
        refused = _watched([NIGHTREC, "--debug", "run", "--config", config, "--date", DATE, "--json"], environment)
        assert (refused[0], "refuses us (403 SignatureDoesNotMatch)" in refused[1]) == (1, True)
        texts += refused[1:]
        environment["AWS_ENDPOINT_URL"] = "http://127.0.0.1:9"
        away = _watched([NIGHTREC, "recommend", "7", "--config", config], environment)
        assert (away[0], "cannot be reached" in away[1]) == (1, True)
        texts += away[1:]
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 30
    for secret in (SECRET, KEY_ID):
        assert not [path for path in files if secret.encode() in path.read_bytes()]
        assert not [text for text in texts if secret in text]


def _watched(command: list[object], environment: Mapping[str, str]) -> tuple[int, str, str]:
    """Run a command; give its exit code, what it said, and every command line of it and its children that was seen."""
    process = subprocess.Popen(
        [*map(str, command)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **environment},
        start_new_session=True,
    )
    seen = set()
    while process.poll() is None:
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                if os.getsid(int(path.parent.name)) == process.pid:
                    seen.add(path.read_text())
            except (OSError, ValueError):
                continue
        time.sleep(0.1)
    said, _ = process.communicate()
    assert seen
    return process.returncode, said, "\n".join(seen)


def test_an_address_with_a_secret_in_it_is_refused_unsaid(shop: Shop, tmp_path: Path) -> None:
    """Whoever writes credentials into the config is told where they belong, and they are not repeated."""
    for url in (f"s3://{KEY_ID}:{SECRET}@bucket/x", f"az://bucket/x?sig={SECRET}"):
        finished = run_nightrec("releases", "list", "--config", config_for(shop, tmp_path, url), "--json")
        assert finished.returncode == 2
        assert "credentials belong into the environment" in finished.stderr.replace("\n", " ")
        assert SECRET not in finished.stderr + finished.stdout


def test_a_damaged_store_is_found_by_verify_alone(
    shop: Shop, s3: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``verify`` asks the store for every byte, although this machine has all of them in its cache."""
    for key, value in s3.environment.items():
        monkeypatch.setenv(key, value)
    config = config_for(shop, tmp_path, s3.root())
    environment = environment_of(s3, tmp_path / "cache")
    assert run_nightrec("run", "--config", config, "--date", DATE, environment=environment).returncode == 0
    root = mirror(_url_of(config), tmp_path / "cache")
    (version,) = names_in(RootLayout(root).releases)
    name = f"releases/{version}/scores/00001-of-00003.arrow"
    content = bytearray((root / name).read_bytes())
    content[len(content) // 2] ^= 1
    put_behind_our_back(s3, _url_of(config), name, bytes(content))
    finished = run_nightrec("releases", "verify", "--config", config, environment=environment)
    assert finished.returncode == 4
    assert "00001-of-00003.arrow" in finished.stderr.replace("\n", "")
    assert verify(root, quick=True).version == version


def _url_of(config: Path) -> str:
    return config.read_text().split('root = "')[1].split('"')[0]
