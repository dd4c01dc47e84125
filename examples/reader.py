"""A reader of releases: follows LATEST, searches the index, looks users up: ``python -m examples.reader ROOT USER``."""

import sys
from bisect import bisect_left
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from artifacts.documents import read_json
from artifacts.errors import CorruptError
from artifacts.release import verify_content_file
from release.pointer import LATEST, follow, read_pointer


@dataclass(frozen=True)
class Loaded:
    """One release, verified and open: an open file stays readable while its release is pruned."""

    version: str
    index: Any  # of FAISS; nprobe is stored in it
    append: np.ndarray  # what stands behind an interest in a query: nothing, or the weight of popularity and zeros
    items: pa.Array  # from FAISS row to item id
    scores: tuple[pa.ipc.RecordBatchFileReader, ...]


def load(root: Path, channel: str = LATEST, attempts: int = 5) -> Loaded:
    """Open the release that a channel names; if it is pruned meanwhile, the one that is named then."""
    try:
        release = follow(root, channel)
        paths = [str(verify_content_file(release.layout, release.manifest, name)) for name in release.manifest.files]
        scores = tuple(pa.ipc.open_file(pa.memory_map(path)) for path in paths if "/scores/" in path)
        items = pa.ipc.open_file(release.layout.index.items).read_all()["item_id"].combine_chunks()
        append = np.array(read_json(release.layout.index.parameters).get("append", []), np.float32)
        return Loaded(release.version, faiss.read_index(str(release.layout.index.ivf)), append, items, scores)
    except (CorruptError, OSError):
        if attempts == 1:
            raise
        return load(root, channel, attempts - 1)


@dataclass
class Reader:
    """What a service holds: one whole release at any time."""

    root: Path
    channel: str = LATEST
    loaded: Loaded | None = None

    def refresh(self) -> Loaded:
        """Give the release that the channel names; it is opened only if it is another than before."""
        pointer = read_pointer(self.root, self.channel)
        if self.loaded is None or (pointer and pointer.version != self.loaded.version):
            self.loaded = load(self.root, self.channel)
        return self.loaded


def search(loaded: Loaded, vector: np.ndarray, k: int) -> list[tuple[Any, float]]:
    """Find the *k* items that fit *vector*, float32 [d], best by inner product.

    Of an index of codes (``refine`` above 1 in ``index.json``) ask for so many times *k*, and let
    the items' own vectors put them in order (docs/formats.md).
    """
    (scores,), (rows,) = loaded.index.search(np.concatenate([vector, loaded.append])[None], k)
    return [(loaded.items[row].as_py(), score) for row, score in zip(rows.tolist(), scores, strict=True) if row >= 0]


def recommended(loaded: Loaded, user: int | str) -> list[dict[str, Any]]:
    """Give a user's recommendations, best first; none for one whom the release does not know."""
    found = []
    for table in loaded.scores:
        batches = range(table.num_record_batches)  # users ascend: find the first batch that does not end before ours
        first = bisect_left(batches, user, key=lambda batch: table.get_batch(batch)["user_id"][-1].as_py())
        for batch in map(table.get_batch, batches[first : first + 2]):  # a list may go on in the next one
            found += batch.filter(pc.equal(batch["user_id"], user)).to_pylist()
    return found


if __name__ == "__main__":
    opened = load(Path(sys.argv[1]))
    user_id = pa.scalar(sys.argv[2]).cast(opened.scores[0].schema.field("user_id").type).as_py()
    print(opened.version, *recommended(opened, user_id), sep="\n")
