"""What tests of judging and publishing share: a run's verdicts, its release, changed columns and changed bytes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from artifacts.errors import RefusedError
from artifacts.run import Run
from release.check import check
from release.publish import publish
from release.verdicts import GateReport, State

Make = Callable[..., Run]


def root_of(run: Run) -> Path:
    return run.folder.parents[2]


def states(report: GateReport) -> dict[str, State]:
    return {verdict.name: verdict.state for verdict in report.verdicts}


def refused(run: Run) -> dict[str, Any]:
    """Check *run*, which must be refused, and give the failed verdicts by name."""
    with pytest.raises(RefusedError) as error:
        check(run, root_of(run), threads=1)
    document = json.loads(run.layout.record.gates.read_text())
    failed = {v["name"]: v for v in document["verdicts"] if v["state"] == "fail"}
    lines = str(error.value).splitlines()[1:]
    assert [line.strip().split(":")[0] for line in lines] == list(failed)
    assert document["passed"] is False
    return failed


def released(night: Make, **changes: Any):
    run = night(**changes)
    check(run, root_of(run), threads=1)
    return publish(run, root_of(run))


def flip(path: Path, place: int = -1) -> None:
    """Change one bit of a file, in its middle if no place is named."""
    data = bytearray(path.read_bytes())
    data[place if place >= 0 else len(data) // 2] ^= 1
    path.write_bytes(data)


def with_column(table: pa.Table, name: str, change: Callable[[np.ndarray], None]) -> pa.Table:
    values = table[name].to_numpy().copy()
    change(values)
    return table.set_column(
        table.column_names.index(name), table.schema.field(name), pa.array(values, table[name].type)
    )


def assign(place: int, value: Any) -> Callable[[np.ndarray], None]:
    def change(values: np.ndarray) -> None:
        values[place] = value

    return change
