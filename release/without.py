"""A release's tables and index without some users and items: rows out, ranks closed, places moved up."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from artifacts.documents import read_json, write_json
from artifacts.errors import CorruptError
from artifacts.layout import IndexLayout, sidecar_of
from artifacts.release import ContentFile
from artifacts.store import staged_file
from artifacts.tables import finish_file, opening_arrow, read_sidecar, writing_table
from release.content import batches_of
from release.measure import runs_of

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Gone:
    """Which ids are taken out.

    Attributes:
        users: Their ids, unique.
        items: Their ids, unique.
    """

    users: pa.Array
    items: pa.Array

    def among(self, batch: pa.RecordBatch) -> Mask:
        """Mark the rows of *batch* that speak of one of them."""
        marked = np.zeros(batch.num_rows, bool)
        for column, ids in (("user_id", self.users), ("item_id", self.items)):
            if column in batch.schema.names and len(ids):
                marked |= _marks(batch.column(column), ids)
        return marked


def concerns(path: Path, gone: Gone) -> bool:
    """Whether a verified table has a row that is to go."""
    with opening_arrow(path) as reader:
        columns = [name for name in ("user_id", "item_id") if name in reader.schema.names]
    return any(gone.among(batch).any() for batch in batches_of([path], columns))


def ids_in(paths: Iterable[Path], column: str, ids: pa.Array) -> pa.Array:
    """Give those of *ids* that are in a column of verified tables."""
    found = np.zeros(len(ids), bool)
    for path in paths:
        for batch in batches_of([path], [column]):
            found |= _marks(ids, pc.unique(batch.column(0)))
    return ids.filter(pa.array(found))


def write_rows_without(source: Path, target: Path, gone: Gone) -> ContentFile:
    """Write a verified table without the rows that are *gone*; in each user's list the ranks are closed.

    What the schema says of the night stays. The same rows give the same bytes.
    """
    batches = (batch.filter(pa.array(~gone.among(batch))) for batch in batches_of([source]))
    return _write_table(source, target, _closed(batches))


def _write_table(source: Path, target: Path, batches: Iterable[pa.RecordBatch]) -> ContentFile:
    with opening_arrow(source) as reader:
        schema = reader.schema
    said = {key.decode(): value.decode() for key, value in schema.metadata.items() if key != b"format"}
    with writing_table(target, schema.remove_metadata(), metadata=said, inputs="") as writer:
        for batch in batches:
            writer.write(batch.replace_schema_metadata(None))
    return _listed(target)


def _listed(path: Path) -> ContentFile:
    """Give what was recorded of a file while it was written; in a release the manifest says it, and no sidecar."""
    file = ContentFile.of(read_sidecar(path))
    sidecar_of(path).unlink()
    return file


def _closed(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Number the rows of each user anew, from 1, where the table has ranks; it ascends by user."""
    last, rank = None, 0
    for batch in batches:
        if "rank" not in batch.schema.names or batch.num_rows == 0:
            yield batch
            continue
        users = batch.column("user_id")
        starts = runs_of(users)
        place = np.arange(batch.num_rows) - np.repeat(starts, np.diff(starts, append=batch.num_rows)) + 1
        if last is not None and last == users[0]:
            place[: starts[1] if len(starts) > 1 else None] += rank
        last, rank = users[-1], int(place[-1])
        field = batch.schema.get_field_index("rank")
        yield batch.set_column(field, batch.schema.field(field), pa.array(place, batch.schema.field(field).type))


def lists_emptied(source: Path, gone: Gone) -> int:
    """Count the users of a verified score table who stay, and whose every recommendation goes."""
    emptied, last, stays = 0, None, True
    for batch in batches_of([source], ["user_id", "item_id"]):
        marked, users = gone.among(batch), batch.column("user_id")
        kept_users = ~_marks(users, gone.users)
        starts = runs_of(users)
        alive = np.logical_or.reduceat(~marked | ~kept_users, starts)  # [users of the batch]
        if last is not None and last == users[0]:
            alive[0] |= stays
        elif last is not None:
            emptied += not stays
        emptied += int(np.count_nonzero(~alive[:-1]))
        last, stays = users[-1], bool(alive[-1])
    return emptied + (not stays)


def _marks(column: pa.Array, ids: pa.Array) -> Mask:
    return np.asarray(pc.is_in(column, value_set=ids).to_numpy(zero_copy_only=False), bool)


def rows_gone(items: Iterable[Path], gone: Gone) -> Mask:
    """Mark the catalogue rows that go: the rows of all verified item tables, one after the other."""
    return np.concatenate([np.zeros(0, bool), *(gone.among(batch) for batch in batches_of(list(items), ["item_id"]))])


def write_index_without(source: IndexLayout, target: IndexLayout, gone: Gone, rows: Mask) -> dict[str, ContentFile]:
    """Write a verified index without the items that are *gone*.

    The inverted lists are filtered: centroids, codes, their order and nprobe stay, so the other items are found as
    they were. FAISS rows move up with the rows of the id map, and its catalogue rows with the item tables.

    Args:
        source: The index.
        target: Where the new one goes.
        gone: Ids.
        rows: Whether each catalogue row goes.

    Returns:
        File name to what was recorded while it was written.

    Raises:
        CorruptError: If index and id map do not belong together, or nothing is left.
    """
    marked = rows_gone([source.items], gone)
    places = np.cumsum(~rows, dtype=np.int32) - 1

    def moved(batch: pa.RecordBatch) -> pa.RecordBatch:
        stays = batch.filter(pa.array(~gone.among(batch)))
        return stays.set_column(1, stays.schema.field(1), pa.array(places[stays.column("item").to_numpy()], pa.int32()))

    target.folder.mkdir(parents=True, exist_ok=True)
    ivf = _read_ivf(source.ivf, len(marked))
    _filter_lists(ivf, marked, source.ivf)
    with staged_file(target.ivf) as file:
        faiss.write_index(ivf, faiss.PyCallbackIOWriter(file.write))  # type: ignore[attr-defined]
    finish_file(target.ivf, inputs="")
    _read_ivf(target.ivf, int(np.count_nonzero(~marked)))
    parameters = read_json(source.parameters)
    counts = parameters.get("counts")
    if isinstance(counts, dict):
        parameters["counts"] = {**counts, "indexed": ivf.ntotal}
    write_json(target.parameters, {**parameters, "items": ivf.ntotal, "imbalance": ivf.invlists.imbalance_factor()})
    finish_file(target.parameters, inputs="")
    return {
        source.items.name: _write_table(source.items, target.items, map(moved, batches_of([source.items]))),
        source.ivf.name: _listed(target.ivf),
        source.parameters.name: _listed(target.parameters),
    }


def _read_ivf(path: Path, items: int) -> Any:
    """Read an index of so many items.

    Raises:
        CorruptError: If it is another kind of index, or of another number of items.
    """
    try:
        ivf = faiss.read_index(str(path))
    except RuntimeError as error:
        raise CorruptError(f"{path}: expected a FAISS index ({str(error).splitlines()[0]})") from error
    if not isinstance(ivf, faiss.IndexIVF) or ivf.ntotal != items or items == 0:
        raise CorruptError(
            f"{path}: expected an IVF of {items or 'at least one'} items, found a {type(ivf).__name__} of {ivf.ntotal}"
        )
    return ivf


def _filter_lists(ivf: Any, marked: Mask, path: Path) -> None:
    """Take the *marked* rows out of the inverted lists, and let the others move up."""
    lists, size = ivf.invlists, ivf.invlists.code_size
    fresh = faiss.ArrayInvertedLists(ivf.nlist, size)
    places = np.cumsum(~marked, dtype=np.int64) - 1
    for number in range(ivf.nlist):
        length = lists.list_size(number)
        if not length:
            continue
        ids = faiss.rev_swig_ptr(lists.get_ids(number), length).copy()
        codes = faiss.rev_swig_ptr(lists.get_codes(number), length * size).reshape(length, size)
        if ids.min() < 0 or ids.max() >= len(marked):
            raise CorruptError(f"{path}: list {number} has row {ids.max()}, the id map has {len(marked)} rows")
        stays = ~marked[ids]
        kept, of_kept = places[ids[stays]], np.ascontiguousarray(codes[stays])
        if len(kept):
            fresh.add_entries(number, len(kept), faiss.swig_ptr(kept), faiss.swig_ptr(of_kept))
    ivf.replace_invlists(fresh, True)
    fresh.this.disown()  # type: ignore[attr-defined]
    ivf.ntotal = int(np.count_nonzero(~marked))
