"""``nightrec evaluate``: a release is judged by what its users did after it, as its tables say by other means."""

import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from nightrec.answers import _search
from nightrec.main import execute

DATE = "2026-03-10"
NIGHT = datetime(2026, 3, 11, tzinfo=UTC)


@pytest.fixture
def later(published: tuple[Path, Any], tmp_path: Path) -> Path:
    """The published night, and what users did after it: 7 came back on the second day, 9 on the third, 39 is new."""
    folder = tmp_path / "shop"
    shutil.copytree(published[0].parent, folder)
    happen_after(folder / "data" / "events.parquet")
    return folder / "job.toml"


def happen_after(path: Path) -> None:
    after = [(7, 3, 30), (7, 4, 31), (7, 5, 60), (9, 6, 50), (39, 1, 20), (8, 2, 24 * 9)]
    users, items, hours = zip(*after, strict=True)
    more = {"user_id": users, "item_id": items, "time": [NIGHT + timedelta(hours=hour) for hour in hours]}
    events = pq.read_table(path)
    pq.write_table(pa.concat_tables([events, pa.table(more).cast(events.schema)]), path)


def read(release: Path, table: str) -> pa.Table:
    return pa.concat_tables([pa.ipc.open_file(path).read_all() for path in sorted((release / table).glob("*.arrow"))])


def test_a_release_is_judged_by_what_came_next(later: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Hits are counted in the tables of the release itself, and in an exact search of its vectors."""
    assert execute(["evaluate", "--config", str(later), "--date", DATE, "--json"]) == 0

    told = json.loads(capsys.readouterr().out)
    assert (told["date"], told["days"], told["users"], told["users_without_list"]) == (DATE, 7, 2, 0)
    systems = told["systems"]
    assert list(systems) == ["final lists", "retrieval", "popular, 7 days", "popular, 30 days", "own items"]
    truth = {7: {3, 4}, 9: {6}}
    release = later.parent / "store" / "releases" / told["release"]
    scores = read(release, "scores")
    hits = []
    for user, wanted in truth.items():
        mine = scores.filter(pc.equal(scores["user_id"], user))
        hits.append(bool(wanted & set(mine["item_id"].to_pylist())))
    assert told["length"] == 5
    assert systems["final lists"]["all.hr@5"] == np.mean(hits)
    assert "all.hr@10" not in systems["final lists"]  # a list of five has no best ten
    assert systems["retrieval"]["all.hr@10"] == found_exactly(release, truth, np.zeros(30))


def found_exactly(release: Path, truth: dict[int, set[int]], added: np.ndarray) -> float:
    """Search all vectors of the release for the best ten of each user, *added* on top; the share who found any."""
    vectors, interests = np.array(read(release, "items")["vector"].to_pylist(), np.float32), read(release, "interests")
    found = []
    for user, wanted in truth.items():
        (mine,) = interests.filter(pc.equal(interests["user_id"], user))["vectors"].to_pylist()
        scores = (np.array(mine, np.float32) @ vectors.T).max(axis=0) + added
        found.append(bool(wanted & set(np.argsort(-scores, kind="stable")[:10].tolist())))
    return float(np.mean(found))


def test_retrieval_is_judged_with_the_popularity_that_its_index_holds(
    surface: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A weight so large that nothing else counts: what is found is what was popular, of two items just one."""
    surface.write_text(surface.read_text().replace("[retrieve]", "[retrieve]\npopularity_weight = 1000.0"))
    assert execute(["run", "--config", str(surface), "--date", DATE]) == 0
    events = pq.read_table(surface.parent / "data" / "events.parquet")
    counts = np.bincount(events["item_id"].to_numpy(), minlength=30)
    happen_after(surface.parent / "data" / "events.parquet")
    capsys.readouterr()

    assert execute(["evaluate", "--config", str(surface), "--json"]) == 0

    told = json.loads(capsys.readouterr().out)
    release = surface.parent / "store" / "releases" / told["release"]
    expected = found_exactly(release, {7: {3, 4}, 9: {6}}, 1000 * np.log1p(counts))
    assert told["systems"]["retrieval"]["all.hr@10"] == expected


def test_what_a_night_scores_again_is_scored_again_here() -> None:
    """Four bits a number lose the order; with five times as many found, the vectors themselves restore it."""
    rng = np.random.default_rng(4)
    vectors = rng.standard_normal((200, 8), dtype=np.float32)
    index = faiss.IndexIVFScalarQuantizer(
        faiss.IndexFlatIP(8), 8, 1, faiss.ScalarQuantizer.QT_4bit, faiss.METRIC_INNER_PRODUCT
    )
    index.train(vectors)
    index.add(vectors)
    queries = rng.standard_normal((3, 8), dtype=np.float32)
    expected = np.argsort(-(vectors @ queries.T).max(axis=1), kind="stable")[:20].tolist()

    assert _search(index, queries, 20, 5, vectors).tolist() == expected
    assert _search(index, queries, 20, 1, None).tolist() != expected


def test_the_floors_know_what_was_known_on_the_data_date(later: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Popularity and own items are counted here from the events themselves, up to the night and no further."""
    events = pq.read_table(later.parent / "data" / "events.parquet")
    before = events.filter(pc.less(events["time"], pa.scalar(NIGHT, events.schema.field("time").type)))
    counts = np.bincount(
        before.filter(
            pc.greater_equal(before["time"], pa.scalar(NIGHT - timedelta(days=7), events.schema.field("time").type))
        )["item_id"].to_numpy(),
        minlength=30,
    )
    popular = np.argsort(-counts, kind="stable")[:10].tolist()

    assert execute(["evaluate", "--config", str(later), "--json"]) == 0

    systems = json.loads(capsys.readouterr().out)["systems"]
    assert systems["popular, 7 days"]["all.hr@10"] == np.mean([bool({3, 4} & set(popular)), 6 in popular])


def test_days_without_known_users_are_not_there_yet(later: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On the first day after the night only a user came whom it did not know: code 5, and what to do."""
    assert execute(["evaluate", "--config", str(later), "--days", "1"]) == 5

    assert f"expected events of known users in the 1 days after {DATE}, found none" in capsys.readouterr().err


def test_a_table_has_every_system(later: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """People see the figures on standard error; a date without a release is code 2."""
    assert execute(["evaluate", "--config", str(later)]) == 0

    said = capsys.readouterr()
    assert said.out == ""
    for part in ("final lists", "retrieval", "popular, 7 days", "own items", "by 2 users on their first"):
        assert part in said.err
    assert execute(["evaluate", "--config", str(later), "--date", "2026-03-09"]) == 2
    assert "release 2026-03-09: there is none of that name" in capsys.readouterr().err


def test_of_two_releases_of_a_date_one_must_be_named(later: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Both are told; the one that is named is judged, and without a date it is the one that readers have."""
    releases = later.parent / "store" / "releases"
    (first,) = [path.name for path in releases.glob(f"{DATE}-*")]
    shutil.copytree(releases / first, releases / f"{DATE}-ffffffffffff")

    assert execute(["evaluate", "--config", str(later), "--date", DATE]) == 2

    said = capsys.readouterr().err
    assert f"there are 2 releases of {DATE}; name one by --release: {first}, {DATE}-ffffffffffff" in said
    assert execute(["evaluate", "--config", str(later), "--release", first, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["release"] == first
    assert execute(["evaluate", "--config", str(later), "--release", first, "--date", "2026-03-09"]) == 2
    assert f"release {first} is not of 2026-03-09; leave --date or --release away" in capsys.readouterr().err
