"""Two releases side by side: what came, went and moved, against numbers worked out by hand."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from artifacts import schemas
from artifacts.errors import CorruptError, UsageError
from artifacts.layout import RootLayout
from artifacts.tables import writing_table
from release.diff import Count, Difference, Mover, diff
from release.overlap import count_gone
from release.publish import Published
from release.query import Limits
from release.revise import revise

Released = Callable[..., Published]


def compare(root: Path, before: Published, after: Published) -> Difference:
    return diff(root, before.version, after.version, threads=1)


def test_equal_content_differs_in_nothing(released: Released, tmp_path: Path) -> None:
    """Of the next night with the same tables, nothing came, went or moved."""
    found = compare(tmp_path, released(), released(date="2026-03-02"))
    assert found.counts == {
        "users": Count(60, 60, 0, 0),
        "items": Count(40, 40, 0, 0),
        "indexed": Count(40, 40, 0, 0),
        "cold users": Count(0, 0),
        "recommendations": Count(600, 600),
    }
    assert found.churn == 0
    assert (found.scores.common, found.scores.moved, found.scores.largest) == (600, 0, 0)
    assert (found.item_vectors.common, found.item_vectors.moved) == (40, 0)
    assert (found.user_vectors.common, found.user_vectors.moved) == (60, 0)
    assert found.parameters == {}


def test_users_and_items_in_and_out_are_counted(released: Released, tmp_path: Path) -> None:
    """Users and items that only one of two releases has are counted, whatever the cut into shards."""
    first = released(users=list(range(100, 160)), items=list(range(1000, 1040)), cold=(101, 105))
    second = released(
        date="2026-03-02",
        users=list(range(110, 165)),
        items=list(range(1001, 1042)),
        shards=3,
        eligible=lambda item: item != 1010,
    )
    found = compare(tmp_path, first, second)
    assert found.counts["users"] == Count(60, 55, came=5, went=10)
    assert found.counts["items"] == Count(40, 41, came=2, went=1)
    assert found.counts["indexed"] == Count(40, 40, came=2, went=2)
    assert found.counts["cold users"] == Count(2, 0)
    assert found.counts["recommendations"] == Count(600, 550)


def test_the_items_that_moved_most_are_named(released: Released, tmp_path: Path) -> None:
    """By how many more or fewer lists they are in, ties by id; what is in none of one release counts as 0 there."""
    first = released(items=list(range(1000, 1040)))
    second = released(date="2026-03-02", items=list(range(1001, 1042)), shift=7, override="a test")

    found = diff(tmp_path, first.version, second.version, top=4, threads=1)

    lists = [
        Counter(
            item
            for path in sorted((RootLayout(tmp_path).release(one.version).scores).glob("*.arrow"))
            for item in pa.ipc.open_file(path).read_all()["item_id"].to_pylist()
        )
        for one in (first, second)
    ]
    moved = [Mover(item, lists[0][item], lists[1][item]) for item in lists[0] | lists[1]]
    moved = sorted(moved, key=lambda one: (-abs(one.after - one.before), one.item_id))
    assert found.movers == tuple(moved[:4])
    assert moved[0].after != moved[0].before
    assert compare(tmp_path, first, first).movers == ()


@pytest.mark.parametrize(("shift", "churn"), [(1, 0.1), (4, 0.4), (20, 1.0)])
def test_churn_and_score_shift(released: Released, tmp_path: Path, shift: int, churn: float) -> None:
    """Lists that move along by n items lose n of ten; an item that was on rank r has the score of rank r - n now."""
    found = compare(tmp_path, released(), released(date="2026-03-02", shift=shift, override="a test"))
    assert found.churn == pytest.approx(churn)
    apart = [abs(1 / (1 + rank) - 1 / (1 + rank + shift)) for rank in range(10 - shift)]
    assert (found.scores.common, found.scores.moved) == (60 * len(apart),) * 2
    if apart:
        assert found.scores.mean == pytest.approx(np.mean(apart), abs=1e-6)
        assert found.scores.largest == pytest.approx(max(apart), abs=1e-6)
    else:
        assert "scores: nothing is in both" in found.notes


def test_churn_looks_at_the_first_ranks(released: Released, tmp_path: Path) -> None:
    """With k = 1 a list that moves by one has another first item."""
    first, second = released(), released(date="2026-03-02", shift=1)
    assert diff(tmp_path, first.version, second.version, top=1, threads=1).churn == 1


def test_vectors_that_moved_are_measured(released: Released, tmp_path: Path) -> None:
    """One item's vector moved by 3 and 4 is 5 away; a user's changed interests are counted."""

    def move(vectors: np.ndarray) -> np.ndarray:
        vectors[7] += (3, 4, 0, 0)
        return vectors

    def change(table: pa.Table) -> pa.Table:
        vectors = table["vectors"].to_pylist()
        vectors[2] = [[2.0, 0.0, 0.0, 0.0]]
        return table.set_column(1, table.schema.field(1), pa.array(vectors, table.schema.field(1).type))

    found = compare(tmp_path, released(), released(date="2026-03-02", vectors=move, interests=change))
    assert (found.item_vectors.common, found.item_vectors.moved) == (40, 1)
    assert found.item_vectors.largest == pytest.approx(5, abs=1e-5)
    assert found.item_vectors.mean == pytest.approx(5 / 40, abs=1e-5)
    assert (found.user_vectors.common, found.user_vectors.moved) == (60, 2)  # one in each shard


def test_parameters_that_changed_are_named(released: Released, tmp_path: Path) -> None:
    """Config, index and models are compared key by key; what is equal is not named."""
    first = released(parameters={"nprobe": 4, "counts": {"indexed": 40, "ineligible": 0}})
    second = released(date="2026-03-02", parameters={"nprobe": 8}, exclude_seen="none", model="2")
    changed = compare(tmp_path, first, second).parameters
    assert changed["index.nprobe"] == (4, 8)
    assert changed["config.retrieve.exclude_seen"] == ("all", "none")
    assert changed["bundles.item.model_id"] == ("1" * 64, "2" * 64)
    assert set(changed) == {
        "index.nprobe",
        "config.retrieve.exclude_seen",
        *(f"bundles.{role}.model_id" for role in ("item", "user", "ranker")),
    }


def test_other_types_of_ids_are_not_matched(released: Released, tmp_path: Path) -> None:
    """Ids of another type are said to be so; what can be counted is."""
    first = released()
    second = released(date="2026-03-02", users=["anna", "bob"], user_type="string", override="a test")
    found = compare(tmp_path, first, second)
    assert found.counts["users"] == Count(60, 2)
    assert found.churn is None
    assert "churn: user_id was int64 and is string now" in found.notes


def test_a_revised_release_differs_in_what_was_taken_out(released: Released, tmp_path: Path) -> None:
    """Against the release it comes from, one user is out, and nothing came or moved."""
    first = released()
    ids = tmp_path / "users.txt"
    ids.write_text("107\n")
    second = revise(tmp_path, who="ada", why="erasure", drop_users=ids)
    found = diff(tmp_path, first.version, second.version, threads=1)
    assert found.counts["users"] == Count(60, 59, came=0, went=1)
    assert found.counts["recommendations"] == Count(600, 590)
    assert (found.churn, found.scores.moved, found.item_vectors.moved, found.user_vectors.moved) == (0, 0, 0, 0)


def test_it_is_json(released: Released, tmp_path: Path) -> None:
    """All that is told can be written for machines."""
    document = compare(tmp_path, released(), released(date="2026-03-02", shift=2)).document()
    assert json.loads(json.dumps(document))["counts"]["users"] == {"before": 60, "after": 60, "came": 0, "went": 0}


def test_changed_and_unknown_releases_are_named(released: Released, tmp_path: Path) -> None:
    """A changed table and a misspelt version are the messages that every verb gives."""
    first, second = released(), released(date="2026-03-02", shift=1)
    with pytest.raises(UsageError, match=f"did you mean {first.version}"):
        diff(tmp_path, first.version[:-1] + "_", second.version)
    path = second.folder / "scores" / "00000-of-00002.arrow"
    path.write_bytes(path.read_bytes()[:-1] + b"\x00")
    with pytest.raises(CorruptError, match=path.name):
        compare(tmp_path, first, second)


def test_an_item_that_moved_to_another_range_is_not_gone(tmp_path: Path) -> None:
    """The ranges of the catalogue shift when items come: only those in no range at all have gone."""
    nights = {"one": ([1, 2], [3, 4]), "two": ([0, 1], [2, 4])}
    paths = {}
    for name, ranges in nights.items():
        paths[name] = [tmp_path / name / f"{number}.arrow" for number in range(2)]
        for path, ids in zip(paths[name], ranges, strict=True):
            schema = schemas.index_items(pa.int64())
            with writing_table(path, schema, metadata={}, inputs="i") as writer:
                writer.write(pa.table([pa.array(ids, pa.int64()), pa.array(ids, pa.int32())], schema=schema))
    assert count_gone("item_id", paths["two"], paths["one"], Limits("100MB", 1, tmp_path)) == 1
