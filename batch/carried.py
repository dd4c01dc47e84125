"""What one night leaves for the next to carry on, and how the next finds it: events in order, read and sorted already.

It is a cache: what is damaged, missing or of other inputs costs the saving and nothing else. The answer to a request
(``runs/DATE/requests``) says what was read and left; the tables lie in the run, beside what was prepared of them.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from artifacts import schemas
from artifacts.digest import document_digest, file_digest
from artifacts.documents import read_sealed
from artifacts.errors import CorruptError, StaleRunError
from artifacts.fields import DAY
from artifacts.layout import RootLayout, RunLayout
from artifacts.run import FORMAT
from artifacts.store import names_in
from artifacts.tables import opening_arrow, read_sidecar, verify_file
from batch.stages import each
from features.carried import Carried, WhatWasRead
from features.catalogue import read_excluded
from features.histories import Histories
from features.inputs import IdTypes, Inputs, files_of

PARTS = ("items", "users", "events")
LOOKS = 7  # requests that are looked at, of the newest date first
_USELESS = (CorruptError, StaleRunError, FileNotFoundError, LookupError, TypeError, ValueError)  # or pruned meanwhile

Write = Callable[[Path, Iterable[pa.RecordBatch | pa.Table], pa.Schema], None]


@dataclass(frozen=True, slots=True)
class Terms:
    """On what terms a night reads events.

    Attributes:
        inputs: The raw tables; ready-made histories are never carried on.
        types: The types of their ids.
        shards: Into how many shards users are split.
        date: The data date, ISO.
        now_us: Its end.
    """

    inputs: Inputs
    types: IdTypes
    shards: int
    date: str
    now_us: int

    def excluded(self) -> pa.Array:
        """Read who is excluded, ascending."""
        return read_excluded(self.inputs.exclude_users, self.types.user_id)

    def digest(self) -> str:
        """Digest what makes events of the interactions' rows, and puts them in order: equal for what is carried on."""
        excluded = {name: one for name, one in self.inputs.sources.items() if name.startswith("exclude_")}
        said = {
            "columns": self.inputs.sources["interactions"].columns,
            "naive_zone": self.inputs.naive_zone,
            "excluded_columns": {name: source.columns for name, source in excluded.items()},
            "excluded": {name: sorted(map(file_digest, files_of(source).paths)) for name, source in excluded.items()},
            "ids": [str(self.types.user_id), str(self.types.item_id)],
            "shards": self.shards,
        }
        return document_digest(said)


@dataclass(frozen=True, slots=True)
class Inventory:
    """What a night is about to read, digested before it does: what comes while it reads is new to the next night.

    Attributes:
        terms: Digest of the terms.
        excluded: Who is excluded, ascending.
        files: Digest of each file of interactions.
    """

    terms: str
    excluded: pa.Array
    files: Mapping[Path, str]


def take_inventory(terms: Terms) -> Inventory:
    """Digest what a night is about to read."""
    paths = files_of(terms.inputs.sources["interactions"]).paths
    return Inventory(terms.digest(), terms.excluded(), {path: file_digest(path) for path in paths})


def leave(layout: RunLayout, histories: Histories, user_id: pa.DataType, write: Write) -> None:
    """Write what the next night may carry on: the same tables whether these events were carried on or read."""
    items = histories.carried_items()
    write(layout.carried("items"), [items], items.schema)
    write(layout.carried("users"), each("read", histories.carried_users()), schemas.carried_users(user_id))
    write(layout.carried("events"), each("read", histories.carried_events()), schemas.carried_events())


def what_was_left(
    layout: RunLayout, now_us: int, inventory: Inventory, counts: Mapping[str, int], read: WhatWasRead
) -> dict[str, Any]:
    """Say what was read and left by the night that ends at *now_us*, for the answer to a request.

    Excluded users are not named: it says which places they have in the list of them. Where files came or went while
    the night read, there is nothing to say.
    """
    if inventory.files.keys() != read.files.keys():
        return {}
    return {
        "terms": inventory.terms,
        "now_us": now_us,
        "excluded": pc.index_in(read.excluded, value_set=inventory.excluded).to_pylist(),
        "of_excluded_users": counts["interactions_of_excluded_users"],
        "with_excluded_items": counts["interactions_with_excluded_items"],
        "files": [[inventory.files[path], dict(said)] for path, said in read.files.items()],
        "tables": {part: read_sidecar(layout.carried(part)).sha256 for part in PARTS},
    }


@contextmanager
def finding_carried(layout: RootLayout, terms: Terms, inventory: Inventory) -> Iterator[Carried | None]:
    """Open what the newest night of the date or before it left that was made on these *terms*, of tonight's files.

    Tonight may have more files; one that is gone or changed makes everything new. Every byte is checked first.
    """
    with ExitStack() as stack:
        for folder, said in islice(_answers(layout, terms.date), LOOKS):
            try:
                if said["terms"] != inventory.terms or said["now_us"] > terms.now_us:
                    continue
                found = _opened(folder, said, inventory, stack)
            except _USELESS:
                continue
            yield found
            return
        yield None


def _answers(layout: RootLayout, date: str) -> Iterator[tuple[RunLayout, dict[str, Any]]]:
    days = [name for name in names_in(layout.runs) if DAY.fullmatch(name) and name <= date]
    for day in reversed(days):
        requests = layout.request(day, "").parent
        for name in names_in(requests):
            try:
                answer = read_sealed(requests / name, version=FORMAT)
                yield layout.run(day, str(answer["run_key"])), answer["carried"]
            except _USELESS:
                continue


def _opened(
    layout: RunLayout,
    said: Mapping[str, Any],
    inventory: Inventory,
    stack: ExitStack,
) -> Carried:
    """Check and open what a night left.

    Raises:
        LookupError: If tonight lacks one of its files.
        CorruptError: If a table has other bytes than it left.
    """
    paths: dict[str, list[Path]] = {}
    for path, digest in inventory.files.items():
        paths.setdefault(digest, []).append(path)
    files = {paths[digest].pop(): counts for digest, counts in said["files"]}
    excluded = inventory.excluded.take(pa.array(said["excluded"], pa.int32()))
    opened, rows = {}, {}
    for part in PARTS:
        path = layout.carried(part)
        sidecar = verify_file(path)
        if sidecar.sha256 != said["tables"][part]:
            raise CorruptError(f"{path}: is of another night")
        rows[part] = sidecar.rows
        opened[part] = stack.enter_context(opening_arrow(path))
    return Carried(
        now_us=said["now_us"],
        files=files,
        of_excluded_users=said["of_excluded_users"],
        with_excluded_items=said["with_excluded_items"],
        item_ids=opened["items"].read_all().column("item_id").combine_chunks(),
        users=chain(_batches(opened["users"]), [_without_events(excluded)]),
        events=_batches(opened["events"]),
        rows=rows["events"],
    )


def _without_events(users: pa.Array) -> pa.RecordBatch:
    none = pa.array(np.zeros(len(users), np.int64))
    return pa.RecordBatch.from_arrays([users, none], schema=schemas.carried_users(users.type))


def _batches(reader: pa.RecordBatchFileReader) -> Iterator[pa.RecordBatch]:
    return map(reader.get_batch, range(reader.num_record_batches))
