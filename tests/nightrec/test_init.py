"""``nightrec init``: a stranger's folder becomes a config that a night can use, or one clear line."""

import json
import os
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from features.inputs import check_inputs
from nightrec.config import Config, read_config
from nightrec.config_verbs import mistakes_in
from nightrec.inputs import inputs_of
from nightrec.main import execute
from tests.nightrec.stranger import EVENTS, ITEMS, USERS, drawn, write_csv


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to write into; the data lie in ``data`` below it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    return tmp_path


def made(here: Path, *options: str) -> Config:
    """Write the config, and see that a night could use it."""
    assert execute(["init", "data", "--yes", *options]) == 0
    assert list(mistakes_in(here / "job.toml")) == []
    config = read_config(here / "job.toml")
    check_inputs(inputs_of(config))
    return config


def copied(here: Path, name: str) -> pa.Table:
    return pq.read_table(here / "inputs" / f"{name}.parquet")


def test_what_a_night_can_read_stays_where_it_lies(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of good Parquet nothing is copied; the columns keep their names, and categories become features."""
    events = drawn()
    (here / "data/events").mkdir()
    for part in range(2):
        some = events[part::2]
        pq.write_table(
            pa.table(
                {
                    "visitorid": pa.array([2**63 + user for user, _, _ in some], pa.uint64()),
                    "itemid": pa.array([item for _, item, _ in some], pa.int32()),
                    "timestamp": pa.array([int(time.timestamp() * 1000) for _, _, time in some], pa.int64()),
                    "event": ["view" if user % 2 else "buy" for user, _, _ in some],
                }
            ),
            here / "data/events" / f"part-{part}.parquet",
        )
    items = {
        "itemid": pa.array(range(ITEMS), pa.int64()),
        "name": [f"Thing {item}" for item in range(ITEMS)],
        "brand": ["red" if item % 2 else "blue" for item in range(ITEMS)],
        "price": [1.5 * item for item in range(ITEMS)],
        "other_code": [f"x{item}" for item in range(ITEMS)],
    }
    pq.write_table(pa.table(items), here / "data/items.parquet")

    config = made(here)

    assert not (here / "inputs").exists()
    interactions = config.inputs.interactions
    assert interactions is not None
    assert (interactions.path, interactions.user_id, interactions.item_id, interactions.time, interactions.event) == (
        str(here / "data/events"),
        "visitorid",
        "itemid",
        "timestamp",
        "event",
    )
    assert interactions.time_unit == "ms"
    assert "naive_zone" not in (here / "job.toml").read_text()
    assert "milliseconds since 1970, such as 17" in capsys.readouterr().err
    assert (config.inputs.items.item_id, config.inputs.items.title) == ("itemid", "name")
    assert config.inputs.items.features == {"brand": "brand"}
    assert config.inputs.users is None
    assert config.train is not None
    assert (config.train.until.isoformat(), config.train.validate_days) == ("2026-02-23", 6)  # of 60 days
    assert (config.retrieve.candidates, config.score.top_n) == (ITEMS, ITEMS)


def test_one_raw_file_of_a_shop_becomes_three_tables(here: Path) -> None:
    """Latin-1, gaps in the users, their ids with a .0, letters in the items', times as text: all of one CSV file."""
    write_csv(
        here / "data/online retail.csv",
        ["InvoiceNo", "StockCode", "Description", "Quantity", "InvoiceDate", "UnitPrice", "CustomerID", "Country"],
        [
            (
                536_000 + place // 5,
                f"{85_000 + item}{'A' if item % 7 == 0 else ''}",
                f"THING £{item}" if place % 9 else f"thing {item}?",
                -1 if place % 50 == 0 else 2,
                f"{time.month}/{time.day}/{time.year} {time.hour}:{time.minute:02d}",
                1.5,
                "" if place % 5 == 0 else f"{17_000 + user}.0",
                ["United Kingdom", "France"][user % 2],
            )
            for place, (user, item, time) in enumerate(drawn())
        ],
        encoding="latin-1",
    )

    config = made(here, "--timezone", "Europe/London")

    events = copied(here, "interactions")
    assert events.num_rows == EVENTS
    assert events["user_id"].null_count == EVENTS // 5
    first = drawn()[1]
    assert events["user_id"][1].as_py() == 17_000 + first[0]
    assert events["time"][1].as_py() == first[2]
    items = copied(here, "items")
    assert items["item_id"].to_pylist() == sorted(f"{85_000 + i}{'A' if i % 7 == 0 else ''}" for i in range(ITEMS))
    assert items["title"][0].as_py() == "THING £0"  # the more frequent of two
    users = copied(here, "users")
    assert users["user_id"].to_pylist() == [17_000 + user for user in range(USERS)]
    assert users["country"][1].as_py() == "France"
    assert config.inputs.interactions is not None
    assert config.inputs.interactions.naive_zone == config.surface.timezone == "Europe/London"
    assert config.inputs.users is not None
    assert config.inputs.users.features == {"country": "country"}


def test_ids_stay_as_they_are_written(here: Path) -> None:
    """Leading zeros survive in every table, behind semicolons, decimal commas, and names in other letters."""
    write_csv(
        here / "data/Käufe 2026.csv",
        ["Kunde (user)", "Artikel-SKU", "Zeit time", "Preis"],
        [(f"{user:05d}", f"{item:04d}", f"{time:%d.%m.%Y %H:%M}", "1,50") for user, item, time in drawn()],
        delimiter=";",
    )
    names = [(f"{item:04d}", f"Ding {item}; groß", ["Tür", "Bär", "Öl"][item % 3]) for item in range(ITEMS)]
    write_csv(here / "data/Artikel.csv", ["sku", "name", "Kategorie"], names, delimiter=";")

    config = made(here)

    user, item, time = drawn()[0]
    assert copied(here, "interactions").slice(0, 1).to_pylist() == [
        {"user_id": f"{user:05d}", "item_id": f"{item:04d}", "time": time}
    ]
    assert copied(here, "items").slice(2, 1).to_pylist() == [
        {"item_id": "0002", "title": "Ding 2; groß", "kategorie": "Öl"}
    ]
    assert config.inputs.items.features == {"kategorie": "kategorie"}


def test_tables_of_unlike_ids_are_brought_to_one_type(here: Path) -> None:
    """Floats with gaps are whole numbers again; where one table has text, the others get it too."""
    events = drawn()
    pq.write_table(
        pa.table(
            {
                "customer_id": pa.array([None if n % 7 == 0 else float(user) for n, (user, _, _) in enumerate(events)]),
                "product_id": pa.array([item for _, item, _ in events], pa.int32()),
                "date": pa.array([time.date() for _, _, time in events]),
            }
        ),
        here / "data/sales.parquet",
    )
    listed = [(item % ITEMS, f"name {item}") for item in range(ITEMS + 3)] + [("new-1", "not sold yet")]
    write_csv(here / "data/products.csv", ["product_id", "title"], listed)

    made(here)

    sales, products = copied(here, "interactions"), copied(here, "items")
    assert sales["user_id"].type == pa.int64()
    assert sales["item_id"][0].as_py() == str(events[0][1])
    assert products.num_rows == ITEMS + 1
    assert products.slice(0, 2).to_pylist() == [
        {"item_id": "0", "title": "name 0"},  # of two that are as frequent, the smaller
        {"item_id": "1", "title": "name 1"},
    ]


def test_numbered_files_are_one_table_and_a_doubt_is_told(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Names that differ by numbers only are parts; of two likely users the other is named, and can be said."""
    for part in range(3):
        write_csv(
            here / "data" / f"log {part}.csv",
            ["customer_id", "user_id", "product_id", "created_at"],
            [(user + 1000, user, item, f"{time.isoformat()}+01:00") for user, item, time in drawn()[part::3]],
        )
    (here / "data/.hidden.csv").write_text("x")
    (here / "data/empty.csv").touch()
    (here / "data/README.md").write_text("about")

    assert execute(["init", "data", "--yes", "--json"]) == 0

    told = capsys.readouterr()
    for name in (".hidden.csv is hidden", "empty.csv is empty", "README.md is neither"):
        assert f"passed over: {name}" in told.err
    guessed = {one["what"]: one for one in json.loads(told.out)["guessed"]}
    assert guessed["user_id"]["taken"] == "user_id"
    assert "it may be customer_id too" in guessed["user_id"]["why"]
    assert copied(here, "interactions").num_rows == EVENTS
    assert copied(here, "interactions")["time"][
        0
    ].as_py().isoformat() == f"{drawn()[0][2] - timedelta(hours=1)}+00:00".replace(" ", "T")
    assert execute(["init", "data", "--yes", "--user", "customer_id", "--overwrite"]) == 0
    assert copied(here, "interactions")["user_id"][0].as_py() == drawn()[0][0] + 1000


@pytest.mark.parametrize(
    ("header", "row", "options", "code", "said"),
    [
        (["userId", "movieId", "rating"], "{u},{i},3", [], 2, "has no time among userId, movieId, rating"),
        (["userId", "thing", "time"], "{u},{i},{s}", [], 2, "name them by --item COLUMN"),
        (
            ["userId", "thing", "time"],
            "{u},{i},{s}",
            ["--item", "thng"],
            2,
            "no table has such a column; did you mean 'thing'?",
        ),
        (["user", "item", "time"], "{u},{i},{d}/{d}/2025", [], 2, "can be read as %d/%m/%Y or as %m/%d/%Y; say which"),
        (["user", "item", "time"], "{u},{i},soon", ["--time", "time"], 2, "are no moments that we know"),
        (["7", "3", "1767225600"], "{u},{i},{s}", [], 4, "expected the names of the columns in the first line"),
        (["user", "item", "time"], "{u},{i},{s}", ["--timezone", "Mars/Here"], 2, "time zone Mars/Here: not known"),
        (
            ["user", "item", "time"],
            "{u},{i},{d}.{d}.2025",
            ["--time-format", "%Y"],
            4,
            "600 of 600 times cannot be read as %Y",
        ),
    ],
)
def test_what_cannot_be_guessed_ends_with_one_line(
    here: Path,
    capsys: pytest.CaptureFixture[str],
    header: list[str],
    row: str,
    options: list[str],
    code: int,
    said: str,
) -> None:
    """The line names the file or column, and the option that helps; nothing is written."""
    rows = [row.format(u=n % 50, i=n % 20, s=1_767_225_600 + 600 * n, d=1 + n % 12) for n in range(600)]
    (here / "data/e.csv").write_text("\n".join([",".join(header), *rows]))

    assert execute(["init", "data", "--yes", *options]) == code

    told = capsys.readouterr().err.splitlines()
    assert said in told[-1]
    assert not (here / "job.toml").exists()


@pytest.mark.parametrize(
    ("files", "code", "said"),
    [
        ({}, 2, "data: expected Parquet or CSV files with rows, found none"),
        ({"e.csv": b"user,item,time\n"}, 2, "found none (e.csv has no row)"),
        ({"a.parquet": b"PAR1 nonsense"}, 4, "a.parquet: expected a whole Parquet file"),
        ({"events/a.parquet": b""}, 4, "a.parquet: expected a Parquet file, found zero bytes"),
        ({"events/a.parquet": b"x", "events/b.txt": b"x"}, 2, "events/ is no folder of Parquet or of CSV files alone"),
    ],
)
def test_a_folder_without_a_table_ends_with_one_line(
    here: Path, capsys: pytest.CaptureFixture[str], files: dict[str, bytes], code: int, said: str
) -> None:
    """What was passed over is in the line."""
    for name, content in files.items():
        (here / "data" / name).parent.mkdir(exist_ok=True)
        (here / "data" / name).write_bytes(content)

    assert execute(["init", "data", "--yes"]) == code

    assert said in capsys.readouterr().err.splitlines()[-1]


def test_at_a_terminal_it_asks_what_is_not_clear(here: Path) -> None:
    """Of two likely users one is chosen there, and nothing is written before a yes; the config may lie elsewhere."""
    rows = [(user + 1000, user, item, int(time.timestamp())) for user, item, time in drawn()]
    write_csv(here / "data/e.csv", ["customer_id", "user_id", "product_id", "ts"], rows)
    master, slave = os.openpty()
    for answers, code in ((b"\nn\n", 2), (b"customer_id\ny\n", 0)):
        os.write(master, answers)
        arguments = ["init", "data", "--config", "far/away/job.toml"]
        finished = subprocess.run(
            [Path(sys.executable).with_name("nightrec"), *arguments],
            stdin=slave,
            stderr=slave,
            check=False,
            timeout=120,
        )
        assert finished.returncode == code
        assert (here / "far/away/job.toml").exists() == (code == 0)
    os.close(master)
    os.close(slave)

    users = pq.read_table(here / "far/away/inputs/interactions.parquet")["user_id"]
    assert users[0].as_py() == 1000 + drawn()[0][0]


def test_nothing_is_written_without_being_told(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a terminal and --yes nothing is; what is there already stays, unless it may be replaced."""
    rows = [(user, item, int(time.timestamp())) for user, item, time in drawn()]
    write_csv(here / "data/e.csv", ["user", "item", "ts"], rows)

    assert execute(["init", "data"]) == 2
    assert "--yes takes what was guessed" in capsys.readouterr().err
    assert not (here / "job.toml").exists()
    (here / "job.toml").write_text("mine")
    assert execute(["init", "data", "--yes"]) == 2
    assert "job.toml is there already" in capsys.readouterr().err
    assert (here / "job.toml").read_text() == "mine"
    assert execute(["init", "data/e.csv", "--yes", "--overwrite"]) == 0
    assert list(mistakes_in(here / "job.toml")) == []


def test_copies_of_before_are_no_table(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who begins in the folder of the files themselves, and begins again, is told of the files alone."""
    rows = [(user, item, int(time.timestamp())) for user, item, time in drawn()]
    write_csv(here / "data/e.csv", ["user", "item", "ts"], rows)
    monkeypatch.chdir(here / "data")
    assert execute(["init", ".", "--yes"]) == 0
    first = (here / "data/job.toml").read_text()

    assert execute(["init", ".", "--yes", "--overwrite"]) == 0

    assert "passed over: inputs/ has the copies of before" in capsys.readouterr().err
    assert (here / "data/job.toml").read_text() == first


@pytest.mark.parametrize("form", ["parquet", "text", "csv"])
def test_items_that_are_not_eligible_stay_so(here: Path, capsys: pytest.CaptureFixture[str], form: str) -> None:
    """The mark is no feature, whatever it is written in; a table that nothing was made of is named."""
    events = [(user, item, time.isoformat(" ")) for user, item, time in drawn()]
    write_csv(here / "data/events.csv", ["user_id", "item_id", "time"], events)
    marks = [item % 5 != 0 for item in range(ITEMS)]
    if form == "csv":
        rows = list(zip(range(ITEMS), map(str, marks), strict=True))
        write_csv(here / "data/items.csv", ["item_id", "eligible"], rows)
    else:
        told = marks if form == "parquet" else ["yes" if mark else "no" for mark in marks]
        pq.write_table(pa.table({"item_id": range(ITEMS), "eligible": told}), here / "data/items.parquet")
    write_csv(here / "data/taken_down.csv", ["id"], [[3], [5], [7]])

    config = made(here, "--json")

    assert config.inputs.items is not None
    assert config.inputs.items.eligible == "eligible"
    assert config.inputs.items.features == {}
    path = here / ("data" if form == "parquet" else "inputs") / "items.parquet"
    assert dict(zip(*pq.read_table(path, columns=["item_id", "eligible"]).to_pydict().values(), strict=True)) == dict(
        enumerate(marks)
    )
    guessed = {one["what"]: one["taken"] for one in json.loads(capsys.readouterr().out)["guessed"]}
    assert (guessed["eligible"], guessed["not taken"]) == ("eligible", "taken_down.csv")


@pytest.mark.parametrize(("different", "seen"), [(8, "none"), (9, "all")])
def test_whether_people_take_things_again_is_counted(
    here: Path, capsys: pytest.CaptureFixture[str], different: int, seen: str
) -> None:
    """No sketch decides it: of ten events of each of a thousand users, two or one repeat another."""
    start = datetime(2026, 1, 1)
    rows = [
        (user, (user + number % different) % 500, start + timedelta(hours=number * 24 + user % 24))
        for user in range(1000)
        for number in range(10)
    ]
    columns = dict(zip(("user_id", "item_id", "time"), map(list, zip(*rows, strict=True)), strict=True))
    pq.write_table(pa.table(columns), here / "data/events.parquet")
    pq.write_table(pa.table({"item_id": range(500)}), here / "data/items.parquet")

    config = made(here)

    assert config.retrieve.exclude_seen == seen
    assert f"# {10 * (10 - different)}% of the events repeat one" in (here / "job.toml").read_text()
    assert "10,000 events, 1,000 users, 500 items, 10 days with events" in capsys.readouterr().err
