"""What people and machines are shown."""

import json
from typing import Any

import pytest

from nightrec.terminal import answer, progress, show


def test_an_answer_is_one_line_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    """One object, on standard output alone."""
    answer({"title": "Bücher", "rows": 3})

    out, err = capsys.readouterr()
    assert json.loads(out) == {"title": "Bücher", "rows": 3}
    assert out.count("\n") == 1
    assert err == ""


@pytest.mark.parametrize("letter", ["x", "ü", "\n", "😀", '"'])
@pytest.mark.parametrize("length", [0, 50, 900, 5_000])
def test_a_short_answer_stays_short(letter: str, length: int, capsys: pytest.CaptureFixture[str]) -> None:
    """However long texts, counts and paths are: the bytes are bounded, and what a machine needs is there."""
    document: dict[str, Any] = {
        "date": "2026-03-10",
        "run": f"/{letter * length}",
        "run_key": "0123456789abcdef",
        "error": letter * length,
        "refused": [letter * length] * 3,
        "steps": [
            {"step": "score", "counts": {f"{letter}{n}": n % 2 for n in range(length)}, "about": letter * length}
        ],
    }

    answer(document, short=True)

    out = capsys.readouterr().out
    said = json.loads(out)
    assert len(out.encode()) < 1_000
    assert out.count("\n") == 1
    assert (said["date"], said["run_key"]) == ("2026-03-10", "0123456789abcdef")
    assert said["error"][:39] == (letter * length)[:39]
    assert len(said["refused"]) == 3
    assert said["steps"][0]["step"] == "score"


def test_an_answer_that_is_short_is_not_changed(capsys: pytest.CaptureFixture[str]) -> None:
    """Zeros are counts too, where there is room."""
    document = {"run": "r", "steps": [{"step": "items", "counts": {"zero": 0, "not_finite": 2}, "about": "a" * 300}]}

    answer(document, short=True)

    assert json.loads(capsys.readouterr().out) == document


def test_counts_of_nothing_go_first(capsys: pytest.CaptureFixture[str]) -> None:
    """What was counted is told for as long as it fits."""
    counts = {f"a_rather_long_name_{number}": number % 3 for number in range(45)}

    answer({"run": "r", "steps": [{"step": "prepare", "counts": counts, "about": ""}]}, short=True)

    (step,) = json.loads(capsys.readouterr().out)["steps"]
    assert step["counts"] == {name: count for name, count in counts.items() if count}


def test_a_table_goes_to_standard_error_and_markup_is_text(capsys: pytest.CaptureFixture[str]) -> None:
    """A title such as ``[bold]`` is shown as it is, and whole numbers have their thousands apart."""
    show("Rows", ("what", "rows"), [("[bold]", 1_234_567), ("x" * 100, None)])

    out, err = capsys.readouterr()
    assert out == ""
    assert "[bold]" in err
    assert "1,234,567" in err
    assert "x" * 100 in err


def test_without_a_terminal_there_is_no_bar(capsys: pytest.CaptureFixture[str]) -> None:
    """A log is not filled with what is overwritten on a screen."""
    with progress("items", 100) as advance:
        advance(50)

    assert capsys.readouterr() == ("", "")


def test_on_a_terminal_rows_are_counted(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The bar says rows done."""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("FORCE_COLOR", "1")

    with progress("items", 100) as advance:
        advance(60)
        advance(40)

    out, err = capsys.readouterr()
    assert out == ""
    assert "100 rows" in err
