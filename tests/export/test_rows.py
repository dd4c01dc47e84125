"""Vocabulary files of other projects: whose row is which, whatever the order and the format."""

import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from artifacts.errors import InputError
from export.rows import read_rows

FILES: dict[str, str] = {
    "lines.txt": "pear\napple\nfig\n",
    "list.json": json.dumps(["pear", "apple", "fig"]),
    "rows.json": json.dumps({"pear": 2, "apple": 3, "fig": 4}),
    "values.csv": "fruit\npear\napple\nfig\n",
    "rows.csv": "fruit,row\nfig,4\npear,2\napple,3\n",
}


@pytest.mark.parametrize("name", FILES)
def test_every_format_says_the_same(tmp_path: Path, name: str) -> None:
    """Ours are ascending - apple, fig, pear in rows 2, 3, 4 - and theirs are as the file has them."""
    (tmp_path / name).write_text(FILES[name])

    rows = read_rows("fruit", name, tmp_path)

    assert rows.vocabulary.values.to_pylist() == ["apple", "fig", "pear"]
    assert rows.theirs.tolist() == [0, 1, 3, 4, 2]
    assert not rows.alike


def test_rows_that_are_ours_are_alike(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": pa.array([7, 9, 2**63 + 1], pa.uint64())}), tmp_path / "ids.parquet")

    rows = read_rows("item_id", {"file": "ids.parquet"}, tmp_path)

    assert rows.vocabulary.values.type == pa.uint64()
    assert rows.theirs.tolist() == [0, 1, 2, 3, 4]
    assert rows.alike


def test_offsets_and_types_are_said(tmp_path: Path) -> None:
    """Ids that are numbers in a text file, from row 0 on, with padding and unknown behind them."""
    (tmp_path / "ids.txt").write_text("10\n9\n")

    rows = read_rows("item_id", {"file": "ids.txt", "type": "int64", "first": 0, "padding": 2, "unknown": 3}, tmp_path)

    assert rows.vocabulary.values.to_pylist() == [9, 10]
    assert rows.theirs.tolist() == [2, 3, 1, 0]


@pytest.mark.parametrize(
    ("name", "content", "more", "message"),
    [
        ("none.txt", None, {}, "none.txt: vocabulary of fruit: No such file or directory"),
        ("twice.txt", "fig\nfig\n", {}, "expected each value once, and no nulls"),
        ("rows.json", '{"fig": -1}', {}, "expected rows from 0 on, found -1"),
        ("rows.json", '{"fig": "a"}', {}, "rows.json: vocabulary of fruit: "),
        ("cut.json", '{"fig": ', {}, "cut.json: vocabulary of fruit: "),
        ("floats.csv", "a\n1.5\n", {}, "expected integers or text, found double"),
        ("wide.csv", "a,b,c\n1,2,3\n", {}, "expected the columns value and row, found a, b, c"),
        ("words.txt", "fig\n", {"type": "int64"}, "Failed to parse string: 'fig'"),
    ],
)
def test_a_file_that_holds_something_else_is_named(
    tmp_path: Path, name: str, content: str | None, more: dict[str, Any], message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)

    with pytest.raises(InputError, match=re.escape(message)) as error:
        read_rows("fruit", {"file": name, **more}, tmp_path)
    assert error.value.exit_code == 4
