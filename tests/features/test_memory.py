"""Memory of a process of its own: it does not grow with events or users."""

import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest

# Prints the peak of a process that reads a night's histories, in bytes.
READER = """
import resource, sys
from datetime import date
from pathlib import Path
from artifacts.bundle import FeatureSpec
from features.catalogue import encode_catalogue, fit_feature_vocabularies
from features.histories import Cut, open_histories
from features.inputs import Inputs, Source
from features.ordered import Engine

folder = Path(sys.argv[1])
columns = {"user_id": "user_id", "item_id": "item_id", "time": "time"}
inputs = Inputs(
    Source(str(folder / "interactions.parquet"), columns), None, None,
    Source(str(folder / "items.parquet"), {"item_id": "item_id"}),
)
spec = FeatureSpec(("item_id",), gap_edges=(60,))
vocabularies = fit_feature_vocabularies(inputs, spec=spec)
catalogue, _ = encode_catalogue(inputs, spec=spec, vocabularies=vocabularies)
engine = Engine(folder / "scratch", "150MB", 2)
cut = Cut(date(2026, 3, 10))
rows = 0
with open_histories(
    inputs, catalogue=catalogue, spec=spec, vocabularies=vocabularies, cut=cut, engine=engine
) as night:
    for history, seen in night.users(0):
        rows += history.num_rows + seen.num_rows
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, rows)
"""


def peak(folder, users, write_parquet):
    rng = np.random.default_rng(1)
    owners = np.repeat(rng.permutation(users), 20)
    interactions = {
        "user_id": owners,
        "item_id": rng.integers(0, 1_000, len(owners)),
        "time": pa.array(1_773_000_000 - rng.integers(0, 10**6, len(owners)), pa.timestamp("s")),
    }
    write_parquet(folder / "interactions.parquet", pa.table(interactions), row_group_size=100_000)
    write_parquet(folder / "items.parquet", pa.table({"item_id": np.arange(1_000)}))
    found = subprocess.run([sys.executable, "-c", READER, str(folder)], capture_output=True, text=True, check=True)
    used, rows = map(int, found.stdout.split())
    assert rows == 2 * users
    return used


@pytest.mark.slow
def test_memory_is_bounded_however_many_users(tmp_path, write_parquet):
    """Twenty times the users, and far more events than the limit holds, take little more than the limit."""
    few = peak(tmp_path / "few", 20_000, write_parquet)
    many = peak(tmp_path / "many", 400_000, write_parquet)

    assert many - few < 300 * 2**20


# Prints the peak of a process that reads a file's times, in bytes.
PLAIN_READER = """
import sys
from batch.memory import peak_memory
from features.inputs import Source, read_batches

rows = sum(batch.num_rows for _, batch in read_batches(Source(sys.argv[1], {"time": "time"}), ["time"]))
print(peak_memory(), rows)
"""


def test_nothing_that_was_read_of_a_file_is_held(tmp_path, write_parquet):
    """Ten times the row groups, 45 MB more on disk, are read in the same memory."""
    used = []
    for rows in (600_000, 6_000_000):
        times = np.random.default_rng(2).integers(0, 2**62, rows)
        write_parquet(tmp_path / "times.parquet", pa.table({"time": times}), row_group_size=100_000)
        command = [sys.executable, "-c", PLAIN_READER, str(tmp_path / "times.parquet")]
        peak_bytes, read = map(int, subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
        assert read == rows
        used.append(peak_bytes)

    assert used[1] - used[0] < 22 * 2**20
