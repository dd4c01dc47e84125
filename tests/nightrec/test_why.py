"""Why an item is recommended or not: every reason, held against a night of a dozen items worked out by hand."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
import pytest

from artifacts.run import find_run
from artifacts.tables import finish_file, read_sidecar, read_table, writing_table
from batch.explain import Fate
from nightrec.main import execute
from tests.nightrec.hand import CONFIG, DATE, write_bundles, write_data


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The config of the night, which is published; tests leave it as it is."""
    folder = tmp_path_factory.mktemp("hand")
    write_data(folder / "data")
    write_bundles(folder / "bundles")
    (folder / "job.toml").write_text(CONFIG)
    assert execute(["run", "--config", str(folder / "job.toml"), "--date", DATE]) == 0
    return folder / "job.toml"


@pytest.fixture
def copied(night: Path, tmp_path: Path) -> Path:
    """A night of one's own, to change."""
    shutil.copytree(night.parent, tmp_path / "copy")
    return tmp_path / "copy" / "job.toml"


def ask(config: Path, capsys: pytest.CaptureFixture[str], user: int, item: int, *more: str) -> tuple[Any, str]:
    """What machines and people are told."""
    capsys.readouterr()
    code = execute(["why", str(user), str(item), "--config", str(config), "--json", *more])
    out, err = capsys.readouterr()
    assert code == 0, err
    assert out.count("\n") == 1
    return json.loads(out), err


@pytest.mark.parametrize(
    ("user", "item", "fate", "reason"),
    [
        (1, 6, "ranked", "recommended, rank 1 of 2"),
        (1, 5, "ranked", "recommended, rank 2 of 2"),
        (1, 3, "rule", "the shop's rule, at most 1 of one brand: before it stand 6"),
        (1, 4, "below", "the list was full: rank 4 of 4 by score (0.2), and 2 are given, the list ends at 0.7"),
        (1, 7, "too_far", "place 5 by exact score (1.5), and 4 became candidates, the last with 1.5, 0 more"),
        (1, 9, "too_far", "place 7 by exact score (-1.5), and 4 became candidates, the last with 1.5, 3 more"),
        (1, 1, "had", "the user had it once, on 2026-03-10 23:00; nothing that a user ever had is given again"),
        (1, 2, "had", "the user had it 2 times, last on 2026-03-09 00:00"),
        (1, 10, "no_signal", "the model knows neither its id nor any of its side features"),
        (1, 11, "not_eligible", "the item is not eligible"),
        (1, 12, "no_vector", "its vector holds NaN, Inf or nothing but zeros"),
        (1, 13, "excluded", "the item is taken out by [inputs.exclude_items]"),
        (4, 6, "excluded", "the user is taken out by [inputs.exclude_users]"),
        (2, 2, "fallback", "recommended, rank 1 of 2, as a popular item: the user is cold"),
        (2, 5, "fallback", "recommended, rank 2 of 2, as a popular item: the user is cold"),
        (2, 1, "rule", "the shop's rule, at most 1 of one brand: before it stand 2"),
        (
            2,
            3,
            "cold",
            "the user is cold and is given what is popular: the item is place 4, the list ends with place 3",
        ),
    ],
)
def test_every_reason_is_the_one_that_is_worked_out_by_hand(
    night: Path, capsys: pytest.CaptureFixture[str], user: int, item: int, fate: str, reason: str
) -> None:
    """People and machines are told the same reason, with its numbers."""
    said, err = ask(night, capsys, user, item)

    assert said["fate"] == fate
    assert reason in said["reason"]
    assert said["reason"][1:] in err
    assert said["recommended"] == (fate in {"ranked", "fallback"})
    assert said["same"] in {True, None}


def test_an_item_is_followed_from_the_click_to_the_list(night: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Interest, clicks with their weights and times, both ranks, and the exact score beside the index's."""
    said, err = ask(night, capsys, 1, 6)

    assert (said["user"], said["item"], said["title"], said["date"]) == (1, 6, "Thing 6", DATE)
    found = said["retrieval"]
    assert (found["interest"], found["interests"]) == (0, 2)
    assert (found["exact"], found["stored"]) == (3.0, 3.0)
    assert (found["rank"], found["exact_rank"], found["candidates"], found["least"]) == (2, 2, 4, 1.5)  # item 4 ties
    assert said["ranking"] == {"rank": 1, "score": pytest.approx(0.9)}
    assert said["listed"] == {
        "rank": 1,
        "score": pytest.approx(0.9),
        "retrieval_score": 3.0,
        "interest": 0,
    }
    assert said["clicks"] == [
        {"item_id": 1, "title": "Thing 1", "time": "2026-03-10 23:00:00+00:00", "weights": [1.0, 0.0]},
        {"item_id": 2, "title": "Thing 2", "time": "2026-03-09 00:00:00+00:00", "weights": [0.25, 0.75]},
        {"item_id": 2, "title": "Thing 2", "time": None, "weights": [0.25, 0.75]},
    ]
    assert said["untold"] == []
    for words in (
        "Clicks that made interest 0; 3 of 3",
        "share of click",
        "found by",
        "rank 2 of 4 candidates; place 2 by exact search",
    ):
        assert words in err


def test_the_first_interest_of_those_that_tie_has_found_it(night: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Item 5 has 1.5 with both; item 4 is nearest to interest 1, whose clicks are told first by their weight."""
    five, _ = ask(night, capsys, 1, 5)
    four, err = ask(night, capsys, 1, 4, "--top", "1")

    assert (five["retrieval"]["interest"], five["retrieval"]["exact"]) == (0, 1.5)
    assert (four["retrieval"]["interest"], four["retrieval"]["exact"]) == (1, 3.0)
    (click,) = [line for line in err.splitlines() if "Thing" in line and "0.75" in line]
    assert "2026-03-09 00:00" in click


def test_who_is_unknown_is_told_who_is_near(night: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A misspelt id is a mistake of one line, whichever of the two it is."""
    for user, item, said in (
        (5, 6, "user 5: the night does not know this user, and nothing excludes it; the nearest are 3"),
        (1, 99, "item 99: the night does not know this item, and nothing excludes it; the nearest are 12"),
        ("one", 6, "user 'one': the ids of users are int64, expected such a number"),
    ):
        assert execute(["why", str(user), str(item), "--config", str(night)]) == 2
        err = capsys.readouterr().err
        assert said in err
        assert err.count("\n") == 1


def test_a_release_whose_run_is_gone_tells_what_it_knows(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Place and exact score are in the release; what cannot be told is named, and how to have it again."""
    shutil.rmtree(copied.parent / "store" / "runs")

    given, err = ask(copied, capsys, 1, 6)
    left_out, _ = ask(copied, capsys, 1, 3)
    not_indexed, _ = ask(copied, capsys, 1, 11)
    popular, _ = ask(copied, capsys, 2, 2)
    excluded, _ = ask(copied, capsys, 4, 6)

    assert (given["fate"], given["title"], given["reason"]) == ("ranked", "Thing 6", "recommended, rank 1 of 2")
    assert given["listed"] == {"rank": 1, "score": pytest.approx(0.9), "retrieval_score": 3.0, "interest": 0}
    assert "3, from the item's vector" in err
    (untold,) = given["untold"]
    assert untold.startswith("the clicks, their routing weights, what the user had")
    assert f"run {given['run_key']} is gone; `nightrec run` for {DATE} makes it again" in untold
    assert f"not told: {untold}" in err
    assert (left_out["fate"], left_out["recommended"]) == ("untold", False)
    assert left_out["reason"] == "the item is not in the list; more is not known without the run"
    assert "not indexed: not eligible, or without a signal" in not_indexed["reason"]
    assert popular["reason"] == "recommended, rank 1 of 2, as a popular item: the user is cold"
    assert (excluded["fate"], excluded["reason"]) == ("excluded", "the user is taken out by [inputs.exclude_users]")
    assert execute(["why", "1", "99", "--config", str(copied)]) == 2
    assert "item 99: the night does not know this item" in capsys.readouterr().err


def test_a_refused_night_is_explained_too(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By its date: the gates that refused it are named, and the item's way is told like any other's."""
    shutil.rmtree(copied.parent / "store")
    copied.write_text(CONFIG.replace("items_unusable = 0.2", "items_unusable = 0.05"))
    night = ["--config", str(copied), "--date", DATE]
    for verb in ("prepare", "items", "index", "interests"):
        assert execute([verb, *night]) == 0
    assert execute(["why", "1", "6", *night]) == 1
    assert "scores/00000-of-00002.arrow is not finished" in capsys.readouterr().err  # which step is to be done first
    assert execute(["score", *night]) == 0

    before, _ = ask(copied, capsys, 1, 6, "--date", DATE)
    assert execute(["check", *night]) == 3
    after, err = ask(copied, capsys, 1, 6, "--date", DATE, "--run", before["run_key"])

    assert before["night"] == "This night has not been judged yet: it is no release."
    assert after["night"].startswith("This night was refused by items_unusable: 0.1, expected at most 0.05")
    assert after["night"] in err
    assert (after["release"], after["fate"], after["ranking"]["rank"]) == (None, "ranked", 1)
    assert execute(["why", "1", "6", "--config", str(copied)]) == 2  # nothing is published
    assert "LATEST" in capsys.readouterr().err


def test_what_was_taken_out_since_is_no_fault_of_the_night(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A revision is named with who asked for it and why, and who stood behind has moved up."""
    (copied.parent / "gone.txt").write_text("6\n")
    revise = ["releases", "revise", "--config", str(copied), "--reason", "a recall", "--who", "Ann", "--at-most", "0.5"]
    assert execute([*revise, "--drop-items", str(copied.parent / "gone.txt")]) == 0

    gone, _ = ask(copied, capsys, 1, 6)
    moved, _ = ask(copied, capsys, 1, 5)

    assert (gone["fate"], gone["recommended"], gone["listed"]) == ("revised", False, None)
    assert gone["reason"] == "the night recommended it; it was taken out of the release since (Ann: a recall)"
    assert (moved["listed"]["rank"], moved["length"]) == (1, 1)


def test_other_bundles_than_the_runs_explain_nothing_wrong(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Weights and ranks are told by the models that made the night, or not at all, and why is said."""
    shutil.rmtree(copied.parent / "bundles")
    write_bundles(copied.parent / "bundles", weights=False)
    (copied.parent / "bundles" / "ranker").rename(copied.parent / "elsewhere")

    given, err = ask(copied, capsys, 1, 6)
    left_out, _ = ask(copied, capsys, 1, 3)

    assert (given["fate"], given["listed"]["rank"], given["ranking"]) == ("ranked", 1, None)
    assert [click["weights"] for click in given["clicks"]] == [None] * 3
    assert [click["item_id"] for click in given["clicks"]] == [1, 2, 2]
    assert (left_out["fate"], left_out["retrieval"]["rank"]) == ("untold", 3)
    weights, rank = given["untold"]
    assert weights.startswith("the routing weights: ")
    assert "prepared for the user bundle" in weights
    assert rank.startswith("the rank by score of a candidate that is not in the list: ")
    assert "expected a bundle" in rank
    assert err.count("not told: ") == 2


def test_another_machine_says_that_its_bits_are_others(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Reasons hold as long as the list comes out item for item; when it does not, none is made up."""
    run = find_run(copied.parent / "store", DATE)
    place = next(path for path in run.layout.interests(0, 2).parent.glob("*.arrow") if 1 in users_of(path))
    table, sidecar = read_table(place), read_sidecar(place)

    def night_with(factor: float) -> None:
        vectors = [[[x * factor, y] for x, y in vectors] for vectors in table["vectors"].to_pylist()]
        other = table.set_column(1, table.field(1), pa.array(vectors, table.field(1).type))
        with writing_table(place, table.schema.remove_metadata(), metadata=run.metadata(), inputs=sidecar.inputs) as to:
            to.write(other)

    night_with(1 + 1e-6)
    near, _ = ask(copied, capsys, 1, 3)
    night_with(-1.0)
    far, err = ask(copied, capsys, 1, 7)

    assert (near["fate"], near["same"]) == ("rule", False)
    assert (far["fate"], far["same"]) == ("untold", False)
    (untold,) = far["untold"]
    assert untold.startswith("whether all this is to the bit what the night computed")
    assert f"not told: {untold}" in err


def users_of(path: Path) -> list[int]:
    users: list[int] = read_table(path)["user_id"].to_pylist()
    return users


def test_a_bundle_without_weights_explains_the_rest(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The output is optional: all else is told, and that it is missing."""
    shutil.rmtree(copied.parent / "bundles")
    shutil.rmtree(copied.parent / "store")
    write_bundles(copied.parent / "bundles", weights=False)
    assert execute(["run", "--config", str(copied), "--date", DATE]) == 0

    said, err = ask(copied, capsys, 1, 6)

    assert (said["fate"], said["retrieval"]["exact"], said["same"]) == ("ranked", 3.0, True)
    assert [click["weights"] for click in said["clicks"]] == [None] * 3
    (untold,) = said["untold"]
    assert "has no output `weights`; export a model that gives it" in untold
    assert "The user's clicks, newest first; 3 of 3" in err


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--date", DATE, "--release", "x"], "--date and --release: give one of them"),
        (["--run", "0" * 16], "--run names a run of a date: give --date too"),
        (["--date", "2026-03-09"], "no run of 2026-03-09 is prepared"),
        (["--date", "today"], "expected a day as YYYY-MM-DD, found 'today'"),
        (["--release", "2026-03-10-000000000000"], "there is none of that name"),
    ],
)
def test_what_cannot_be_asked(night: Path, capsys: pytest.CaptureFixture[str], more: list[str], said: str) -> None:
    """One line that says what to ask instead."""
    assert execute(["why", "1", "6", "--config", str(night), *more]) in {1, 2}

    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1


def test_what_the_index_missed_is_no_candidate_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two lists, along (1, 0) and (0, 1), and a search that looks into one: the best item lies in the other.

    Interest 0 is (1, 0.9): 10.0 to 10.39 with the items of the first list, and 10.8 with the one at (0, 12).
    """
    east = {100 + n: ((10 + n / 100, 0), 0.5, 0.5, f"e{n}") for n in range(40)}
    north = {200 + n: ((0, 10 + n / 100), 0.5, 0.5, f"n{n}") for n in range(40)}
    far = {1: ((1, 0.9), 1.0, 0.5, "c"), 2: ((0, 0), 0.5, 0.5, "d"), 300: ((0, 12), 0.5, 0.5, "x")}
    items = {**far, **east, **north}
    write_data(tmp_path / "data", items)
    write_bundles(tmp_path / "bundles", items=items)
    config = tmp_path / "job.toml"
    config.write_text(CONFIG.replace("[index]", "[index]\nlists = 2"))
    for verb in ("prepare", "items", "index", "interests"):
        assert execute([verb, "--config", str(config), "--date", DATE]) == 0
    run = find_run(tmp_path / "store", DATE)
    place = run.layout.index.ivf
    ivf, inputs = faiss.read_index(str(place)), read_sidecar(place).inputs
    ivf.nprobe = 1  # one user is too few for the step to choose it
    faiss.write_index(ivf, str(place))
    finish_file(place, inputs=inputs, run_key=run.run_key)
    assert execute(["score", "--config", str(config), "--date", DATE]) == 0

    missed, _ = ask(config, capsys, 1, 300, "--date", DATE)
    found, _ = ask(config, capsys, 1, 139, "--date", DATE)

    assert (missed["fate"], missed["retrieval"]["rank"], missed["retrieval"]["exact_rank"]) == ("missed", None, 1)
    assert missed["retrieval"]["exact"] == pytest.approx(10.8)
    assert missed["reason"] == (
        "the index missed it: place 1 by exact score, of 4 candidates; 1 of its lists lies nearer to the interest than "
        "the item's, and a search looks into 1"
    )
    assert (found["retrieval"]["rank"], found["retrieval"]["exact_rank"]) == (1, 2)


def test_the_index_score_is_that_of_what_the_index_stores(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An index that keeps a byte of each number says something else than the vectors: both are told."""
    write_data(tmp_path / "data")
    write_bundles(tmp_path / "bundles")
    config = tmp_path / "job.toml"
    config.write_text(CONFIG.replace("[index]", '[index]\ntype = "SQ8"'))
    for verb in ("prepare", "items", "index", "interests", "score"):
        assert execute([verb, "--config", str(config), "--date", DATE]) == 0
    index = find_run(tmp_path / "store", DATE).layout.index
    ids = read_table(index.items)["item_id"].to_pylist()
    scores, rows = faiss.read_index(str(index.ivf)).search(np.array([[1, 0.5]], np.float32), len(ids))

    said, err = ask(config, capsys, 1, 5, "--date", DATE)

    stored = float(scores[0, rows[0].tolist().index(ids.index(5))])
    assert (said["retrieval"]["exact"], said["retrieval"]["stored"]) == (1.5, stored)
    assert stored != 1.5
    assert f"{stored:.6g}, off by {abs(stored - 1.5):.2g}" in err


def test_the_page_names_every_fate() -> None:
    """What a machine may read in ``fate`` is told, and nothing else."""
    page = (Path(__file__).parents[2] / "docs" / "releases.md").read_text()
    table = page.partition("| `fate` | the item |")[2].partition("\n\n")[0]

    first_cells = " ".join(row.split("|")[1] for row in table.splitlines() if row)
    assert sorted(re.findall(r"`([a-z_]+)`", first_cells)) == sorted(Fate)
