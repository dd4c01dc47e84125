"""The command line as people and machines meet it: real processes, their exit codes and what they say."""

import json
import sys
import tomllib
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from nightrec.main import execute
from tests.blocks import ROOT
from tests.nightrec.calls import DATE, fails, run, step

VERBS = (
    *("init", "fit", "export", "run"),
    *("prepare", "items", "index", "interests", "score", "check", "publish"),
    *("releases", "recommend", "why", "report", "trend", "config", "plan", "doctor"),
)


def test_help_names_every_verb(command: Any) -> None:
    """What the design lists is there, each with a line of its own."""
    finished = command("--help")

    assert finished.returncode == 0
    for verb in VERBS:
        assert f"│ {verb} " in finished.stdout
    assert finished.stderr == ""


def test_the_version_is_the_project_s(capsys: pytest.CaptureFixture[str]) -> None:
    """It is on standard output, and no verb need be named."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]

    assert execute(["--version"]) == 0
    assert capsys.readouterr().out == f"nightrec {project['version']}\n"


@pytest.mark.parametrize("verb", [*((verb,) for verb in VERBS), ("releases", "verify")])
def test_every_verb_explains_itself(verb: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    """Every verb has a help, and every option of it says what it is for."""
    assert execute([*verb, "--help"]) == 0

    assert f"nightrec {' '.join(verb)}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["prepair"], "No such command 'prepair'. Did you mean 'prepare'"),
        (["releases", "shw"], "Did you mean 'show'?"),
        (["run", "--config", "x.toml"], "x.toml: the config cannot be read (No such file or directory); name it by"),
        (["prepare", "--config", "x.toml"], "Missing option '--date'"),
        (["run", "--config", "x.toml", "--date", "2026-02-30"], "'--date': expected a day as YYYY-MM-DD"),
        (["run", "--config", "x.toml", "--date", DATE, "--device", "tpu"], "'tpu' is not one of 'cpu', 'gpu', 'auto'"),
        (["run", "--config", "x.toml", "--date", DATE, "--workers", "0"], "--workers"),
        (["run", "--config", "x.toml", "--date", DATE, "--wrkers", "2"], "--wrkers"),
        (
            ["run", "--config", "x.toml", "--date", DATE],
            "name it by --config, or write one with `nightrec init FOLDER`",
        ),
        (["run", "--config", "x.toml", "--date", DATE, "--override", " "], "'--override': expected a reason"),
        (["run", "--config", "x.toml", "--date", DATE, "--supersede", ""], "'--supersede': expected a reason"),
        (["run", "--config", "x.toml", "--date", DATE, "--seen-future", "\t"], "'--seen-future': expected a reason"),
        (["prepare", "--config", "x.toml", "--date", DATE, "--seen-future", ""], "'--seen-future': expected a reason"),
        (["publish", "--config", "x.toml", "--date", DATE, "--override", ""], "'--override': expected a reason"),
        (["index", "--config", "x.toml", "--date", DATE, "--shard", "1/2"], "this step is one shard, 0/1"),
        (["items", "--config", "x.toml", "--date", DATE, "--group"], "--group"),
        (["fit", "mnd", "--config", "x.toml"], "'mnd' is not one of 'mind', 'bst'"),
        (["export", "--out", "x"], "give one of --checkpoint, --factory and --spec"),
        (["export", "--checkpoint", "m"], "--checkpoint: give --out too"),
        (["export"], "job.toml: the config cannot be read"),
        (["recommend", "--config", "x.toml"], "Missing argument"),
    ],
)
def test_wrong_usage_is_one_line_and_code_2(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A mistake is told in one line on standard error."""
    assert execute(arguments) == 2

    out, err = capsys.readouterr()
    assert said in err
    assert err.startswith("nightrec: ")
    assert err.count("\n") == 1
    assert out == ""


def test_saying_nothing_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    """Who does not know what to say is told."""
    assert execute([]) == 2

    out, err = capsys.readouterr()
    assert "prepare" in out
    assert err == ""


def test_a_night_is_one_object_on_standard_output(published: tuple[Path, Any]) -> None:
    """With --json a machine reads one object, and people still read a table on standard error."""
    config, finished = published

    said = json.loads(finished.stdout)
    steps = {step["step"]: step for step in said["steps"]}

    assert list(steps) == ["prepare", "items", "index", "interests", "score", "check", "publish"]
    assert steps["score"]["rows"] == 39 * 5
    assert steps["score"]["skipped"] == 0
    assert (config.parent / "store" / "releases" / said["release"] / "manifest.json").exists()
    assert "interests" in finished.stderr
    assert f"Next:\n  nightrec report --config {config} " in finished.stderr
    assert "Traceback" not in finished.stderr


def test_steps_by_groups_make_the_same_release(
    published: tuple[Path, Any], surface: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A scheduler maps steps over groups without knowing the shards; every answer is one short line."""
    said = [step(surface, capsys, "prepare")]
    run_key = said[0]["run_key"]
    more = ("--run", run_key)
    for verb in ("items", "index", "interests", "score", "check"):
        groups = [("--group", f"{group}/3") for group in range(3)] if verb in {"items", "interests", "score"} else [()]
        said += [step(surface, capsys, verb, *more, *group) for group in groups]
    last = step(surface, capsys, "publish", *more)
    again = step(surface, capsys, "publish", *more)

    assert {(one["run_key"], one["shards"], one["item_shards"]) for one in said} == {(run_key, 2, 1)}
    assert [one["steps"][0]["shards"] for one in said] == [2, 0, 0, 1, 1, 0, 1, 1, 0, 1, 1, 1]
    assert last["release"] == json.loads(published[1].stdout)["release"]
    pointer = json.loads((surface.parent / "store" / "LATEST").read_text())
    assert last["manifest_sha256"] == again["manifest_sha256"] == pointer["manifest_sha256"]
    told = [tuple(one[name] for name in ("stored", "moved", "current", "held", "sequence")) for one in (last, again)]
    assert told == [(True, True, True, False, 1), (False, False, True, False, 1)]


def test_group_and_shard_are_not_taken_together(surface: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two answers to one question are a mistake."""
    assert execute(["prepare", *run(surface)[1:]]) == 0

    code, err = fails(["items", *run(surface, "--group", "0/2", "--shard", "0/1")[1:]], capsys)

    assert code == 2
    assert "--shard and --group: give one of them" in err


def test_a_night_again_skips_all_and_says_so(published: tuple[Path, Any], command: Any) -> None:
    """Every step that writes says that it was done already."""
    config, _ = published

    again = command("run", "--config", config, "--date", DATE, "--json")

    assert again.returncode == 0, again.stderr
    steps = {step["step"]: step for step in json.loads(again.stdout)["steps"]}
    assert [name for name, step in steps.items() if step["skipped"] < step["shards"]] == []
    assert again.stderr.count("done already") >= 7
    assert "Next:" not in again.stderr


def test_timings_are_kept_in_the_record_and_nowhere_else(published: tuple[Path, Any]) -> None:
    """The record tells how long the steps took; it is listed with its checksum."""
    config, finished = published
    said = json.loads(finished.stdout)
    record = config.parent / "store" / "releases" / said["release"] / "record"

    timings = json.loads((record / "timings.json").read_text())

    assert set(timings) >= {"prepare", "items", "index", "interests", "score", "check"}
    assert "timings.json" in json.loads((record / "record.json").read_text())["files"]
    (score,) = timings["score"]
    assert [span["shard"] for span in score["spans"]] == list(range(said["shards"]))
    assert sum(span["rows"] for span in score["spans"]) == score["rows"] > 0
    assert score["memory"] == max(span["memory"] for span in score["spans"]) > 10_000_000
    assert all(timings["prepare"][0]["began"] < span["began"] for span in score["spans"])


def test_recommendations_come_with_titles(published: tuple[Path, Any], command: Any) -> None:
    """What a user is recommended is told by rank, with what the catalogue calls it."""
    config, _ = published

    finished = command("recommend", "3", "--config", config, "--top", "3", "--json")

    assert finished.returncode == 0, finished.stderr
    items = json.loads(finished.stdout)["items"]
    assert [item["rank"] for item in items] == [1, 2, 3]
    assert all(item["title"] == f"Thing {item['item_id']}" for item in items)
    assert items[0]["title"] in finished.stderr


def test_recommendations_are_told_without_titles_too(
    published: tuple[Path, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The catalogue may be on its way while somebody asks what was published; that it lacks is said."""
    config, _ = published
    gone = tmp_path / "gone.parquet"
    here = {'"store"': f'"{config.parent / "store"}"', '"data/items.parquet"': f'"{gone}"'}
    text = config.read_text()
    for said, instead in here.items():
        text = text.replace(said, instead)
    (tmp_path / "job.toml").write_text(text)

    assert execute(["recommend", "3", "--config", str(tmp_path / "job.toml"), "--json"]) == 0

    told = capsys.readouterr()
    assert f"titles are not told; {gone}: expected Parquet files, found none" in told.err
    items = json.loads(told.out)["items"]
    assert len(items) == 5
    assert {item["title"] for item in items} == {None}


def test_what_a_channel_lacks_is_told_with_its_name(
    published: tuple[Path, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """A night of the other pointer would not help."""
    assert execute(["recommend", "3", "--config", str(published[0]), "--channel", "shadow"]) == 2
    assert "nothing is published yet; run `nightrec run --channel shadow` first" in capsys.readouterr().err


def test_a_release_is_listed_shown_and_verified(published: tuple[Path, Any], command: Any) -> None:
    """The verbs on releases speak of the one that there is."""
    config, finished = published
    version = json.loads(finished.stdout)["release"]

    listed = command("releases", "list", "--config", config, "--json")
    shown = command("releases", "show", "--config", config, "--json")
    verified = command("releases", "verify", version, "--config", config, "--json")

    assert [one["version"] for one in json.loads(listed.stdout)["releases"]] == [version]
    assert json.loads(listed.stdout)["releases"][0]["channels"] == ["LATEST"]
    assert json.loads(shown.stdout)["rows"] == 39 * 5
    assert json.loads(verified.stdout)["version"] == version


def test_a_plan_counts_the_inputs(published: tuple[Path, Any], command: Any) -> None:
    """Rows are those of the files; every step has disk, memory and minutes."""
    config, _ = published
    events = pq.read_metadata(config.parent / "data" / "events.parquet").num_rows

    finished = command("plan", "--config", config, "--json")

    assert finished.returncode == 0, finished.stderr
    told = json.loads(finished.stdout)
    assert told["sizes"]["events"] == events
    assert told["sizes"]["items"] == 30
    assert 30 <= told["sizes"]["users"] <= 50
    assert told["sizes"]["width"] == 4
    assert all(step["minutes"] >= 0 for step in told["steps"])


def test_the_doctor_knows_this_environment(command: Any) -> None:
    """An environment that runs these tests is healthy."""
    finished = command("doctor", "--json")

    assert finished.returncode == 0, finished.stderr
    found = {finding["what"]: finding["found"] for finding in json.loads(finished.stdout)["findings"]}
    assert found["ONNX Runtime"].startswith("onnxruntime")
    assert found["python"].startswith(f"{sys.version_info.major}.{sys.version_info.minor}")


def test_auto_says_what_it_chose(surface: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody has to guess what a night ran on."""
    assert execute(["prepare", *run(surface, "--device", "auto", "--json")[1:]]) == 0

    out, err = capsys.readouterr()
    assert "nightrec: device cpu" in err
    assert "no GPU can be used" in err
    assert json.loads(out)["device"] == "cpu"
