"""Reading a release as its users do: the recommendations of one user, and any rows of one id."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from artifacts.errors import CorruptError, UsageError
from artifacts.lookup import batches_around, ids_beside, nearest_ids, typed_id
from artifacts.release import verify_content_file
from artifacts.tables import opening_arrow
from release.pointer import LATEST, Release, find_release


@dataclass(frozen=True, slots=True)
class Recommendations:
    """What a release recommends to one user.

    Attributes:
        version: The release.
        date: Its data date.
        user: The user's id, of the type that the release has.
        rows: As in the score tables, ascending by rank.
    """

    version: str
    date: str
    user: int | str
    rows: pa.Table


def recommendations(root: Path, user: str, *, version: str | None = None, channel: str = LATEST) -> Recommendations:
    """Find what is recommended to *user*, by looking into few record batches of each shard.

    The shard that holds the user is verified before its rows are given; before a user is said to be unknown, all are.

    Args:
        root: The surface's root.
        user: The id as text.
        version: A release; the one that *channel* names if None.
        channel: Which pointer to follow.

    Raises:
        UsageError: If the release does not know the user (the message names the nearest ids), or there is no release.
        CorruptError: If the release is changed.
    """
    release = find_release(root, version, channel)
    wanted = typed_id("user", user, id_type(release, release.layout.scores, "user_id"))
    near: list[int | str] = []
    rows = rows_with(release, release.layout.scores, "user_id", wanted, near)
    if not rows.num_rows:
        hint = f"; the nearest are {', '.join(map(str, nearest_ids(wanted.as_py(), near)))}" if near else ""
        raise UsageError(f"user {user}: release {release.version} has no recommendations for this id{hint}")
    return Recommendations(release.version, release.manifest.date, wanted.as_py(), rows)


def id_type(release: Release, folder: Path, column: str) -> pa.DataType:
    """Say of which type the ids in *column* of the tables in *folder* are."""
    with opening_arrow(_shards_in(release, folder)[0]) as reader:
        return reader.schema.field(column).type


def batches_in(release: Release, folder: Path) -> Iterator[pa.RecordBatch]:
    """Stream the tables in *folder*, each verified before its first row is given.

    Raises:
        CorruptError: If a table is missing or changed.
    """
    for path in _shards_in(release, folder):
        with opening_arrow(_verified(release, path)) as reader:
            for number in range(reader.num_record_batches):
                yield reader.get_batch(number)


def rows_with(release: Release, folder: Path, column: str, wanted: pa.Scalar, near: list[int | str]) -> pa.Table:
    """Give the rows of one id out of the tables in *folder*, by looking into few record batches of each.

    The shard that holds them is verified before they are given; before there are said to be none, all are.

    Args:
        release: Whose tables.
        folder: One of its folders of tables.
        column: That by which they ascend.
        wanted: The id.
        near: Ids beside where it would stand are added here.

    Raises:
        CorruptError: If a table is missing or changed.
    """
    shards = _shards_in(release, folder)
    for path in shards:
        if _rows_of(path, column, wanted, near).num_rows:
            return _rows_of(_verified(release, path), column, wanted, near)
    for path in shards:
        _verified(release, path)
    return _rows_of(shards[0], column, wanted, near).slice(0, 0)


def _shards_in(release: Release, folder: Path) -> list[Path]:
    paths = [release.layout.folder / name for name in sorted(release.manifest.files)]
    shards = [path for path in paths if path.parent == folder and path.suffix == ".arrow"]
    if not shards:
        raise CorruptError(f"{release.layout.manifest}: expected at least one file of {folder.name}, found none")
    return shards


def _verified(release: Release, path: Path) -> Path:
    name = path.relative_to(release.layout.folder).as_posix()
    return verify_content_file(release.layout, release.manifest, name)


def _rows_of(path: Path, column: str, wanted: pa.Scalar, near: list[int | str]) -> pa.Table:
    """Give the rows of one id; ids beside where it would stand are added to *near*."""
    with opening_arrow(path) as reader:
        found = []
        for _, batch in batches_around(reader, column, wanted):
            near.extend(ids_beside(batch[column], wanted))
            found.append(batch.filter(pc.equal(batch[column], wanted)))
        return pa.Table.from_batches(found, reader.schema)
