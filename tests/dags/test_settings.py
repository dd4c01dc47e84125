"""The settings of the DAGs: what the environment says of each surface, the data date, and the command lines."""

import re
from datetime import UTC, date, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from dags.night.settings import DEFAULTS, SettingError, Surface, data_date, read_surfaces, said

BERLIN = ZoneInfo("Europe/Berlin")


def surface(**environment: str) -> Surface:
    (read,) = read_surfaces(environment, lambda folder: ["shop.toml"])
    return read


def test_each_config_of_the_folder_is_a_surface() -> None:
    """Names are listed and sorted; hidden and other files are no surfaces."""
    asked: list[str] = []

    def names_in(folder: str) -> list[str]:
        asked.append(folder)
        return ["shop.toml", ".old.toml", "feed.toml", "notes.txt"]

    read = read_surfaces({"NIGHTREC_CONFIGS": "/conf/"}, names_in)

    assert asked == ["/conf/"]
    assert [one.config for one in read] == ["/conf/feed.toml", "/conf/shop.toml"]
    assert [one.dag_id for one in read] == ["nightrec_feed", "nightrec_shop"]


def test_configs_that_are_named_are_not_looked_for() -> None:
    """A pod may see a folder that Airflow does not see."""
    read = read_surfaces({"NIGHTREC_CONFIGS": "/job/shop.toml, /job/feed.toml"}, lambda folder: 1 / 0)

    assert [one.config for one in read] == ["/job/shop.toml", "/job/feed.toml"]


def test_a_setting_may_be_said_for_one_surface() -> None:
    """The surface's own setting comes before the general one, and that before the default."""
    environment = {
        "NIGHTREC_SCHEDULE": "0 4 * * *",
        "NIGHTREC_SCHEDULE__SHOP_DE": "none",
        "NIGHTREC_GROUPS__FEED": "8",
    }

    feed, shop = read_surfaces(environment, lambda folder: ["shop-de.toml", "feed.toml"])

    assert (feed.texts["SCHEDULE"], feed.numbers["GROUPS"]) == ("0 4 * * *", 8)
    assert (shop.texts["SCHEDULE"], shop.numbers["GROUPS"]) == ("none", 2)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("NIGHTREC_GROUPS", "0", "NIGHTREC_GROUPS: expected a whole number of at least 1, found '0'"),
        ("NIGHTREC_RETRIES", "two", "NIGHTREC_RETRIES: expected a whole number of at least 0, found 'two'"),
        ("NIGHTREC_WHERE", "podman", "NIGHTREC_WHERE: expected process, docker or kubernetes, found 'podman'"),
        ("NIGHTREC_TIMEZONE", "Berlin", "NIGHTREC_TIMEZONE: no time zone is called 'Berlin'"),
        ("NIGHTREC_SCHEDULE", "0 2", "NIGHTREC_SCHEDULE: expected the five fields of cron, or none, found '0 2'"),
        ("NIGHTREC_SCHEDULE", "@never", "NIGHTREC_SCHEDULE: expected the five fields of cron, or none, found '@never'"),
        ("NIGHTREC_COMMAND", "a'b", 'NIGHTREC_COMMAND: expected a command, in the words of a shell, found "a\'b"'),
        ("NIGHTREC_COMMAND", "", "NIGHTREC_COMMAND: expected a command, in the words of a shell, found ''"),
        ("NIGHTREC_GROUPS__SHOP", "0", "NIGHTREC_GROUPS__SHOP: expected a whole number of at least 1, found '0'"),
        ("NIGHTREC_START", "1.1.2026", "NIGHTREC_START: expected a day as YYYY-MM-DD, found '1.1.2026'"),
    ],
)
def test_a_setting_that_cannot_be_read_is_named(name: str, value: str, message: str) -> None:
    with pytest.raises(SettingError) as error:
        surface(**{name: value})

    assert str(error.value) == message


@pytest.mark.parametrize("cron", ["none", "@daily", "30 2 * * *", "*/10 2-4 1,15 JAN mon#2"])
def test_a_schedule_is_cron_or_none(cron: str) -> None:
    assert surface(NIGHTREC_SCHEDULE=cron).texts["SCHEDULE"] == cron


def test_a_folder_that_is_not_there_is_named() -> None:
    def names_in(folder: str) -> list[str]:
        raise FileNotFoundError(2, "No such file or directory", folder)

    with pytest.raises(SettingError, match="NIGHTREC_CONFIGS: expected a folder of configs, found '/job'"):
        read_surfaces({}, names_in)


def test_the_table_of_the_docs_has_every_setting_with_its_default() -> None:
    """A default that depends on another setting is said there in words."""
    page = (Path(__file__).parents[2] / "docs" / "airflow.md").read_text("utf-8")
    rows = [line.split("|")[1:3] for line in page.splitlines() if line.startswith("| `NIGHTREC_")]
    told = {name: default.strip() for names, default in rows for name in re.findall(r"`NIGHTREC_([A-Z_]+)`", names)}

    assert set(told) == {"CONFIGS", *DEFAULTS}
    assert {name: told[name] for name, default in DEFAULTS.items() if default} == {
        name: f"`{default}`" for name, default in DEFAULTS.items() if default
    }
    assert told["CONFIGS"] == "`/job`"


def test_the_start_is_a_day() -> None:
    assert surface(NIGHTREC_START="2026-11-01").start == date(2026, 11, 1)
    assert surface().start is None


@pytest.mark.parametrize(
    ("end", "day"),
    [
        # 02:00 in Berlin: 01:00 UTC in winter, 00:00 UTC in summer.
        ("2026-11-26T01:00", "2026-11-25"),
        ("2026-07-26T00:00", "2026-07-25"),
        # 00:30 in Berlin is still the day before in UTC.
        ("2026-03-28T23:30", "2026-03-28"),
        ("2026-03-29T22:30", "2026-03-29"),
        ("2026-10-24T22:30", "2026-10-24"),
        ("2026-10-25T23:30", "2026-10-25"),
        # The night that has no 02:30 (it is 03:30), and the one that has two.
        ("2026-03-29T01:30", "2026-03-28"),
        ("2026-10-25T00:30", "2026-10-24"),
        ("2026-10-25T01:30", "2026-10-24"),
    ],
)
def test_the_data_date_is_the_local_day_before_the_intervals_end(end: str, day: str) -> None:
    """Worked out by hand, in weeks of daylight saving too; when the run was made does not matter."""
    moment = datetime.fromisoformat(end).replace(tzinfo=UTC)

    assert data_date(BERLIN, None, moment, datetime(2030, 1, 1, tzinfo=UTC)) == day


def test_a_run_without_an_interval_is_for_the_day_before_it_was_to_run() -> None:
    late = datetime(2026, 11, 25, 23, 30, tzinfo=UTC)  # half past midnight of the 26th in Berlin

    assert data_date(BERLIN, None, None, late) == "2026-11-25"
    assert data_date(ZoneInfo("UTC"), None, None, late) == "2026-11-24"


def test_the_day_that_was_asked_for_comes_first() -> None:
    noon = datetime(2026, 11, 26, 12, tzinfo=UTC)

    assert data_date(BERLIN, "2026-02-03", noon, noon) == "2026-02-03"


def test_every_step_is_one_verb_for_one_run() -> None:
    """Only prepare is told a date; all others go on with the date and the run that it answered."""
    shop = surface(NIGHTREC_GROUPS="3")
    then = ["--date", "{{ prepared(ti)['date'] }}", "--run", "{{ prepared(ti)['run_key'] }}"]
    start = ["--config", "/job/shop.toml", "--json"]

    assert shop.lines("prepare") == [
        ["prepare", *start, "--date", "{{ data_date(dag_run, params) }}", "--seen-future={{ params.seen_future }}"]
    ]
    for verb in ("items", "index"):
        assert shop.lines(verb) == [[verb, *start, *then]]
    for verb in ("interests", "score"):
        assert shop.lines(verb) == [[verb, *start, *then, "--group", f"{group}/3"] for group in range(3)]
    then += ["--channel", "LATEST"]
    assert shop.lines("check") == [["check", *start, *then]]
    assert shop.lines("publish") == [["publish", *start, *then, "--supersede={{ params.supersede }}"]]


def test_a_night_may_be_for_other_readers() -> None:
    """It is judged for the pointer that it is to move."""
    shop = surface(NIGHTREC_CHANNEL="shadow")

    for verb in ("check", "publish"):
        (line,) = shop.lines(verb)
        assert line[line.index("--channel") + 1] == "shadow"


def test_what_nobody_said_is_not_in_the_command_line() -> None:
    assert said(["verify", "", "--config", "a=.toml", "--seen-future=", "--x=1"]) == [
        *("verify", "--config", "a=.toml", "--x=1")
    ]


def test_a_gpu_has_a_pool_and_an_image_of_its_own() -> None:
    """Every step that opens a model shares the pool, prepare and index too; check and publish need no GPU."""
    shop = surface(NIGHTREC_GPUS="1", NIGHTREC_IMAGE="n:cpu", NIGHTREC_GPU_IMAGE="n:gpu", NIGHTREC_POOL="small")
    steps = ("prepare", "items", "index", "interests", "score", "check", "publish")

    assert [shop.pool(verb) for verb in steps] == ["nightrec_gpu"] * 5 + ["small"] * 2
    assert [shop.image(verb) for verb in steps] == ["n:gpu"] * 5 + ["n:cpu"] * 2
    assert [shop.on_gpu(verb) for verb in steps] == [True] * 5 + [False] * 2


def test_without_a_gpu_all_steps_are_alike() -> None:
    shop = surface(NIGHTREC_GPU_IMAGE="n:gpu")

    assert {shop.pool(verb) for verb in ("items", "publish")} == {"default_pool"}
    assert {shop.image(verb) for verb in ("items", "publish")} == {"nightrec:latest"}
    assert surface(NIGHTREC_GPU_POOL="one").pool("items") == "one"  # a GPU of the worker's own
