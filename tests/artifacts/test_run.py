"""Runs and layouts: named by their content, read back as they were written."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from artifacts import errors
from artifacts.documents import write_json, write_sealed
from artifacts.errors import CorruptError, NightrecError, StaleRunError, UsageError
from artifacts.layout import BundleLayout, ReleaseLayout, RootLayout, RunLayout, shard_name, sidecar_of
from artifacts.run import Replay, Run, find_run, parse_group, parse_shards, replay_of, run_key_of, seen_within

BUNDLES = {"item": {"model_id": "m", "bundle_id": "b"}}
SEMANTIC = {"top_n": 50}
PROFILE = {"device": "cpu"}
RUN = Run(
    folder=Path("runs"),
    run_key=run_key_of("d" * 64, BUNDLES, SEMANTIC, PROFILE),
    date="2026-01-02",
    now=1767398400,
    inputs="d" * 64,
    user_id="string",
    item_id="uint64",
    shards=3,
    item_shards=2,
    bundles=BUNDLES,
    semantic=SEMANTIC,
    profile=PROFILE,
    counts={"users": 7},
)


def prepared(root: Path) -> Run:
    folder = RootLayout(root).run(RUN.date, RUN.run_key).folder
    run = replace(RUN, folder=folder)
    run.write()
    return run


def test_run_reads_back_as_it_was_written(tmp_path: Path) -> None:
    """A run that was moved is the same run in another folder; its types are Arrow's."""
    run = prepared(tmp_path)
    assert Run.read(run.folder) == run
    assert (run.user_type, run.item_type) == (pa.string(), pa.uint64())
    said = {"data_date": "2026-01-02", "run_key": RUN.run_key, "inputs": "d" * 64, "model_id_item": "m"}
    assert run.metadata() == said


def test_current_run_is_found_or_said_to_be_missing(tmp_path: Path) -> None:
    """The run of a date is the one ``prepare`` names; without one the message says what to run."""
    with pytest.raises(StaleRunError, match="nightrec prepare --date 2026-01-02"):
        find_run(tmp_path, RUN.date)
    run = prepared(tmp_path)
    write_json(RootLayout(tmp_path).current_run(RUN.date), {"run_key": RUN.run_key})
    assert find_run(tmp_path, RUN.date) == run
    assert find_run(tmp_path, RUN.date, RUN.run_key) == run
    with pytest.raises(StaleRunError, match="not a prepared run"):
        find_run(tmp_path, RUN.date, "0123456789abcdef")


@pytest.mark.parametrize("text", ["", "[]", '{"format": 2}', '{"format": 1}'])
def test_foreign_run_is_corrupt(tmp_path: Path, text: str) -> None:
    """Whatever stands in run.json that is not ours is an error that names it."""
    run = prepared(tmp_path)
    run.layout.run.write_text(text)
    with pytest.raises(CorruptError, match=r"run\.json"):
        Run.read(run.folder)


def test_every_changed_byte_of_a_run_is_found(tmp_path: Path) -> None:
    """Rule 13 holds for run.json: each of its bytes is sealed, such as those of the counts, which no key covers."""
    run = prepared(tmp_path)
    whole = run.layout.run.read_bytes()
    for place in range(len(whole)):
        run.layout.run.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(CorruptError, match=r"run\.json: "):
            Run.read(run.folder)
    run.layout.run.write_bytes(whole.replace(b'"users": 7', b'"users": 8'))
    with pytest.raises(CorruptError, match=r"its own digest differs\); run `nightrec prepare` again"):
        Run.read(run.folder)


def test_run_of_another_key_is_corrupt(tmp_path: Path) -> None:
    """A well-formed run.json whose key is not that of its fields is refused, and both keys are named."""
    run = prepared(tmp_path)
    replace(run, semantic={"top_n": 51}).write()
    with pytest.raises(CorruptError, match=rf"run_key is {run.run_key}, but its fields give \w+"):
        Run.read(run.folder)
    write_sealed(run.layout.run, {"run_key": run.run_key}, version=1)
    with pytest.raises(CorruptError, match=r"run\.json: expected a run's fields"):
        Run.read(run.folder)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("date", "yesterday"),
        ("run_key", RUN.run_key[:-1]),
        ("inputs", "d" * 63),
        ("user_id", "int32"),
        ("item_id", None),
        ("now", -1),
        ("now", True),
        ("shards", 0),
        ("item_shards", 0),
        ("bundles", {"item": "m"}),
        ("model_id", {"item": {"bundle_id": "b"}}),
        ("bundle_id", {"item": {"model_id": "m", "bundle_id": 1}}),
        ("'rows'", {"item": {"model_id": "m", "bundle_id": "b", "rows": 1}}),
        ("semantic", []),
        ("profile", None),
        ("counts", [7]),
        ("users", {"users": -1}),
        ("'folder'", "/elsewhere"),
        ("'more'", 1),
    ],
)
def test_a_strange_field_of_a_run_is_named(tmp_path: Path, field: str, value: Any) -> None:
    """A field that is missing, of another form or not ours is an error that names it, though the seal is right."""
    run = prepared(tmp_path)
    key = {"model_id": "bundles", "bundle_id": "bundles", "'rows'": "bundles", "users": "counts"}.get(field, field)
    write_sealed(run.layout.run, {**run.document(), key.strip("'"): value}, version=1)
    with pytest.raises(CorruptError, match=rf"expected a run's fields \(.*{field}.*\); run `nightrec prepare` again"):
        Run.read(run.folder)


def test_the_least_run_is_a_run(tmp_path: Path) -> None:
    """A run of one shard, of nobody, at the beginning of time reads back."""
    run = replace(prepared(tmp_path), now=0, shards=1, item_shards=1, counts={"users": 0})
    run.write()
    assert Run.read(run.folder) == run


def test_a_run_is_found_where_its_key_and_date_say(tmp_path: Path) -> None:
    """What is no key, names no prepared run, or is another date's run, is said in words that name it."""
    run = prepared(tmp_path)
    current = RootLayout(tmp_path).current_run(RUN.date)
    for key in ("0123456789ABCDEF", "0" * 17, ""):
        with pytest.raises(UsageError, match=f"^--run {key}: expected the key of a run, 16 hex digits"):
            find_run(tmp_path, RUN.date, key)
    with pytest.raises(StaleRunError, match=f"no run of {RUN.date} is prepared under {tmp_path}"):
        find_run(tmp_path, RUN.date)
    write_json(current, {"run_key": "0" * 16})
    with pytest.raises(StaleRunError, match=f"^{current}: names run {'0' * 16}, which is not prepared"):
        find_run(tmp_path, RUN.date)
    for document in ({}, {"run_key": "latest"}, {"run_key": RUN.run_key, "date": RUN.date}):
        write_json(current, document)
        with pytest.raises(CorruptError, match=rf"^{current}: expected the key of a run \(.*run_key"):
            find_run(tmp_path, RUN.date)
    other = RootLayout(tmp_path).run("2026-01-03", RUN.run_key)
    other.folder.parent.mkdir(parents=True)
    run.folder.rename(other.folder)
    with pytest.raises(
        CorruptError, match=rf"^{other.run}: is run {RUN.run_key} of 2026-01-02; run `nightrec prepare`"
    ):
        find_run(tmp_path, "2026-01-03", RUN.run_key)


def test_a_replay_is_the_run_in_one_shard(tmp_path: Path) -> None:
    """All but the number of shards is the run's own, and its tables lie beside those of the run."""
    run = replace(RUN, folder=tmp_path)
    replay = replay_of(run)
    assert isinstance(replay, Replay)
    assert (replay.shards, replay.item_shards, replay.document()) == (1, 2, {**run.document(), "shards": 1})
    assert replay.layout.happened.relative_to(tmp_path).as_posix() == "prepare/replay/happened.arrow"
    assert replay.layout.catalogue == run.layout.catalogue


def test_run_key_depends_on_each_part() -> None:
    """Inputs, bundles, semantic config and profile all enter the key; the order of their keys does not."""
    parts = ("i", {"item": {"model_id": "m", "bundle_id": "b"}}, {"a": 1, "b": 2}, {"device": "cpu"})
    key = run_key_of(*parts)
    assert len(key) == 16
    assert run_key_of(parts[0], parts[1], {"b": 2, "a": 1}, parts[3]) == key
    assert run_key_of("j", *parts[1:]) != key
    assert run_key_of(parts[0], {}, *parts[2:]) != key
    assert run_key_of(*parts[:2], {"a": 1}, parts[3]) != key
    assert run_key_of(*parts[:3], {"device": "gpu"}) != key


@pytest.mark.parametrize(
    ("text", "shards"),
    [("0/1", [0]), ("3/64", [3]), ("0-7/64", list(range(8))), ("63-63/64", [63]), ("0-63/64", range(64))],
)
def test_shards_are_read_with_both_ends(text: str, shards: list[int]) -> None:
    """A group of shards names its first and last shard."""
    assert list(parse_shards(text, int(text.split("/")[1]))) == list(shards)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        *((text, "expected i/n or first-last/n") for text in ("", "3", "3/", "/4", "a/4", "1-2-3/4", "0/4/4", "1.0/4")),
        *((text, "expected shards between 0 and 3, first to last") for text in ("4/4", "2-1/4", "0-4/4")),
        ("-1/4", "expected i/n or first-last/n"),
        ("1/8", "this run has 4 shards, not 8"),
    ],
)
def test_wrong_shards_are_a_usage_error(text: str, says: str) -> None:
    """What cannot be read, or does not fit the run, repeats what was given."""
    with pytest.raises(UsageError, match=rf"^--shard {text}: {says}"):
        parse_shards(text, 4)


@pytest.mark.parametrize(
    ("shards", "groups", "expected"),
    [
        (3, 2, [[0], [1, 2]]),
        (2, 4, [[], [0], [], [1]]),
        (5, 1, [[0, 1, 2, 3, 4]]),
        (8, 3, [[0, 1], [2, 3, 4], [5, 6, 7]]),
        (0, 2, [[], []]),
    ],
)
def test_groups_hold_each_shard_once(shards: int, groups: int, expected: list[list[int]]) -> None:
    """Who maps a step over groups need not know how many shards a run has."""
    assert [list(parse_group(f"{group}/{groups}", shards)) for group in range(groups)] == expected


@pytest.mark.parametrize(
    ("text", "says"),
    [
        *((text, "expected i/n, such as 0/4") for text in ("", "3", "/4", "0-1/4", "1.0/4", "0/4/4")),
        *((text, "groups are counted from 0: expected i below n") for text in ("4/4", "-1/4", "0/0")),
    ],
)
def test_wrong_groups_are_a_usage_error(text: str, says: str) -> None:
    """What cannot be read repeats what was given."""
    with pytest.raises(UsageError, match=rf"^--group {text}: {says}"):
        parse_group(text, 4)


@settings(max_examples=25, deadline=None)
@given(shards=st.integers(1, 300))
def test_shard_names_ascend_with_their_numbers(shards: int) -> None:
    """Sorted by name, shards are sorted by number."""
    names = [shard_name(shard, shards) for shard in range(shards)]
    assert sorted(names) == names
    assert len(set(names)) == shards


def test_names_on_disk_are_these(tmp_path: Path) -> None:
    """The names of a run, a bundle and a release are a contract with readers of other languages."""
    run, bundle, release, root = (
        RunLayout(tmp_path),
        BundleLayout(tmp_path),
        ReleaseLayout(tmp_path),
        RootLayout(tmp_path),
    )
    named = {
        run.scores(3, 64): "scores/00003-of-00064.arrow",
        run.interests(0, 1): "interests/00000-of-00001.arrow",
        run.items(0, 1): "items/00000-of-00001.arrow",
        run.histories(0, 1): "prepare/histories/00000-of-00001.arrow",
        run.seen(0, 1): "prepare/seen/00000-of-00001.arrow",
        run.catalogue: "prepare/catalogue.arrow",
        run.index.ivf: "index/ivf.faiss",
        run.index.items: "index/items.arrow",
        run.index.parameters: "index/index.json",
        run.record.gates: "record/gates.json",
        bundle.contract: "bundle.json",
        bundle.graph: "model.onnx",
        bundle.external_data: "model.onnx.data",
        bundle.vocabulary("brand"): "vocabularies/brand.arrow",
        release.manifest: "manifest.json",
        release.record.contents: "record/record.json",
        root.latest: "LATEST",
        root.channel("shadow"): "channels/shadow",
        root.release("v").folder: "releases/v",
        root.run("2026-01-02", "k").run: "runs/2026-01-02/k/run.json",
        sidecar_of(run.catalogue): "prepare/catalogue.arrow.done.json",
    }
    assert {path.relative_to(tmp_path).as_posix() for path in named} == set(named.values())
    # A release has its tables under the names that the run has.
    assert [release.scores, release.interests, release.items] == [
        run.scores(0, 1).parent,
        run.interests(0, 1).parent,
        run.items(0, 1).parent,
    ]


def test_exit_codes_are_those_of_the_readme() -> None:
    """Every error raised on purpose ends with the exit code that its docstring table gives it."""
    table = errors.__doc__ or ""
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, NightrecError)]
    for kind in kinds:
        line = next(line for line in table.splitlines() if kind.__name__ in line)
        assert kind.exit_code == int(line.split(kind.__name__)[1].split()[0])
    assert len(kinds) == 12


def test_the_policy_of_seen_items_is_a_time() -> None:
    """All that was ever had, what was had in the last days to the second, or nothing, which no gap is below."""
    assert seen_within("all", 30) is None
    assert seen_within("days", 2) == 172_800
    assert seen_within("none", 30) == -1
