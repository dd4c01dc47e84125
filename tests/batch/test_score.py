from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from onnx import TensorProto, helper, numpy_helper

from artifacts import schemas
from artifacts.bundle import Bundle, Role, bundle_id_of
from artifacts.canary import write_canary
from artifacts.errors import CorruptError, InputError, NightrecError, StaleRunError, UsageError
from artifacts.layout import BundleLayout
from artifacts.run import Run
from artifacts.tables import read_table, writing_table
from batch.index import build_index
from batch.interests import compute_interests
from batch.items import embed_items
from batch.ivf import IndexOptions
from batch.lists import ScoreOptions
from batch.rules import Rule
from batch.score import score

ITEMS, DAY = 45, 86_400
CROSS = ("retrieval_score", "times_had", "days_since", "popularity")
MIX = np.array([0.1, 0.5, -0.2, 0.3], np.float32)
OPTIONS = ScoreOptions(candidates=12, overfetch=1.5, top_n=10, rules=(Rule("brand", 2),))


def item_weights(tiny: ModuleType) -> np.ndarray:
    return np.random.default_rng(21).standard_normal(tiny.ITEMS + 2).astype(np.float32)


def gap_weights(tiny: ModuleType) -> np.ndarray:
    return np.random.default_rng(22).standard_normal(len(tiny.SPEC.gap_edges) + 2).astype(np.float32)


def make_ranker(tiny: ModuleType, folder: Path, item: np.ndarray) -> Bundle:
    """A ranker: sigmoid(item weight + weight of the newest gap + mix of the cross features)."""
    folder.mkdir(parents=True)
    tiny.write_vocabularies(folder)
    node, int32 = helper.make_node, TensorProto.INT32
    nodes = [
        node("Gather", ["R", "candidate_item_id"], ["r"]),
        node("Gather", ["gap", "newest"], ["g"], axis=1),  # ReduceSum over 6 would depend on a row's place
        node("Gather", ["W", "g"], ["h"]),
        node("Mul", ["cross", "M"], ["m"]),
        node("ReduceSum", ["m", "two"], ["x"], keepdims=0),
        node("Sum", ["r", "h", "x"], ["logit"]),
        node("Sigmoid", ["logit"], ["score"]),
    ]
    constants = {
        "R": item,
        "W": gap_weights(tiny),
        "M": MIX,
        "newest": np.array([0], np.int64),
        "two": np.array([2], np.int64),
    }
    shapes: dict[str, tuple[int, list[Any]]] = {
        "history_item_id": (int32, ["users", tiny.LENGTH]),
        "history_category": (int32, ["users", tiny.LENGTH]),
        "gap": (int32, ["users", tiny.LENGTH]),
        "profile_gender": (int32, ["users"]),
        "candidate_item_id": (int32, ["users", "candidates"]),
        "candidate_category": (int32, ["users", "candidates"]),
        "cross": (TensorProto.FLOAT, ["users", "candidates", len(CROSS)]),
    }
    inputs = [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in shapes.items()]
    outputs = [helper.make_tensor_value_info("score", TensorProto.FLOAT, ["users", "candidates"])]
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "ranker", inputs, outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, str(BundleLayout(folder).graph))
    canary = {name: np.zeros((64, *[6, 5][: len(shape) - 1]), np.int32) for name, (_, shape) in shapes.items()}
    canary["candidate_item_id"] = canary["candidate_category"] = np.zeros((64, 5), np.int32)
    canary["cross"] = np.zeros((64, 5, len(CROSS)), np.float32)
    logit = item[0] + gap_weights(tiny)[0]
    seen_by_exporter = np.full((64, 5), 1 / (1 + np.exp(-logit)), np.float32)
    write_canary(BundleLayout(folder).canary, {**canary, "score": np.nan_to_num(seen_by_exporter)})
    bundle = tiny.finish_bundle(folder, Role.RANKER)
    spec = replace(tiny.SPEC, cross_features=CROSS)
    return replace(bundle, spec=spec, width=0, bundle_id=bundle_id_of(bundle.files, spec))


@dataclass(frozen=True)
class Night:
    """A run whose steps up to score are done, and what it was made from."""

    run: Run
    ranker: Bundle
    brands: np.ndarray
    events: np.ndarray
    seen: list[dict[int, tuple[int, int]]]  # for each user: catalogue row to (times, seconds since)

    def scores(self, options: ScoreOptions = OPTIONS, **more: Any) -> pa.Table:
        score(self.run, self.ranker, [0], options, **{"threads": 1, **more})
        return read_table(self.run.layout.scores(0, 1))


MakeNight = Callable[..., Night]


def write_seen(run: Run, user_ids: np.ndarray, seen: list[dict[int, tuple[int, int]]]) -> None:
    schema = schemas.seen(pa.int64())
    ordered = [sorted(had.items()) for had in seen]
    columns = [
        pa.array(user_ids),
        pa.array([[item for item, _ in had] for had in ordered], schema.field("items").type),
        pa.array([[times for _, (times, _) in had] for had in ordered], schema.field("times").type),
        pa.array([[gap for _, (_, gap) in had] for had in ordered], schema.field("last_gap").type),
    ]
    with writing_table(run.layout.seen(0, 1), schema, metadata={}, inputs="") as writer:
        writer.write(pa.table(columns, schema=schema))


@pytest.fixture
def make_night(
    make_run: Callable[..., Run], tiny: ModuleType, tmp_path: Path, item_bundle: Bundle, user_bundle: Bundle
) -> MakeNight:
    def make(*, users: int = 40, chosen: slice = slice(None), name: str = "run", weights: Any = None) -> Night:
        ranker = make_ranker(tiny, tmp_path / f"ranker-{name}", item_weights(tiny) if weights is None else weights)
        run = make_run(users=users, items=ITEMS, name=name)
        identity = {"model_id": ranker.model_id, "bundle_id": ranker.bundle_id}
        run = replace(run, bundles={**run.bundles, "ranker": identity})
        rng = np.random.default_rng(31)
        brands = rng.integers(-1, 4, ITEMS).astype(np.int32)
        catalogue = tiny.catalogue_of(ITEMS).add_column(3, "group_brand", pa.array(brands))
        with writing_table(run.layout.catalogue, catalogue.schema, metadata={}, inputs="") as writer:
            writer.write(catalogue)
        events = rng.integers(0, 6, ITEMS)
        order = [item for item in sorted(range(ITEMS), key=lambda item: (-events[item], item)) if events[item]]
        popular = [pa.array([100 + item for item in order]), pa.array(order, pa.int32()), pa.array(events[order])]
        schema = schemas.popular(pa.int64())
        with writing_table(run.layout.popular, schema, metadata={}, inputs="") as writer:
            writer.write(pa.table(popular, schema=schema))
        user_ids, inputs = tiny.shard_users(users, 0)
        seen = [
            {int(item): (int(item) % 3 + 1, int(item) * DAY // 4) for item in rng.permutation(ITEMS)[: user % 8 * 4]}
            for user in range(users)
        ]
        user_ids, seen = user_ids[chosen], seen[chosen]
        rows = tiny.history_rows({key: value[chosen] for key, value in inputs.items()}, user_ids)
        for path in (run.layout.histories(0, 1), run.layout.sample):
            with writing_table(path, rows.schema, metadata={}, inputs="") as writer:
                writer.write(rows)
        write_seen(run, user_ids, seen)
        embed_items(run, item_bundle, [0], threads=1)
        build_index(run, user_bundle, IndexOptions(), threads=1)
        compute_interests(run, user_bundle, [0], threads=1)
        return Night(run, ranker, brands, events, seen)

    return make


def listed_slowly(night: Night, tiny: ModuleType, options: ScoreOptions, *, ranked: bool) -> list[dict[str, Any]]:
    """The same lists as one would say it, user after user, in float64."""
    layout = night.run.layout
    indexed = read_table(layout.index.items)["item"].to_pylist()
    vectors = np.array(read_table(layout.items(0, 1))["vector"].to_pylist())
    catalogue = tiny.catalogue_of(ITEMS)["feature_item_id"].to_numpy()
    within = {"all": np.inf, "days": options.exclude_days * DAY, "none": -1}[options.exclude_seen]
    histories = read_table(layout.histories(0, 1)).to_pylist()
    rows = []
    for user, (row, history) in enumerate(zip(read_table(layout.interests(0, 1)).to_pylist(), histories, strict=True)):
        had = night.seen[user]
        excluded = {item for item, (_, gap) in had.items() if gap <= within}
        candidates = []
        if row["vectors"]:
            found = np.array(row["vectors"]) @ vectors.T
            free = [item for item in indexed if item not in excluded]
            for item in sorted(free, key=lambda item: (-found[:, item].max(), item))[: options.candidates]:
                retrieval = final = float(found[:, item].max())
                if ranked:
                    times, gap = had.get(item, (0, -1))
                    days = np.log1p(gap / DAY) if times else -1.0
                    cross = [retrieval, np.log1p(times), days, np.log1p(night.events[item])]
                    newest = (history["gap"] + [0])[0]
                    logit = item_weights(tiny)[catalogue[item]] + gap_weights(tiny)[newest] + cross @ MIX
                    final = 1 / (1 + np.exp(-logit))
                candidates.append((item, final, retrieval, int(found[:, item].argmax())))
        candidates.sort(key=lambda one: (-one[1], one[0]))
        popular = sorted(indexed, key=lambda item: (-night.events[item], item))
        offered = candidates + [(item, None, None, None) for item in popular if item not in excluded]
        chosen: list[tuple[Any, ...]] = []
        for one in offered:
            same = [other for other in chosen if night.brands[other[0]] == night.brands[one[0]] >= 0]
            full = len(chosen) == options.top_n or (options.rules and len(same) >= options.rules[0].at_most)
            if not full and one[0] not in [other[0] for other in chosen]:
                chosen.append(one)
        for rank, (item, final, retrieval, interest) in enumerate(chosen, start=1):
            rows.append(
                {
                    "user_id": row["user_id"],
                    "item_id": 100 + item,
                    "rank": rank,
                    "source": int(final is None),
                    "score": final if final is None else pytest.approx(final, abs=1e-5),
                    "retrieval_score": retrieval if final is None else pytest.approx(retrieval, abs=1e-5),
                    "interest": interest,
                }
            )
    return rows


@pytest.mark.parametrize("exclude", ["all", "days", "none"])
@pytest.mark.parametrize("rules", [(), (Rule("brand", 2),)])
def test_lists_agree_with_the_slow_version(
    make_night: MakeNight, tiny: ModuleType, exclude: str, rules: tuple[Rule, ...]
) -> None:
    """Each user gets, row for row, what exact search, the ranker's formula, the rules and the fallback give by hand."""
    night = make_night()
    options = replace(OPTIONS, exclude_seen=exclude, exclude_days=4, rules=rules)

    table = night.scores(options)

    expected = listed_slowly(night, tiny, options, ranked=True)
    assert len({row["user_id"] for row in expected}) == 40
    assert {row["source"] for row in expected} == {0, 1}
    assert table.to_pylist() == expected


def test_without_a_ranker_the_retrieval_score_is_the_score(make_night: MakeNight, tiny: ModuleType) -> None:
    """A run without a ranker lists candidates in the order in which they were retrieved."""
    night = make_night()
    bundles = {role: ids for role, ids in night.run.bundles.items() if role != "ranker"}
    run = replace(night.run, bundles=bundles)

    score(run, None, [0], OPTIONS, threads=1)

    table = read_table(run.layout.scores(0, 1))
    assert table.to_pylist() == listed_slowly(night, tiny, OPTIONS, ranked=False)
    ranked = table.filter(pc.equal(table["source"], schemas.SOURCE_RANKED))
    assert ranked["score"].equals(ranked["retrieval_score"])
    with pytest.raises(StaleRunError, match="prepared for a ranker, but none is given"):
        score(night.run, None, [0], OPTIONS, threads=1)


def test_counts_say_what_was_done(make_night: MakeNight, tiny: ModuleType) -> None:
    """Every count equals what the tables say."""
    night = make_night()

    result = score(night.run, night.ranker, [0], OPTIONS, threads=1)

    table = read_table(night.run.layout.scores(0, 1)).to_pylist()
    cold = sum(read_table(night.run.layout.interests(0, 1))["cold"].to_pylist())
    lengths = [sum(row["user_id"] == user * 10 for row in table) for user in range(40)]
    assert 0 < cold < 40
    assert result.rows == len(table)
    assert {name: result.counts[name] for name in ("users", "cold", "ranked_rows", "fallback_rows", "unfilled")} == {
        "users": 40,
        "cold": cold,
        "ranked_rows": sum(row["source"] == 0 for row in table),
        "fallback_rows": sum(row["source"] == 1 for row in table),
        "unfilled": sum(length < OPTIONS.top_n for length in lengths),
    }
    indexed = set(read_table(night.run.layout.index.items)["item"].to_pylist())
    warm = [bool(row) for row in read_table(night.run.layout.interests(0, 1))["vectors"].to_pylist()]
    short = [len(indexed - had.keys()) < OPTIONS.candidates for had in night.seen]
    assert result.counts["short_lists"] == sum(np.array(warm) & np.array(short))
    assert result.counts["seen_dropped"] > 0


def test_a_user_gets_the_same_in_other_company(make_night: MakeNight) -> None:
    """With half the users gone, the others' rows are the same to the bit."""
    together = make_night(name="all").scores()
    half = make_night(name="half", chosen=slice(1, None, 2)).scores()

    users = set(half["user_id"].to_pylist())
    assert len(users) == 20
    rows = together.filter(pc.is_in(together["user_id"], value_set=pa.array(sorted(users))))
    assert rows.equals(half)


def test_threads_change_no_byte(make_night: MakeNight) -> None:
    """One batch after the other or four side by side: the file has the same bytes."""
    night = make_night()
    path = night.run.layout.scores(0, 1)
    contents = []
    for threads in (1, 4):
        path.unlink(missing_ok=True)
        night.scores(threads=threads)
        contents.append(path.read_bytes())
    assert contents[0] == contents[1]


def test_only_indexed_items_are_recommended(make_night: MakeNight) -> None:
    """No list holds an ineligible item, an item twice, a number that is none, or a gap in its ranks."""
    night = make_night()
    table = night.scores()

    indexed = set(read_table(night.run.layout.index.items)["item_id"].to_pylist())
    popular = set(read_table(night.run.layout.popular)["item_id"].to_pylist())
    assert popular - indexed, "the case must hold popular items that may not be recommended"
    assert set(table["item_id"].to_pylist()) <= indexed
    pairs = list(zip(table["user_id"].to_pylist(), table["item_id"].to_pylist(), strict=True))
    assert len(set(pairs)) == len(pairs)
    for user in set(table["user_id"].to_pylist()):
        ranks = table.filter(pc.equal(table["user_id"], user))["rank"].to_pylist()
        assert ranks == list(range(1, len(ranks) + 1))
    ranked = table.filter(pc.equal(table["source"], schemas.SOURCE_RANKED))
    for name in ("score", "retrieval_score"):
        assert ranked[name].null_count == 0
        assert np.isfinite(ranked[name].to_numpy()).all()
    fallback = table.filter(pc.equal(table["source"], schemas.SOURCE_FALLBACK))
    assert all(fallback[name].null_count == len(fallback) > 0 for name in ("score", "retrieval_score", "interest"))


def test_a_finished_shard_is_skipped_until_something_changes(make_night: MakeNight) -> None:
    """A rerun writes nothing; other options or another seen table write anew, and fewer rows leave no old ones."""
    night = make_night()
    first = score(night.run, night.ranker, [0], OPTIONS, threads=1)
    again = score(night.run, night.ranker, [0], OPTIONS, threads=1)
    assert (first.skipped, again.skipped, again.rows) == (0, 1, 0)

    fewer = score(night.run, night.ranker, [0], replace(OPTIONS, top_n=3), threads=1)
    assert (fewer.skipped, fewer.rows) == (0, 120)
    assert read_table(night.run.layout.scores(0, 1)).num_rows == 120

    user_ids = read_table(night.run.layout.interests(0, 1))["user_id"].to_numpy()
    write_seen(night.run, user_ids, [{} for _ in user_ids])
    assert score(night.run, night.ranker, [0], replace(OPTIONS, top_n=3), threads=1).skipped == 0


def test_tables_of_other_users_are_refused(make_night: MakeNight) -> None:
    """A seen table whose users are not those of the interests is an error naming both, and writes nothing."""
    night = make_night()
    user_ids = read_table(night.run.layout.interests(0, 1))["user_id"].to_numpy()
    for users in (user_ids + 1, user_ids[:-1], user_ids[:0]):
        write_seen(night.run, users, [{} for _ in users])
        with pytest.raises(CorruptError, match=r"expected the users of .*interests"):
            night.scores()
        assert not night.run.layout.scores(0, 1).exists()


def test_a_shard_without_users_gives_an_empty_table(make_night: MakeNight) -> None:
    """No users, no rows, but a finished file with the schema."""
    table = make_night(users=40, chosen=slice(0, 0)).scores()

    assert table.num_rows == 0
    assert table.schema.remove_metadata().equals(schemas.scores(pa.int64(), pa.int64()))


def test_a_score_that_is_no_number_is_refused(make_night: MakeNight, tiny: ModuleType) -> None:
    """NaN from the ranker for one item stops the shard with an error that names a user."""
    weights = item_weights(tiny)
    weights[31] = np.nan
    night = make_night(weights=weights)

    with pytest.raises(InputError, match=r"user_id \d+: score is NaN or Inf"):
        night.scores(replace(OPTIONS, candidates=40))
    assert not night.run.layout.scores(0, 1).exists()


@pytest.mark.parametrize("name", ["interests", "seen", "histories", "index", "popular", "items"])
def test_a_changed_byte_is_found_before_use(make_night: MakeNight, name: str) -> None:
    """A flipped bit in any file that the step reads is an error that names the file."""
    night = make_night()
    layout = night.run.layout
    whole = {"index": layout.index.ivf, "popular": layout.popular}
    path = whole[name] if name in whole else getattr(layout, name)(0, 1)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)

    with pytest.raises(CorruptError, match=path.name):
        night.scores()


def test_an_earlier_step_must_be_done(make_night: MakeNight) -> None:
    """Without the index the step says which file is missing."""
    night = make_night()
    path = night.run.layout.index.ivf
    path.with_name(path.name + ".done.json").unlink()

    with pytest.raises(StaleRunError, match=r"ivf\.faiss is not finished"):
        night.scores()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"candidates": 0}, UsageError, "candidates: expected 1 to 65535, found 0"),
        ({"overfetch": 0.5}, UsageError, r"overfetch: expected 1 to 100, found 0\.5"),
        ({"top_n": 70_000}, UsageError, "top_n: expected 1 to 65535, found 70000"),
        ({"exclude_seen": "some"}, UsageError, "expected all, days or none, found 'some'"),
        ({"rules": (Rule("brand", 0),)}, UsageError, "at_most of brand: expected 1 to 65535, found 0"),
        ({"rules": (Rule("shop", 1),)}, UsageError, "name the group 'shop'; it has brand"),
    ],
)
def test_wrong_options_are_refused(
    make_night: MakeNight, change: dict[str, Any], error: type[NightrecError], message: str
) -> None:
    """An option that cannot be is named with its value and its bounds."""
    with pytest.raises(error, match=message):
        make_night().scores(replace(OPTIONS, **change))
