"""What older versions wrote is read by this one, for good: golden bundles and releases, a folder for each format."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from artifacts.bundle import Role, read_bundle
from artifacts.documents import read_json, read_sealed, write_sealed
from artifacts.errors import CorruptError
from artifacts.layout import BundleLayout, RootLayout
from artifacts.release import Manifest, read_record, verify_release
from artifacts.tables import opening_arrow
from batch.session import open_session
from examples.reader import load, recommended, search
from release.pointer import follow, read_pointer
from tests.night.shop import run_nightrec

ROOT = Path(__file__).parents[2]
GOLDEN = sorted(Path(__file__).parent.glob("v*"))
PLAIN_READER = ROOT / "examples" / "plain_reader.py"


@dataclass(frozen=True)
class Told:
    """What decides a user's scores: of the newest click its category and gap bucket, and the country's row."""

    items: str  # the four recommended, best first
    newest: str
    bucket: int
    country: int
    oldest: str = ""

    def rows(self) -> list[tuple[str, float, float, int]]:
        """Item, score, retrieval score and interest, by the rules in shop.py."""
        found = []
        for item in self.items.split():
            category, number = item[:3], int(item[4:]) / 32
            retrieval = (category in (self.newest, self.oldest)) + (-number if self.country == 3 else number)
            score = retrieval / 2 - number + (category == self.newest) / 16 + self.bucket / 64 + self.country / 256
            found.append((item, score, retrieval, int(category == self.oldest != self.newest)))
        return found


UNKNOWN, GERMANY, FRANCE = 1, 2, 3
BEFORE = {
    1: Told("tea-18 tea-19 tea-20 hat-18", "tea", 2, GERMANY, oldest="hat"),  # retrieved: tea and hat, 18 to 20
    2: Told("jam-01 jam-02 jam-03 jam-04", "jam", 3, FRANCE),
    3: Told("tea-18 tea-19 tea-20 pen-18", "tea", 3, GERMANY, oldest="pen"),
    4: Told("hat-01 hat-02 hat-04 hat-05", "hat", 1, FRANCE),  # has had hat-03
    6: Told("tea-15 tea-16 tea-17 tea-18", "tea", 3, UNKNOWN),
    7: Told("hat-19 jam-19 hat-20 jam-20", "", 3, GERMANY),  # four 20s were retrieved, and of the 19s the first two
}
AFTER = {
    **BEFORE,
    1: Told("jam-18 jam-19 jam-20 hat-18", "jam", 2, GERMANY, oldest="hat"),
    4: Told("hat-01 hat-02 hat-04 hat-05", "hat", 3, FRANCE),
    9: Told("pen-01 pen-02 pen-03 pen-04", "pen", 2, FRANCE),
}
COLD_BEFORE = {user: ["hat-03", "hat-01", "jam-06", "pen-01"] for user in (5, 9)}  # by events, then by id
COLD_AFTER = {5: ["hat-03", "hat-01", "jam-03", "jam-06"]}


def lists_of(root: Path) -> tuple[dict[int, Any], dict[int, list[str]]]:
    """What the release that LATEST names gives each user: ranked rows, and the items of those who are cold."""
    loaded, ranked, cold = load(root), {}, {}
    for user in {user for table in loaded.scores for user in table.read_all()["user_id"].to_pylist()}:
        rows = recommended(loaded, user)
        assert [row["rank"] for row in rows] == [1, 2, 3, 4]
        if rows[0]["source"] == 1:
            assert {row[name] for row in rows for name in ("score", "retrieval_score", "interest")} == {None}
            cold[user] = [row["item_id"] for row in rows]
        else:
            ranked[user] = [
                tuple(row[name] for name in ("item_id", "score", "retrieval_score", "interest")) for row in rows
            ]
    return ranked, cold


def worked_out(told: dict[int, Told]) -> dict[int, Any]:
    return {user: one.rows() for user, one in told.items()}


@pytest.fixture(params=GOLDEN, ids=lambda path: path.name)
def golden(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of the golden files of one format: commands leave locks behind."""
    return Path(shutil.copytree(request.param, tmp_path / "golden"))


def test_a_release_is_whole_and_says_what_it_said(golden: Path) -> None:
    """Every byte is verified, and each row is the one that was worked out by hand."""
    manifest = verify_release(follow(golden / "store").layout.folder)

    assert (manifest.date, manifest.rows("scores"), manifest.rows("items")) == ("2026-03-30", 32, 82)
    assert lists_of(golden / "store") == (worked_out(BEFORE), COLD_BEFORE)


def test_the_commands_read_a_release(golden: Path) -> None:
    """``releases verify`` and ``recommend`` know it, with titles."""
    config = golden / "job.toml"
    assert run_nightrec("releases", "verify", "--config", config).returncode == 0

    finished = run_nightrec("recommend", 1, "--config", config, "--json")

    assert [(row["item_id"], row["title"], row["score"]) for row in json.loads(finished.stdout)["items"]] == [
        (item, item.replace("-", " number "), score) for item, score, _, _ in BEFORE[1].rows()
    ]


def test_an_index_is_searched(golden: Path) -> None:
    """The number of lists to look into is stored in it: all tea, and the best of the other list."""
    loaded = load(golden / "store")

    found = search(loaded, np.array([0, 0, 0, 1, 1], np.float32), 23)

    assert loaded.index.nprobe == 2
    assert found[:20] == [(f"tea-{number:02d}", 1 + number / 32) for number in range(20, 0, -1)]
    assert sorted(found[20:]) == [("hat-20", 0.625), ("jam-20", 0.625), ("pen-20", 0.625)]


def test_bundles_compute_what_they_computed(golden: Path) -> None:
    """Canary rows come out as the exporter saw them, and a history gives the interests that its clicks say."""
    bundles = [read_bundle(golden / "bundles" / str(role)) for role in Role]
    for bundle in bundles:
        open_session(bundle, rows=8)
    user = open_session(bundles[1], rows=8)
    history = np.array([[2, 62, 0, 0]])  # hat-01 and tea-01: rows are counted from 2, and ids ascend
    inputs = {
        "history_item_id": history,
        "history_category": np.array([[2, 5, 0, 0]]),
        "profile_country": np.array([3]),
    }

    found = user.run(inputs, ["interests", "count", "weights"])

    assert found["count"].tolist() == [2]
    assert found["interests"].tolist() == [[[1, 0, 0, 0, -1], [0, 0, 0, 1, -1]]]
    assert found["weights"].tolist() == [[[1, 0, 0, 0], [0, 1, 0, 0]]]


def test_a_night_goes_on_from_an_older_release(golden: Path) -> None:
    """Tonight's version runs the bundles, compares with the release, and publishes after it."""
    before = read_pointer(golden / "store")

    finished = run_nightrec("run", "--config", golden / "job.toml", "--date", "2026-03-31", "--json")

    assert finished.returncode == 0, finished.stderr
    release = follow(golden / "store")
    assert before is not None
    assert (release.manifest.date, release.manifest.parent) == ("2026-03-31", before.version)
    assert lists_of(golden / "store") == (worked_out(AFTER), COLD_AFTER)
    compared = run_nightrec(
        "releases", "diff", before.version, release.version, "--config", golden / "job.toml", "--json"
    )
    assert compared.returncode == 0, compared.stderr


def plainly_read(root: Path, user: int) -> list[Any]:
    """Run the plain reader where nightrec's packages cannot be imported: without ``site``, no editable install."""
    environment = {**os.environ, "PYTHONPATH": sysconfig.get_path("purelib")}
    python = [sys.executable, "-S"]
    where: dict[str, Any] = {"env": environment, "cwd": root, "capture_output": True, "text": True}
    missing = subprocess.run([*python, "-c", "import artifacts"], check=False, **where)
    assert "No module named 'artifacts'" in missing.stderr
    finished = subprocess.run([*python, PLAIN_READER, root, str(user)], check=True, **where)
    return [json.loads(line) for line in finished.stdout.splitlines()]


def test_a_release_is_read_without_nightrec(golden: Path) -> None:
    """Thirty lines of pyarrow and faiss give the same rows, and search the index for both interests."""
    rows, for_tea, for_hat = plainly_read(golden / "store", 1)

    assert [(row["item_id"], row["score"], row["retrieval_score"], row["interest"]) for row in rows] == BEFORE[1].rows()
    assert for_tea == [[f"tea-{number}", 1 + number / 32] for number in range(20, 15, -1)]
    assert for_hat == [[f"hat-{number}", 1 + number / 32] for number in range(20, 15, -1)]
    assert plainly_read(golden / "store", 9)[1:] == []


def test_the_plain_reader_has_thirty_lines() -> None:
    """What the documentation promises of it: lines of code, without imports, docstrings and empty ones."""
    lines = PLAIN_READER.read_text("utf-8").splitlines()
    code = [line for line in lines if line.strip() and not line.strip().startswith(('"""', "import ", "from "))]

    assert len(code) <= 30


def future_sealed(path: Path) -> None:
    """Seal a document as a later version would, with the next format."""
    write_sealed(path, read_sealed(path, version=1), version=2)


def future_pointer(path: Path) -> None:
    path.write_text(json.dumps({**read_json(path), "format": 2}))


def future_table(path: Path) -> None:
    table = pa.ipc.open_file(path).read_all()
    with pa.ipc.new_file(path, table.schema.with_metadata({"format": "2"})) as writer:
        writer.write_table(table)


def open_table(path: Path) -> None:
    with opening_arrow(path):
        pass


FUTURE: dict[str, tuple[Callable[[Path], Path], Callable[[Path], None], Callable[[Path], Any]]] = {
    "bundle": (
        lambda golden: BundleLayout(golden / "bundles" / "user").contract,
        future_sealed,
        lambda path: read_bundle(path.parent),
    ),
    "manifest": (lambda golden: follow(golden / "store").layout.manifest, future_sealed, Manifest.read),
    "record": (
        lambda golden: follow(golden / "store").layout.record.contents,
        future_sealed,
        lambda path: read_record(follow(path.parents[3]).layout.record),
    ),
    "pointer": (
        lambda golden: RootLayout(golden / "store").latest,
        future_pointer,
        lambda path: read_pointer(path.parent),
    ),
    "table": (
        lambda golden: follow(golden / "store").layout.index.items,
        future_table,
        open_table,
    ),
}


@pytest.mark.parametrize("kind", FUTURE)
def test_a_format_of_the_future_is_refused(tmp_path: Path, kind: str) -> None:
    """One line names the file, the format that is read and the one that was found."""
    golden = Path(shutil.copytree(GOLDEN[0], tmp_path / "golden"))
    place, to_future, read = FUTURE[kind]
    path = place(golden)
    to_future(path)

    with pytest.raises(CorruptError) as refused:
        read(path)

    said = str(refused.value)
    assert said.startswith(f"{path}: expected")
    assert "\n" not in said
    assert "1" in said.removeprefix(f"{path}: ").partition("found")[0]
    assert "2" in said.partition("found")[2]
    assert "newer nightrec" in said


def test_golden_files_are_small() -> None:
    """Whoever clones the repository carries them for ever."""
    sizes = [path.stat().st_size for folder in GOLDEN for path in folder.rglob("*") if path.is_file()]

    assert sum(sizes) < 300_000 * len(GOLDEN)
