"""The DAGs in Airflow's own environment, without a scheduler: what they touch, what they draw, how a step ends."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.dags.conftest import ROOT, Inside
from tests.dags.picture import DAG, draw
from tests.pictures import README, drawn_in

pytestmark = pytest.mark.airflow

STEPS = ("prepare", "items", "index", "interests", "score", "check", "publish")
PREPARED = {"prepare": {"date": "2026-11-25", "run_key": "0a1b"}}
Script = Callable[[str], None]


@pytest.mark.parametrize("file", ["nightly.py", "consumer.py"])
def test_parsing_touches_nothing_but_the_names_of_the_configs(inside: Inside, tmp_path: Path, file: str) -> None:
    """No file is opened but the zones' own data, no socket, no process, no database; no provider is loaded."""
    seen = inside("parse", file)

    assert [name for event, name in seen["touched"] if event == "os.listdir"] == [str(tmp_path / "configs")]
    assert [name for event, name in seen["touched"] if event != "os.listdir" and "zoneinfo" not in name] == []
    assert seen["strangers"] == []
    assert not {name for name in seen["providers"] if name.endswith((".operators.pod", ".operators.docker"))}
    assert len(seen["dags"]) == 2


def test_the_folder_is_loaded_without_an_error_or_a_warning(inside: Inside) -> None:
    both = [f"nightrec_{name}{end}" for name in ("feed", "shop") for end in ("", "_consumer")]

    assert inside("integrity") == {"dags": both, "errors": {}, "warnings": {}}


def test_a_setting_that_cannot_be_read_is_the_import_error(inside: Inside) -> None:
    told = inside("integrity", NIGHTREC_GROUPS="none")["errors"]["nightly.py"]

    assert told.endswith("NIGHTREC_GROUPS: expected a whole number of at least 1, found 'none'")


def test_airflow_knows_the_commands_of_the_docs(inside: Inside) -> None:
    """Its own parser takes each of them, options and all."""
    pages = [path.read_text("utf-8").replace("\\\n", "") for path in (ROOT / "docs").glob("*.md")]
    lines = [line for page in pages for line in re.findall(r"^(airflow .*)$|`(airflow [^`]+)`", page, re.MULTILINE)]
    said = [" ".join(part for part in found if part) for found in lines]

    assert len(said) >= 4
    assert inside("understood", said) == said


def test_airflow_reads_the_settings_of_compose(inside: Inside) -> None:
    """It says nothing of a variable that it does not know, and reads a file by `_CMD` for its secrets alone."""
    services = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text("utf-8"))["services"]
    said = sorted({name for one in services.values() for name in one.get("environment", {}) if name[:9] == "AIRFLOW__"})
    wrong = ["AIRFLOW__CORE__EXECUTER", "AIRFLOW__CORE__EXECUTOR_CMD"]

    assert len(said) > 9
    assert inside("not_settings", [*said, *wrong]) == wrong


def test_the_graph_is_that_of_the_design(inside: Inside) -> None:
    """Items and interests wait for prepare alone; score waits for both; two steps are mapped, with a limit."""
    tasks = inside("graph", "nightly.py", NIGHTREC_GROUPS="5", NIGHTREC_IN_FLIGHT="3")["nightrec_shop"]["tasks"]

    assert {name: task["next"] for name, task in tasks.items()} == {
        "prepare": ["interests", "items"],
        "items": ["index"],
        "index": ["score"],
        "interests": ["score"],
        "score": ["check"],
        "check": ["publish"],
        "publish": [],
    }
    assert {name: (task["mapped"], task["in_flight"]) for name, task in tasks.items() if task["mapped"]} == {
        "interests": (5, 3),
        "score": (5, 3),
    }
    assert {name: task["outlets"] for name, task in tasks.items() if task["outlets"]} == {"publish": ["nightrec_shop"]}


def test_the_readme_shows_the_dag_as_it_is(inside: Inside) -> None:
    """``.venv-airflow/bin/python -m tests.dags.picture`` draws it anew."""
    tasks = inside("graph", "nightly.py")["nightrec_shop"]["tasks"]

    assert drawn_in(README.read_text("utf-8"), DAG) == draw(tasks)


def test_the_settings_reach_the_tasks(inside: Inside) -> None:
    drawn = inside("graph", "nightly.py", NIGHTREC_GPU_POOL="one", NIGHTREC_RETRIES__FEED="7", NIGHTREC_SCHEDULE="none")
    shop, feed = drawn["nightrec_shop"], drawn["nightrec_feed"]

    assert [shop["tasks"][step]["pool"] for step in STEPS] == ["one"] * 5 + ["default_pool"] * 2
    assert {task["retries"] for task in shop["tasks"].values()} == {3}
    assert {task["retries"] for task in feed["tasks"].values()} == {7}
    assert (shop["schedule"], shop["runs_at_once"], shop["catchup"]) == ("NullTimetable", 4, False)


@pytest.mark.parametrize("where", ["docker", "kubernetes"])
def test_the_graph_is_the_same_wherever_a_step_runs(inside: Inside, where: str) -> None:
    assert inside("graph", "nightly.py", NIGHTREC_WHERE=where) == inside("graph", "nightly.py")


@pytest.mark.parametrize(
    ("cron", "first", "expected"),
    [
        # Clocks go from 02:00 to 03:00 on 29 March: what is due between is due an hour later, once.
        (
            "0 2 * * *",
            "2026-03-27",
            ["2026-03-28T02:00:00+01:00", "2026-03-29T03:00:00+02:00", "2026-03-30T02:00:00+02:00"],
        ),
        (
            "30 2 * * *",
            "2026-03-27",
            ["2026-03-28T02:30:00+01:00", "2026-03-29T03:30:00+02:00", "2026-03-30T02:30:00+02:00"],
        ),
        (
            "30 0 * * *",
            "2026-03-27",
            ["2026-03-28T00:30:00+01:00", "2026-03-29T00:30:00+01:00", "2026-03-30T00:30:00+02:00"],
        ),
        # Clocks go from 03:00 back to 02:00 on 25 October: what is due twice runs once, the second time.
        (
            "0 2 * * *",
            "2026-10-23",
            ["2026-10-24T02:00:00+02:00", "2026-10-25T02:00:00+01:00", "2026-10-26T02:00:00+01:00"],
        ),
        (
            "30 2 * * *",
            "2026-10-23",
            ["2026-10-24T02:30:00+02:00", "2026-10-25T02:30:00+01:00", "2026-10-26T02:30:00+01:00"],
        ),
        (
            "30 0 * * *",
            "2026-10-23",
            ["2026-10-24T00:30:00+02:00", "2026-10-25T00:30:00+02:00", "2026-10-26T00:30:00+01:00"],
        ),
    ],
)
def test_every_day_has_one_night(inside: Inside, cron: str, first: str, expected: list[str]) -> None:
    """Worked out by hand for Berlin: one run a day, for the day before it, where days have 23 or 25 hours too."""
    days = [f"{first[:8]}{int(first[8:]) + more}" for more in range(3)]

    assert inside("nights", "Europe/Berlin", cron, first, 3) == [
        list(pair) for pair in zip(expected, days, strict=True)
    ]


ANSWER = '{"date": "2026-11-25", "run_key": "0a1b", "release": null, "steps": [{"step": "items", "about": ""}]}'


def test_a_step_that_is_done_gives_its_answer_and_its_log(inside: Inside, command: Script, tmp_path: Path) -> None:
    """Standard error is the log, line by line; the one line of standard output is the XCom."""
    command(f"echo 'items: 10 rows' >&2; echo '{ANSWER}'")

    ended = inside("step", "items", PREPARED, {})

    assert ended["result"] == json.loads(ANSWER)
    config = tmp_path / "configs" / "shop.toml"
    assert ended["log"] == [
        f"$ nightrec items --config {config} --json --date 2026-11-25 --run 0a1b",
        "items: 10 rows",
    ]
    assert ended["events"] == []


def test_prepare_is_told_the_day_and_why_the_future_may_be_seen(
    inside: Inside, command: Script, tmp_path: Path
) -> None:
    """The interval ends on the 26th, so it is the night of the 25th; words are passed on as one argument."""
    command(f"printf '%s\\n' \"$@\" >&2; echo '{ANSWER}'")

    plain = inside("step", "prepare", {}, {})
    asked = inside("step", "prepare", {}, {"date": "2026-02-03", "seen_future": "a backfill; $(rm -rf /)"})

    config = tmp_path / "configs" / "shop.toml"
    start = ["prepare", "--config", str(config), "--json", "--date"]
    assert plain["log"][1:] == [*start, "2026-11-25"]
    assert asked["log"][1:] == [*start, "2026-02-03", "--seen-future=a backfill; $(rm -rf /)"]


def test_a_conf_that_nobody_understands_is_refused(inside: Inside, command: Script) -> None:
    """A day under a wrong name would be ignored, and the night before be done in its place."""
    command(f"echo '{ANSWER}'")

    ended = inside("step", "prepare", {}, {"date": "2026-02-03", "data_date": "2026-02-03"})

    assert (ended["raised"], ended["says"]) == (
        "AirflowFailException",
        "conf: expected date, seen_future, supersede, found data_date; start the run anew",
    )


def test_a_command_that_is_not_there_is_no_matter_of_time(inside: Inside, tmp_path: Path) -> None:
    """It is not tried again: the setting that named it has to be changed."""
    ended = inside("step", "items", PREPARED, {}, NIGHTREC_COMMAND=f"{tmp_path}/nightrek --verbose")

    assert (ended["raised"], ended["says"]) == (
        "AirflowFailException",
        f"NIGHTREC_COMMAND: expected a command of this worker, found '{tmp_path}/nightrek' (No such file or directory)",
    )


def test_a_mapped_step_does_its_own_group(inside: Inside, command: Script) -> None:
    command(f"echo $* >&2; echo '{ANSWER}'")

    assert inside("step", "score", PREPARED, {}, NIGHTREC_GROUPS="3")["log"][-1].endswith("--run 0a1b --group 1/3")


def test_without_an_answer_of_prepare_a_step_fails_and_says_so(inside: Inside, command: Script) -> None:
    ended = inside("step", "items", {}, {})

    assert (ended["raised"], ended["says"]) == (
        "AirflowFailException",
        "the task prepare left no answer to go on with; clear it, so that it runs",
    )


@pytest.mark.parametrize(
    ("end", "raised", "says"),
    [
        ("exit 1", "AirflowException", "nightrec check ended with exit code 1; it may be tried again and goes on"),
        ("exit 143", "AirflowException", "nightrec check ended with exit code 143; it may be tried again"),
        ("kill -9 $$", "AirflowException", "nightrec check was ended by SIGKILL; it may be tried again"),
        ("exit 2", "AirflowFailException", "nightrec check ended with exit code 2, wrong usage or config: "),
        ("exit 3", "AirflowFailException", "nightrec check ended with exit code 3, refused: "),
        ("exit 4", "AirflowFailException", "nightrec check ended with exit code 4, the input is wrong, or someone"),
    ],
)
def test_the_exit_code_says_whether_it_is_tried_again(
    inside: Inside, command: Script, end: str, raised: str, says: str
) -> None:
    """1 and signals may pass with time; wrong usage, a refusal and wrong input do not."""
    command(end)

    ended = inside("step", "check", PREPARED, {})

    assert ended["raised"] == raised
    assert ended["says"].startswith(says)
    assert ended["says"].endswith(": it said no more")


def test_a_day_that_is_not_there_is_asked_for_later(inside: Inside, command: Script) -> None:
    """The task ends and gives its slot back; it comes again after the time of the settings."""
    command("exit 5")

    ended = inside("step", "prepare", {}, {}, NIGHTREC_WAIT_SECONDS="1000")

    assert ended["raised"] == "AirflowRescheduleException"
    assert 900 < ended["later"] <= 1000


def test_a_refusal_names_the_gates(inside: Inside, command: Script) -> None:
    """In the exception's text, which log and webhook have, and in the XCom ``error``."""
    answer = {
        "error": "2 gates refuse the night",
        "kind": "RefusedError",
        "exit_code": 3,
        "refused": ["items_lost: 0.66, expected at most 0.2", "churn: 0.9, expected at most 0.5"],
    }
    command(f"echo 'nightrec: 2 gates refuse' >&2; echo '{json.dumps(answer)}'; exit 3")

    ended = inside("step", "check", PREPARED, {})

    assert ended["says"].splitlines() == [
        "nightrec check ended with exit code 3, refused: 2 gates refuse the night",
        *answer["refused"],
    ]
    assert ended["pushed"] == {"error": answer}
    assert ended["log"][-1] == "nightrec: 2 gates refuse"


def test_an_answer_stays_short(inside: Inside, command: Script) -> None:
    """What is over 1 KB is cut to its plain values, and they to 100 characters; the run's key stays."""
    long = {"run_key": "0a1b", "date": "2026-11-25", "steps": ["x" * 2_000]}
    command(f"echo '{json.dumps(long)}'")
    assert inside("step", "items", PREPARED, {})["result"] == {"run_key": "0a1b", "date": "2026-11-25"}

    command(f"echo '{json.dumps({**long, 'run': 'y' * 2_000})}'")
    assert inside("step", "items", PREPARED, {})["result"] == {
        "run_key": "0a1b",
        "date": "2026-11-25",
        "run": "y" * 100,
    }


def test_a_command_that_gives_no_answer_is_not_believed(inside: Inside, command: Script) -> None:
    command("echo done")

    ended = inside("step", "publish", PREPARED, {})

    assert ended["raised"] == "AirflowException"
    assert ended["says"] == "nightrec publish ended well, but without its one line of JSON"


@pytest.mark.parametrize(
    ("moved", "current"),
    [
        pytest.param(True, True, id="moved"),
        pytest.param(False, True, id="moved by a try that died before it said so"),
        pytest.param(False, False, id="stored only"),
    ],
)
def test_what_readers_are_given_is_news(inside: Inside, command: Script, *, moved: bool, current: bool) -> None:
    """A night that was only stored starts no consumer; one whose first try died after it moved the pointer does."""
    said = {"moved": moved, "current": current}
    answer = {"date": "2026-11-25", "release": "2026-11-25-aa", "manifest_sha256": "b" * 64, **said}
    command(f"echo '{json.dumps(answer)}'")

    ended = inside("step", "publish", PREPARED, {"supersede": "the prices were wrong"})

    assert "'--supersede=the prices were wrong'" in ended["log"][0]
    extra = {"version": "2026-11-25-aa", "manifest_sha256": "b" * 64, "date": "2026-11-25"}
    assert ended["events"] == ([["nightrec_shop", "nightrec://shop/", extra]] if current else [])


def test_a_step_that_hangs_is_stopped_and_tried_again(inside: Inside, command: Script, tmp_path: Path) -> None:
    """At the end of its time it is told to stop, and has ended when the next try may begin."""
    command(f"trap 'touch {tmp_path}/stopped; kill $!; exit 143' TERM; echo hangs >&2; sleep 60 & wait")

    ended = inside("step", "items", PREPARED, {}, NIGHTREC_TIMEOUT_SECONDS="1")

    assert ended["raised"] == "AirflowException"
    assert ended["says"].startswith(
        "nightrec items was stopped, since it was not done within 1 s (NIGHTREC_TIMEOUT_SECONDS); it may be tried again"
    )
    assert ended["log"][-1] == "hangs"
    assert (tmp_path / "stopped").exists()


def test_a_task_that_is_stopped_stops_the_command(inside: Inside, command: Script) -> None:
    """What it says while it ends is still in the log, and the task may be tried again."""
    command("trap 'echo stopped >&2; kill $!; exit 143' TERM; sleep 60 & wait")

    ended = inside("step", "items", PREPARED, {}, 0.5)

    assert ended["log"][-1] == "stopped"
    assert ended["says"].startswith("nightrec items ended with exit code 143; it may be tried again")
