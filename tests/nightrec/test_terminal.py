"""What people and machines are shown."""

import json

import pytest

from nightrec.terminal import answer, progress, show


def test_an_answer_is_one_line_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    """One object, on standard output alone."""
    answer({"title": "Bücher", "rows": 3})

    out, err = capsys.readouterr()
    assert json.loads(out) == {"title": "Bücher", "rows": 3}
    assert out.count("\n") == 1
    assert err == ""


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
