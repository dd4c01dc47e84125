"""What a name says: whose ids a list is of that are to be gone, and what ``nightrec init`` makes of it."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from features.catalogue import read_excluded
from nightrec.config import read_config
from nightrec.config_verbs import mistakes_in
from nightrec.inputs import inputs_of
from nightrec.main import execute
from nightrec.names import names_gone
from tests.nightrec.stranger import ITEMS, drawn, write_csv


@pytest.mark.parametrize(
    ("name", "columns", "whose"),
    [
        ("exclude_users.parquet", ["id"], "user_id"),
        ("blocked items", ["id", "since"], "item_id"),
        ("ErasureRequests.csv", ["CustomerID", "asked_at"], "user_id"),
        ("takedowns.csv", ["sku"], "item_id"),
        ("takedowns_of_users.csv", ["id"], "user_id"),
        ("exclude.csv", ["id"], ""),  # whose?
        ("blocked_users.csv", ["user_id", "item_id", "time"], ""),  # who blocked what, and when
        ("users.parquet", ["id"], ""),
    ],
)
def test_a_list_of_what_is_gone_says_so_by_its_name(name: str, columns: list[str], whose: str) -> None:
    """The table's name must say that they go; whose they are it says itself, or its column does, or nobody knows."""
    assert names_gone(name, columns) == whose


def test_init_puts_them_into_the_config(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One is read where it lies, another is copied; neither is taken for the list of all users or of all items."""
    monkeypatch.chdir(tmp_path)
    events = [(user, item, time.isoformat(" ")) for user, item, time in drawn()]
    write_csv(tmp_path / "data/events.csv", ["user_id", "item_id", "time"], events)
    pq.write_table(pa.table({"id": pa.array([3, 5], pa.int64())}), tmp_path / "data/exclude_users.parquet")
    write_csv(tmp_path / "data/takedowns.csv", ["item_id"], [[item] for item in range(0, ITEMS, 2)])

    assert execute(["init", "data", "--yes"]) == 0

    assert list(mistakes_in(tmp_path / "job.toml")) == []
    tables = read_config(tmp_path / "job.toml").inputs
    assert tables.exclude_users is not None
    assert tables.exclude_items is not None
    assert (tables.exclude_users.path, tables.exclude_users.id) == (str(tmp_path / "data/exclude_users.parquet"), "id")
    assert tables.exclude_items.path == str(tmp_path / "inputs/exclude_items.parquet")
    inputs = inputs_of(read_config(tmp_path / "job.toml"))
    assert read_excluded(inputs.exclude_users, pa.int64()).to_pylist() == [3, 5]
    assert read_excluded(inputs.exclude_items, pa.int64()).to_pylist() == list(range(0, ITEMS, 2))
    assert tables.users is None
    assert pq.read_table(tmp_path / "inputs/items.parquet").num_rows == ITEMS  # made of the events
    said = capsys.readouterr().err
    assert "not taken" not in said
    assert "20 rows, named so: whatever these are, they are gone from every output" in " ".join(said.split())
