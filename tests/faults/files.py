"""Bad files: hidden, of zero bytes, cut, foreign, misplaced, of two schemas, or gone."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.faults.ground import TABLES, Case, Counted, Ground, Refused, Same, rewritten


def _in_folder(change: Callable[[list[Path]], None], ground: Ground) -> None:
    """Split interactions into two files of a folder, then change something there."""
    change(ground.split("interactions"))


def _cut(paths: list[Path]) -> None:
    paths[1].write_bytes(paths[1].read_bytes()[:-100])


def _without_middle(paths: list[Path]) -> None:
    content = paths[1].read_bytes()
    paths[1].write_bytes(content[:200] + content[2_000:])


def _another_schema(paths: list[Path]) -> None:
    rows = pq.read_table(paths[1])
    pq.write_table(rows.set_column(0, "user_id", rows["user_id"].cast(pa.string())), paths[1])


def _below(paths: list[Path]) -> None:
    folder = paths[1].parent / "date=2026-03-31"
    folder.mkdir()
    paths[1].rename(folder / "part.parquet")


def _column_twice(ground: Ground) -> None:
    rows = ground.read("interactions")
    ground.write("interactions", pa.table([*rows.columns, rows["time"]], names=[*rows.column_names, "time"]))


def _dangling(paths: list[Path]) -> None:
    (paths[0].parent / "part-9.parquet").symlink_to(paths[0].parent / "gone")


def cases() -> Iterator[Case]:
    """Every case of bad files."""
    damages: dict[str, tuple[Callable[[list[Path]], Any], Any]] = {
        "in two files": (lambda paths: None, Same()),
        "with a hidden file": (
            lambda paths: (paths[0].parent / "._part").write_text("x"),
            Counted({"hidden_files": 1}),
        ),
        "with a mark of the writer": (lambda p: (p[0].parent / "_SUCCESS").touch(), Counted({"hidden_files": 1})),
        "in a folder below": (_below, Same()),
        "with a file of zero bytes": (lambda paths: paths[1].write_bytes(b""), Refused([4], ["part-1", "zero bytes"])),
        "with a file cut short": (_cut, Refused([4], ["part-1.parquet", "whole Parquet file"])),
        "with a file without its middle": (_without_middle, Refused([4], ["part-1.parquet", "whole Parquet file"])),
        "with a foreign file": (
            lambda paths: (paths[0].parent / "more.csv").write_text("a,b\n1,2\n"),
            Refused([4], ["more.csv", "expected only Parquet"]),
        ),
        "with text called Parquet": (
            lambda paths: (paths[0].parent / "more.parquet").write_text("user_id,item_id\n" * 9),
            Refused([4], ["more.parquet", "whole Parquet file"]),
        ),
        "with a file of another type": (_another_schema, Refused([4], ["part-1.parquet", "user_id", "string"])),
        "with a link that leads nowhere": (_dangling, Refused([4], ["part-9.parquet"])),
        "with no file left": (lambda paths: [path.unlink() for path in paths], Refused([5], ["found none"])),
    }
    for name, (change, expects) in damages.items():
        yield Case(f"interactions {name}", partial(_in_folder, change), expects)
    yield Case("a column that is there twice", _column_twice, Refused([4], ["interactions.parquet", "time", "2 times"]))
    more = partial(rewritten, "items", lambda rows: rows.append_column("price", pa.array(np.arange(len(rows)) * 0.5)))
    yield Case("a column that nobody asked for", more, Same())
    for table in TABLES:
        gone = partial(lambda table, ground: ground.path(table).unlink(), table)
        yield Case(f"{table} is not there", gone, Refused([5], [f"{table}.parquet", "found none"]))
    yield Case("items is a folder that is empty", _empty_folder, Refused([5], ["items.parquet", "found none"]))


def _empty_folder(ground: Ground) -> None:
    ground.path("items").unlink()
    ground.path("items").mkdir()
