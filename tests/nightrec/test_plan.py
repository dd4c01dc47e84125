"""The plan: what it counts and how its estimates grow."""

import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from features.inputs import Inputs, Source
from features.mapped import HELD as HELD_AT_MOST
from nightrec.estimate import HELD, Means, Workload, estimate, kept_cost, total, type_of
from nightrec.inputs import count_inputs
from nightrec.main import execute
from nightrec.plan import readable
from nightrec.rates import Prices
from nightrec.values import bytes_of

SIZES = Workload(
    events=4_000_000, users=200_000, items=200_000, features=2, history=20, interests=4, width=64, ranked=True
)
MEANS = Means(cores=2, workers=1, memory=4_000_000_000, index_type="Flat", candidates=100, top_n=50)


@pytest.mark.parametrize(
    ("text", "size"),
    [("4GB", 4_000_000_000), ("1KiB", 1024), ("512 MiB", 512 * 1024**2), ("1.5GB", 1_500_000_000), ("70B", 70)],
)
def test_sizes_are_read_as_duckdb_reads_them(text: str, size: int) -> None:
    """GB are thousands, GiB are 1024."""
    assert bytes_of(text) == size


def test_the_night_is_the_sum_of_its_steps() -> None:
    """Disk and minutes add up, memory is the highest peak."""
    *steps, night = estimate(SIZES, MEANS)

    assert night.disk == sum(step.disk for step in steps)
    assert night.minutes == pytest.approx(sum(step.minutes for step in steps))
    assert night.memory == max(step.memory for step in steps)


def test_vectors_take_the_bytes_they_have() -> None:
    """200,000 items of 64 float32 are 51.2 MB, on disk and in a Flat index."""
    efforts = {effort.step: effort for effort in estimate(SIZES, MEANS)}

    assert efforts["items"].disk == 200_000 * 64 * 4
    assert efforts["index"].disk == 200_000 * 64 * 4
    assert efforts["score"].rows == 200_000 * 50


def test_popularity_widens_the_index_alone() -> None:
    """Four numbers stand behind each vector there: 200,000 x 68; the tables keep their 64."""
    efforts = {effort.step: effort for effort in estimate(SIZES, replace(MEANS, popularity=True))}

    assert efforts["index"].disk == 200_000 * 68 * 4
    assert efforts["items"].disk == 200_000 * 64 * 4


@pytest.mark.parametrize(
    ("memory", "kind", "size"),
    [(0, "Flat", 51_200_000), (52_800_000, "Flat", 51_200_000), (52_799_999, "SQ8", 12_800_000)],
)
def test_an_index_of_an_open_type_is_the_largest_that_fits(memory: int, kind: str, size: int) -> None:
    """200,000 items of 64 numbers and an id of 8 bytes: 52.8 MB as Flat; two are held, k-means is done seven times."""
    means = replace(MEANS, index_type="auto", index_memory=memory)
    said, plain = ({one.step: one for one in estimate(SIZES, of)} for of in (means, replace(MEANS, index_type=kind)))

    assert type_of(SIZES, means) == kind
    assert said["index"].disk == size
    assert said["index"].memory == plain["index"].memory + size
    assert plain["index"].minutes < said["index"].minutes < 7 * plain["index"].minutes
    assert said["score"] == plain["score"]

    limited = {one.step: one for one in estimate(SIZES, replace(MEANS, index_memory=10_000_000))}["index"]
    whole = {one.step: one for one in estimate(SIZES, MEANS)}["index"]
    assert (limited.disk, limited.memory) == (whole.disk, whole.memory - 51_200_000 + 10_000_000)


@pytest.mark.parametrize("more", [{"users": 400_000, "events": 8_000_000}, {"items": 400_000}, {"width": 128}])
def test_more_work_is_never_less_effort(more: dict[str, int]) -> None:
    """Doubling what goes in makes no step cheaper, and the night dearer."""
    before, after = estimate(SIZES, MEANS), estimate(replace(SIZES, **more), MEANS)  # type: ignore[arg-type]

    assert all(a.minutes >= b.minutes and a.disk >= b.disk for a, b in zip(after, before, strict=True))
    assert total(after)["minutes"] > total(before)["minutes"]


BILLION = Workload(
    events=60_000_000_000,
    users=1_000_000_000,
    items=100_000_000,
    features=2,
    history=20,
    interests=4,
    width=64,
    ranked=True,
)
MANY = replace(MEANS, cores=16, workers=64, index_type="SQ8", machines=64, index_threads=16)


def test_the_page_says_what_the_plan_of_a_billion_users_says() -> None:
    """docs/scale.md shows no number that the command would not print."""
    cores, cards = estimate(BILLION, MANY), estimate(BILLION, replace(MANY, machines=16, gpus=64))
    page = (Path(__file__).parents[2] / "docs" / "scale.md").read_text("utf-8")

    for one, other in zip(cores, cards, strict=True):
        shards = f"{one.shards:,}" if one.shards else ""
        sizes = " | ".join(readable(size) for size in (one.disk, one.fetched, one.worker))
        row = f"| {one.step} | {shards} | {sizes} | {one.minutes:,.0f} | {other.minutes:,.0f} |"
        assert row.replace("|  |", "| |") in page
    costs = f"cost {cores[-1].cost:.0f} or {cards[-1].cost:.0f} a night"
    assert f"{costs}, and seven nights in the store {kept_cost(cores, Prices()):.0f} a month" in page


def test_figures_that_can_be_worked_out_by_hand() -> None:
    """At a billion users the plan is these products, whatever its code looks like."""
    efforts = {effort.step: effort for effort in estimate(BILLION, MANY)}

    assert efforts["interests"].shards == 15_259  # 1e9 / 65,536, rounded up
    assert efforts["interests"].disk == 10**9 * (8 + 4 * 64 * 4)
    assert efforts["index"].disk == 10**8 * 64
    table = 10**8 * 64 * 4
    assert efforts["score"].worker == 600e6 + table + HELD + 10**8 * 64 + 10**8 * (24 + 4 * 2)
    searches = 4e9 * (10**8 / 200_000) ** 0.5 / 2_000
    assert efforts["score"].minutes == pytest.approx((searches + 1e11 / 50_000) / (64 * 16) / 60)
    assert efforts["prepare"].minutes == pytest.approx((6e10 / 5e5 + 1e9 / 5e5) / 16 / 60)


def test_what_spreads_is_halved_by_twice_the_machines_and_the_rest_stays() -> None:
    """Only items, interests and score are done by all machines."""
    before, after = (
        {effort.step: effort.minutes for effort in estimate(BILLION, replace(MANY, machines=machines, workers=256))}
        for machines in (64, 128)
    )

    assert after["score"] == pytest.approx(before["score"] / 2)
    assert {step: after[step] for step in ("prepare", "index", "check")} == {
        step: before[step] for step in ("prepare", "index", "check")
    }


def test_a_night_that_does_not_exist_is_planned(surface: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Counts that are said are not counted; rates and prices of a file are used, and all is in the answer."""
    rates = surface.parent / "rates.toml"
    rates.write_text("users = 50_000\nevents_a_user = 10\ncore_hour = 1\n")
    said = ["--users", "1000000", "--items", "1000", "--machines", "2", "--cores", "4", "--rates", str(rates), "--json"]

    assert execute(["plan", "--config", str(surface), *said]) == 0

    out, err = capsys.readouterr()
    answer = json.loads(out)
    assert answer["sizes"]["events"] == 10_000_000
    assert (answer["means"]["machines"], answer["means"]["workers"]) == (2, 2)
    assert (answer["rates"]["users"], answer["rates"]["pairs"], answer["prices"]["core_hour"]) == (50_000, 50_000, 1)
    steps = {step["step"]: step for step in answer["steps"]}
    assert steps["check"]["cost"] == pytest.approx(steps["check"]["minutes"] / 60 * 4)
    assert "2 machines of 4 cores" in err


@pytest.mark.parametrize(
    ("text", "options", "says"),
    [
        ("", ["--users", "5"], "--users and --items: give both"),
        ("user = 5", [], "user"),
        ("users = 0", [], "users: expected a number above 0, found 0"),
        ('users = "many"', [], "users"),
        ("", ["--memory", "a lot"], "--memory: expected a size such as 4GB, found 'a lot'"),
        ("", ["--memory", "4"], "--memory: expected a size such as 4GB, found '4'"),
    ],
)
def test_what_cannot_be_planned_is_refused(
    surface: Path, capsys: pytest.CaptureFixture[str], text: str, options: list[str], says: str
) -> None:
    """Half of the counts, an unknown rate, and a rate that is none are one line each, code 2."""
    rates = surface.parent / "rates.toml"
    rates.write_text(text)

    assert execute(["plan", "--config", str(surface), "--rates", str(rates), *options]) == 2
    assert says in capsys.readouterr().err


def test_vectors_past_what_is_held_are_a_file_and_no_memory() -> None:
    """100 million items: `index` holds twice 256 MiB of vectors, 64 for each list, 52 bytes an item, and the index."""
    assert HELD == HELD_AT_MOST == 2**28
    lists = 4 * 10_000
    for kind, of_an_item in (("SQ8", 64), ("PQ", 16)):
        efforts = {effort.step: effort for effort in estimate(BILLION, replace(MANY, index_type=kind))}
        assert efforts["index"].memory == 600e6 + 2 * 2**28 + lists * 64 * 4 * 64 + 10**8 * (
            24 + 4 * 2 + 20 + of_an_item
        )


def test_what_does_not_fit_is_said_with_what_helps(surface: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An index of 100 million items, of 4 numbers or more, is 1.6 GB, and the catalogue twice as much."""
    said = ["--users", "1000", "--items", "100000000", "--json"]
    steps = {}
    for memory in ("1TB", "4GB"):
        assert execute(["plan", "--config", str(surface), *said, "--memory", memory]) == 0
        out, err = capsys.readouterr()
        steps[memory] = (json.loads(out)["exceeding"], err)

    assert steps["1TB"][0] == []
    assert "index" in steps["4GB"][0]
    assert "a machine has 4.0 GB: take a smaller [index] type" in " ".join(steps["4GB"][1].split())


def test_no_users_are_no_error() -> None:
    """An empty day can be planned."""
    assert estimate(replace(SIZES, users=0, events=0, items=0), MEANS)


@pytest.mark.parametrize("lists", [False, True])
def test_events_are_counted_in_either_form(tmp_path: Path, lists: bool) -> None:
    """Rows of interactions and elements of ready-made histories are the same events; users of both tables count."""
    users = pa.array([1, 1, 2, 3], pa.int64())
    items = pa.array([10, 11, 10, 12], pa.int64())
    times = pa.array([0, 1, 2, 3], pa.timestamp("s", tz="UTC"))
    events = pa.table({"user": users, "item id": items, "time": times})
    if lists:
        events = events.group_by("user").aggregate([("item id", "list"), ("time", "list")])
        events = events.rename_columns(["user", "item id", "time"])
    pq.write_table(events, tmp_path / "events.parquet")
    pq.write_table(pa.table({"user_id": pa.array([3, 4, 5], pa.int64())}), tmp_path / "users.parquet")
    pq.write_table(pa.table({"item_id": pa.array([10, 11, 12], pa.int64())}), tmp_path / "items.parquet")
    names = ("item_ids", "times") if lists else ("item_id", "time")
    columns = {"user_id": "user", names[0]: "item id", names[1]: "time"}
    behaviours = Source(str(tmp_path / "events.parquet"), columns)
    inputs = Inputs(
        interactions=None if lists else behaviours,
        histories=behaviours if lists else None,
        users=Source(str(tmp_path / "users.parquet"), {"user_id": "user_id"}),
        items=Source(str(tmp_path / "items.parquet"), {"item_id": "item_id"}),
    )

    counted = count_inputs(inputs)

    assert (counted.events, counted.users, counted.items) == (4, 5, 3)
