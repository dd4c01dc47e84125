"""What a release answers to questions about users: their final lists, and what its index finds for their interests."""

from collections.abc import Iterator
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from artifacts.documents import read_json
from artifacts.release import verify_content_file
from artifacts.tables import opening_arrow
from features.encode import NO_ITEM, list_parts
from features.sequences import Sequences
from models.protocol import KS, Lists, Questions, without_had
from release.pointer import Release
from release.read import batches_in

_USERS_AT_ONCE = 256


def final_lists(release: Release, sequences: Sequences, questions: Questions) -> tuple[Lists, int]:
    """Read what was published for the users of *questions*; and of how many of them nothing was."""
    users, items = _ids(sequences, questions)
    rows, places, ranks = [], [], []
    for batch in batches_in(release, release.layout.scores):
        row = _index_in(batch["user_id"], users)
        mine = row >= 0
        rows.append(row[mine])
        places.append(_index_in(batch["item_id"], items)[mine])
        ranks.append(batch["rank"].to_numpy()[mine].astype(np.int64))
    row, place, rank = (np.concatenate(parts) for parts in (rows, places, ranks))
    lists = np.full((len(questions), int(rank.max(initial=1))), NO_ITEM)
    lists[row, rank - 1] = place  # an item that the catalogue has no more is none
    missing = len(questions) - len(np.unique(row))
    return {"all": lists, "new": without_had(questions, lists)}, missing


def retrieved_lists(release: Release, sequences: Sequences, questions: Questions, k: int = max(KS)) -> Lists:
    """Search the release's index, as it is tuned, with the interests of the users of *questions*."""
    users, items = _ids(sequences, questions)
    layout = release.layout.index
    for path in (layout.ivf, layout.items, layout.parameters):
        verify_content_file(release.layout, release.manifest, path.relative_to(release.layout.folder).as_posix())
    index = faiss.read_index(str(layout.ivf))
    said = read_json(layout.parameters)
    append, refine = np.array(said.get("append", []), np.float32), said.get("refine", 1)
    with opening_arrow(layout.items) as reader:
        item_ids = reader.read_all()["item_id"].combine_chunks()
    catalogue_rows = _index_in(item_ids, items)
    stored = _vectors(release, index, item_ids) if refine > 1 else None
    lists = {kind: np.full((len(questions), k), NO_ITEM) for kind in ("all", "new")}
    for row, vectors in _interests(release, users):
        had = questions.had[row]
        found = _search(index, np.hstack([vectors, np.tile(append, (len(vectors), 1))]), k + len(had), refine, stored)
        best = catalogue_rows[found]
        for kind, some in (("all", best), ("new", best[~np.isin(best, had)])):
            lists[kind][row, : min(k, len(some))] = some[:k]
    return lists


def _interests(release: Release, users: pa.Array) -> Iterator[tuple[int, np.ndarray]]:
    """Give each user's row of the questions, and interests [K, d]; who is cold is left out."""
    for batch in batches_in(release, release.layout.interests):
        rows = _index_in(batch["user_id"], users)
        counts, vectors = list_parts(batch["vectors"])
        ends = np.cumsum(counts)
        flat = vectors.flatten().to_numpy().reshape(-1, vectors.type.list_size)
        for place in np.flatnonzero((rows >= 0) & (counts > 0)):
            yield int(rows[place]), flat[ends[place] - counts[place] : ends[place]]


def _vectors(release: Release, index: Any, item_ids: pa.Array) -> np.ndarray:
    """Give the vectors of the index's rows, float32 [n, width]; of popularity behind them there is what it stores."""
    index.make_direct_map()
    vectors = np.array(index.reconstruct_n(0, index.ntotal))
    for batch in batches_in(release, release.layout.items):
        rows = _index_in(batch["item_id"], item_ids)
        column = batch["vector"]
        own = column.flatten().to_numpy().reshape(-1, column.type.list_size)
        vectors[rows[rows >= 0], : column.type.list_size] = own[rows >= 0]
    return vectors


def _search(index: Any, vectors: np.ndarray, k: int, refine: int, stored: np.ndarray | None) -> np.ndarray:
    """Find the *k* best rows of the index for any of *vectors*, best first; an item counts once, by its best score.

    With *stored*, *refine* times as many are found first, and scored again by it.
    """
    scores, rows = index.search(np.ascontiguousarray(vectors), min(refine * k, index.ntotal))
    if stored is not None:
        scores = np.vecdot(vectors[:, None, :], stored[rows])  # of row -1 none is looked at below
    scores, rows = scores[rows >= 0], rows[rows >= 0]
    order = np.lexsort((rows, -scores))
    _, first = np.unique(rows[order], return_index=True)
    best: np.ndarray = rows[order][np.sort(first)][:k]
    return best


def _ids(sequences: Sequences, questions: Questions) -> tuple[pa.Array, pa.Array]:
    """The ids of the questions' users, in order, and those of the catalogue's items."""
    return (
        sequences.user_ids.take(pa.array(questions.asked.users)),
        sequences.catalogue["item_id"].combine_chunks(),
    )


def _index_in(ids: pa.Array, known: pa.Array) -> np.ndarray:
    """Give the place of each of *ids* among the *known*, int64; -1 for one that is not."""
    places: np.ndarray = pc.fill_null(pc.index_in(ids, value_set=known), -1).to_numpy(zero_copy_only=False)
    return places.astype(np.int64)
