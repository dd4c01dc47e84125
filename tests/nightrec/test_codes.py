"""How a verb ends: its exit code, and one line for a person that names what is wrong and says what to do."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from artifacts.errors import NightrecError
from nightrec.main import execute
from tests.nightrec.calls import DATE, fails, run, step


def test_no_gpu_is_code_1_before_any_data_is_read(surface: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A GPU that is not there is said before the inputs are missed."""
    (surface.parent / "data" / "events.parquet").unlink()

    code, err = fails(run(surface, "--device", "gpu"), capsys)

    assert code == 1
    assert "device = gpu, but no GPU can be used" in err


def test_a_missing_bundle_is_code_2(surface: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The message names the folder and the command that makes it."""
    surface.write_text(surface.read_text().replace("bundles/item", "bundles/itm"))

    code, err = fails(run(surface), capsys)

    assert code == 2
    assert "bundles/itm" in err
    assert "nightrec export" in err


def test_a_changed_bundle_is_code_4(surface: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A bundle is verified before it is loaded."""
    path = surface.parent / "bundles" / "item" / "model.onnx"
    path.write_bytes(path.read_bytes()[:-1] + b"!")

    code, err = fails(run(surface), capsys)

    assert code == 4
    assert str(path) in err


def test_a_missing_gate_is_found_before_the_night(surface: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A misspelt gate costs no night."""
    surface.write_text(surface.read_text() + "\n[gates]\nchrun = 0.5\n")

    code, err = fails(run(surface), capsys)

    assert code == 2
    assert "churn" in err
    assert not (surface.parent / "store" / "runs").exists()


@pytest.mark.parametrize("bound", ["inf", "nan"])
def test_a_gate_without_a_bound_is_found_before_the_night(
    surface: Path, capsys: pytest.CaptureFixture[str], bound: str
) -> None:
    """A bound that every night keeps, or none, is no bound."""
    surface.write_text(surface.read_text() + f"\n[gates]\nchurn = {bound}\n")

    code, err = fails(run(surface), capsys)

    assert code == 2
    assert f"gates.churn.bound: expected a finite number, found {bound}" in err
    assert not (surface.parent / "store" / "runs").exists()


STEPS = ("items", "index", "interests", "score", "check", "publish")


def test_no_step_goes_on_with_a_run_of_another_config(surface: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The key of a run names what it holds: a config edited after `prepare` is refused by every step."""
    assert execute(run(surface)) == 0
    plain = surface.read_text()
    edits = {
        "score.top_n was 5, the config says 3;": plain.replace("top_n = 5", "top_n = 3"),
        "shards was 2, the config says 4;": plain.replace("shards = 2", "shards = 4"),
        'inputs.items.title was "title", the config says not set;': plain.replace('title = "title"', ""),
        'retrieve.exclude_seen was "all", the config says "none";': plain.replace(
            "[retrieve]", '[retrieve]\nexclude_seen = "none"'
        ),
    }
    for said, text in edits.items():
        assert text != plain
        surface.write_text(text)
        for verb in STEPS if "top_n" in said else ("check",):
            code, err = fails([verb, "--config", str(surface), "--date", DATE], capsys)

            assert code == 1, (step, err)
            assert f"{said} run `nightrec prepare` with it first" in err

    surface.write_text(plain.replace("top_n = 5", "top_n = 3"))
    assert execute(["prepare", *run(surface)[1:]]) == 0
    assert execute(["items", *run(surface)[1:]]) == 0


def test_a_run_with_a_reason_and_rules_is_continued(
    surface: Path, write_others: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """What only `prepare` is told, and lists in the config, make no difference; nor do the gates and the machine."""
    write_others(surface.parent / "later", trained_through="2026-03-12")
    text = surface.read_text().replace("bundles/", "later/")
    text = text.replace('title = "title"', 'title = "title"\ngroups = { name = "title" }')
    surface.write_text(text.replace("[score]", '[score]\nrules = [{ group = "name", at_most = 1 }]'))
    assert execute(["prepare", *run(surface)[1:], "--seen-future", "a test"]) == 0
    surface.write_text(surface.read_text().replace("threads = 1", "threads = 2", 1) + "\n[gates]\nchurn = 0.5\n")

    code, err = fails(["items", *run(surface)[1:]], capsys)

    assert code == 0, err


def test_check_judges_no_run_of_other_bundles(
    surface: Path, write_others: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """The model whose age is judged is the one that made the night."""
    assert execute(run(surface)) == 0
    write_others(surface.parent / "later", seed=6)
    surface.write_text(surface.read_text().replace("bundles/", "later/"))

    code, err = fails(["check", *run(surface)[1:]], capsys)

    assert code == 1
    assert "run `nightrec prepare` with it first" in err


def test_a_wrong_input_is_code_4_and_names_file_and_column(surface: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A renamed column is told with its file."""
    path = surface.parent / "data" / "events.parquet"
    pq.write_table(pq.read_table(path).rename_columns(["user_id", "itemid", "time"]), path)

    code, err = fails(run(surface), capsys)

    assert code == 4
    assert str(path) in err
    assert "item_id" in err
    assert "did you mean itemid?" in err


def test_a_day_that_is_not_there_is_code_5(surface: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Later it may be there."""
    code, err = fails(run(surface, date="2026-03-20"), capsys)

    assert code == 5
    assert "2026-03-20" in err


@pytest.mark.parametrize("table", ["events", "items"])
@pytest.mark.parametrize("empty", [False, True])
def test_a_table_without_a_file_is_waited_for_until_the_deadline(
    surface: Path, capsys: pytest.CaptureFixture[str], table: str, *, empty: bool
) -> None:
    """A file that comes late is not there yet, and neither is what a wrong path names, until the deadline."""
    (surface.parent / "data" / f"{table}.parquet").unlink()
    place = surface.parent / "data" / "late"
    surface.write_text(surface.read_text().replace(f"data/{table}.parquet", "data/late"))
    if empty:
        place.mkdir()
        (place / "_temporary").write_text("a writer is at work")
    said = f"{place}: expected Parquet files, found none; wait for them, or correct the path in the config"

    assert fails(run(surface), capsys) == (5, f"nightrec: {said}\n")
    surface.write_text(surface.read_text() + "\n[day]\ndeadline_hours = 1\n")
    code, err = fails(run(surface), capsys)

    assert code == 3
    assert f"{said}; the deadline, 1 hours after the day's end, has passed" in err


def test_a_day_that_is_not_there_after_its_deadline_is_code_3(
    surface: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody waits for ever."""
    surface.write_text(surface.read_text() + "\n[day]\ndeadline_hours = 1\n")

    code, err = fails(run(surface, date="2026-03-20"), capsys)

    assert code == 3
    assert "the deadline, 1 hours after the day's end, has passed" in err


def test_a_step_without_a_run_is_code_1(surface: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What comes first is named."""
    code, err = fails(["items", "--config", str(surface), "--date", DATE], capsys)

    assert code == 1
    assert "nightrec prepare" in err


def test_a_refused_night_is_code_3_and_an_override_publishes_it(
    surface: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A gate keeps a night from readers, unless someone gives a reason, which is recorded."""
    surface.write_text(surface.read_text() + "\n[gates]\nmodel_age = { bound = 1, action = 'fail' }\n")
    store = surface.parent / "store"

    code, err = fails(run(surface), capsys)
    assert code == 3
    assert "model_age" in err
    assert not (store / "LATEST").exists()

    assert execute(run(surface, "--override", "the model is retrained tomorrow")) == 0
    (release,) = (path for path in (store / "releases").iterdir() if path.is_dir())
    assert "retrained tomorrow" in (release / "manifest.json").read_text()


def test_a_failure_is_one_object_too(surface: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With --json a machine is told the kind of failure and the exit code."""
    code = execute(run(surface, "--json", date="2026-03-20"))

    said = json.loads(capsys.readouterr().out)
    assert (said["exit_code"], said["kind"]) == (code, "NotReadyError") == (5, "NotReadyError")


def test_a_refusal_tells_machines_which_gates(surface: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Three lines of gates go into the short answer; people get them all, whole."""
    gates = ("items_unusable", "items_without_signal", "interests_zero", "unknown_share", "cold_share")
    bounds = "".join(f"{gate} = {{ bound = -1, action = 'fail' }}\n" for gate in gates)
    surface.write_text(surface.read_text() + "\n[gates]\n" + bounds)

    code = execute(run(surface, "--json"))

    out, err = capsys.readouterr()
    said = json.loads(out)
    assert (code, said["exit_code"], said["kind"]) == (3, 3, "RefusedError")
    assert len(out.encode()) < 1_000
    assert "5 of" in said["error"]
    assert [line.partition(":")[0] for line in said["refused"]] == list(gates[:3])
    lines = [line for line in err.splitlines() if line.startswith("  ")]
    assert [line.strip().partition(":")[0] for line in lines[-5:]] == list(gates)
    assert all("expected at most -1" in line for line in lines[-5:])


def test_an_unexpected_error_is_one_line_and_its_traceback_a_file(
    surface: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What nobody foresaw ends with code 1, and what is needed to find its cause is kept."""

    def broken(*arguments: object, **options: object) -> None:
        raise KeyError("nobody foresaw this")

    monkeypatch.setattr("nightrec.steps.require_all", broken)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    assert execute(run(surface)) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    (kept,) = tmp_path.glob("nightrec-*.txt")
    assert str(kept) in err
    assert "in broken" in kept.read_text()

    assert execute(["--debug", *run(surface)]) == 1
    assert "in broken" in capsys.readouterr().err


def test_a_missing_extra_is_named(
    surface: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a library is not installed, the message says what to install."""

    def missing(*arguments: object) -> None:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setattr("nightrec.steps.require_all", missing)

    code, err = fails(run(surface), capsys)

    assert code == 2
    assert "pip install 'nightrec[train]'" in err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_night_says_how_to_go_on_and_does(
    surface: Path, command: Any, number: signal.Signals, code: int
) -> None:
    """A signal ends the night in order; the same command then finishes it."""
    gate = surface.parent / "gate"
    os.mkfifo(gate)
    process = subprocess.Popen(
        [sys.executable, "-c", STOPS.format(gate=str(gate)), *run(surface, "--json")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    gate.read_text()  # the night has come to its third step

    process.send_signal(number)
    out, err = process.communicate(timeout=300)

    assert process.returncode == code, err
    said = json.loads(out)
    assert (said["kind"], said["exit_code"]) == ("Stopped", code)
    assert "Traceback" not in err
    assert f"stopped by {number.name}" in err
    assert f"nightrec run --config {surface} --date {DATE}" in err
    again = command(*run(surface), "--json")
    assert again.returncode == 0, again.stderr
    steps = {step["step"]: step for step in json.loads(again.stdout)["steps"]}
    assert steps["prepare"]["skipped"] == steps["prepare"]["shards"]
    assert steps["items"]["skipped"] == 1
    assert steps["interests"]["skipped"] == 0


STOPS = """
import signal, sys, time
from pathlib import Path
from nightrec import main, steps
signal.signal(signal.SIGINT, signal.default_int_handler)  # a suite started in the background ignores it
def stop(*arguments):
    Path({gate!r}).write_text("here")
    time.sleep(60)
steps.MODEL_STEPS["index"] = stop
main.main()
"""


def test_progress_is_shown_on_a_terminal_alone(published: tuple[Path, Any]) -> None:
    """A log gets no bar: no escape sequence is in what a pipe is given."""
    _, finished = published

    assert "\x1b" not in finished.stderr


def test_every_error_has_an_exit_code_of_the_design() -> None:
    """0 done, 1 failed, 2 usage, 3 refused, 4 wrong input or conflict, 5 not there yet: nothing else."""

    def below(kind: type[NightrecError]) -> set[type[NightrecError]]:
        return {kind}.union(*(below(child) for child in kind.__subclasses__()))

    assert {kind.exit_code for kind in below(NightrecError)} == {1, 2, 3, 4, 5}


ANY_DAY = "\n[day]\nnewest_within_hours = 0\nmin_share_of_median = 0\n"


def test_a_backfill_in_any_order_leaves_latest_on_the_newest(surface: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each day becomes a release, and none of an earlier date takes readers back; a second run says that it is done."""
    surface.write_text(surface.read_text() + ANY_DAY)
    dates = ("2026-03-09", "2026-03-10", "2026-03-08")
    for date in dates:
        assert execute(run(surface, date=date)) == 0, capsys.readouterr().err
    _, err = capsys.readouterr()

    pointer = json.loads((surface.parent / "store" / "LATEST").read_text())
    assert (pointer["date"], pointer["sequence"]) == ("2026-03-10", 2)
    assert "which is of a later date" in err
    stored = [path.name[:10] for path in (surface.parent / "store" / "releases").iterdir() if path.is_dir()]
    assert sorted(stored) == sorted(dates)
    for date in dates:
        assert execute(run(surface, date=date)) == 0
        assert capsys.readouterr().err.count("done already") >= 7


def test_a_model_that_has_seen_the_future_is_code_3_without_a_reason(
    surface: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A backfill of days before the model's last training day needs a reason, and no data is read before."""
    surface.write_text(surface.read_text() + ANY_DAY)

    code, err = fails(run(surface, date="2026-02-28"), capsys)

    assert code == 3
    assert "it has seen the future; use an earlier model, or give --seen-future REASON" in err
    assert [path.name for path in (surface.parent / "store" / "runs").glob("*/*")] == ["refused.html"]
    assert execute(run(surface, "--seen-future", "a backfill", date="2026-02-28")) == 0


def test_a_night_is_judged_again_when_another_was_published_since(
    surface: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of two nights that are made at once the second compares with the first, whose release its check had not seen."""
    surface.write_text(surface.read_text() + ANY_DAY)
    for verb in ("prepare", "items", "index", "interests", "score", "check"):
        step(surface, capsys, verb)
    assert execute(run(surface, date="2026-03-09")) == 0
    first = json.loads((surface.parent / "store" / "LATEST").read_text())["version"]
    capsys.readouterr()

    assert execute(["publish", *run(surface, "--json")[1:]]) == 0

    out, err = capsys.readouterr()
    assert "it is judged again" in err
    release = surface.parent / "store" / "releases" / json.loads(out)["release"]
    assert json.loads((release / "manifest.json").read_text())["parent"] == first
    assert json.loads((release / "record" / "gates.json").read_text())["earlier"] == first
