"""The step ``index``: item vectors to an IVF whose nprobe meets a recall on tonight's users.

``index.json`` holds ``format``, ``metadata`` (the run's), ``type``, ``metric``, ``width``, ``items``, ``nlist``,
``nprobe``, ``trained_on`` (vectors), ``seed``, ``faiss_threads``, ``recall_k``, ``recall_target``, ``recall`` and
``recall_interval`` (on the half of the sample that did not choose; null without users), ``recall_users``, ``curve``
(pairs of nprobe and recall on the half that chose), ``imbalance`` (1 is even) and ``counts``. Where recent popularity
counts, ``append`` has the numbers that stand behind an interest in a query, its weight first (``width`` counts them),
and ``scale`` is that of :func:`batch.ivf.popularity_scale`. Where the type was left to the night, ``type`` is what was
chosen, ``refine`` how many times as many neighbours are to be scored again by the vectors, ``memory`` the limit and
``tried`` has a :class:`batch.choose.Tried` of each index that was built.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from artifacts import schemas
from artifacts.bundle import Bundle
from artifacts.documents import read_json, write_json
from artifacts.errors import CorruptError, InputError, StaleRunError, UsageError
from artifacts.layout import sidecar_of
from artifacts.run import Run, StepResult
from artifacts.store import exclusive, remove_file, staged_file, sweep_staged_files
from artifacts.tables import finish_file, is_done, read_table, reading_table, writing_table
from batch.choose import AUTO, choose_index, told
from batch.earlier import UNUSABLE
from batch.indexed import appended, gather_vectors, on_device, open_index, read_ivf
from batch.ivf import IndexOptions, popularity_scale, train, training_rows
from batch.nprobe import choose_nprobe, halves_of, measured
from batch.profile import require_profile
from batch.retrieve import Index, most_of, require_searchable, search
from batch.session import Session, open_session
from batch.shards import inputs_digest, nothing, require_bundle
from batch.stages import forget_stages, stage, stages
from batch.towers import UserVectors, vectors_of

FORMAT = 1
TYPES = ("Flat", "SQ8", "PQ")
MOST_WEIGHT = 1000
_AT_ONCE = 65_536  # vectors that are looked at


def build_index(
    run: Run,
    user: Bundle,
    options: IndexOptions,
    *,
    earlier: Sequence[Run] = (),
    device: str = "cpu",
    threads: int = 0,
    advance: Callable[[int], None] = nothing,
) -> StepResult:
    """Build the index of tonight's items; nprobe is chosen anew every night.

    Args:
        run: Its step ``items`` is done.
        user: The user bundle, verified; its vectors of the sample choose nprobe.
        options: How to build.
        earlier: From :func:`batch.earlier.earlier_runs`: where the same vectors were indexed, centroids and lists are
            kept, which no byte depends on; never where the type is chosen by tonight's users.
        device: ``cpu``, ``gpu`` or ``auto``; must be what the run was prepared for.
        threads: Threads of one operator of the user graph; 0 takes all. FAISS takes those of the run's profile.
        advance: Told how many items were indexed, once.

    Returns:
        Counts: ``indexed``, and the items left out, each for its first reason: ``ineligible``, ``no_signal``,
        ``nan_vectors`` (or Inf), ``zero_vectors``; and ``kept_lists``, if lists were kept.

    Raises:
        UsageError: If an option cannot be, or the items do not allow it.
        StaleRunError: If the run belongs to another bundle or profile, or an earlier step is not finished.
        InputError: If an item id comes twice, or no item can be indexed.
    """
    chosen = require_profile(run, device=device)
    require_bundle(run, user)
    _require_options(run, options, chosen.name)
    layout = run.layout
    inputs = _inputs(run, user, options)
    outputs = (layout.index.ivf, layout.index.items, layout.index.parameters)
    with exclusive(layout.index.folder / ".lock"):
        if all(is_done(path, inputs) for path in outputs):
            return StepResult("index", 1, 1, 0, {})
        forget_stages()
        with stage("read"):
            catalogue = read_table(layout.catalogue).combine_chunks()
            item_ids = _ids(run, catalogue)
            append = appended(user.width, options.popularity_weight)
            rows, vectors, counts = _select(run, catalogue, item_ids, more=len(append))
        session = open_session(user, rows=run.profile["batch_users"], device=chosen.name, threads=threads)
        users = _encode_sample(run, session)
        scale = popularity_scale(users.vectors, options.popularity_weight)
        with stage("read"):
            kept = None if options.type == AUTO else _kept_index(earlier, user, options, vectors, scale)
        empty = Index(None, rows, vectors, 1, run.profile["faiss_threads"], most_of(chosen.name), append)

        def make(options: IndexOptions) -> Index:
            with stage("build"):
                return replace(empty, ivf=kept or _train(run, user, options, vectors, scale, chosen.name))

        index, said = _tuned(make, empty, users, options, chosen.name)
        popularity = {"append": append.tolist(), "scale": scale} if scale else {}
        with stage("write"):
            _write(run, index, item_ids, {"counts": counts, **said, **popularity}, inputs)
    advance(len(rows))
    counted = {**counts, "kept_lists": index.ivf.nlist} if kept else counts
    about = told({"nlist": index.ivf.nlist, **said}) if options.type == AUTO else ""
    return StepResult("index", 1, 0, len(rows), counted, stages=stages(), about=about)


def _tuned(
    make: Callable[[IndexOptions], Index], empty: Index, users: UserVectors, options: IndexOptions, device: str
) -> tuple[Index, dict[str, Any]]:
    """Build the index by *make*, or several if its type is open; gives it, and what ``index.json`` says of it."""
    with stage("search"):
        queries, k = empty.queries(users.vectors), options.recall_k
        halves = halves_of(empty.vectors, queries, users.counts, k=k, threads=empty.threads, device=device)
        if options.type == AUTO:
            index, exact, said = choose_index(make, empty.vectors, halves, options)
        else:
            index, exact = make(options), options
            searched = replace(index, ivf=on_device(index.ivf, device))
            chosen = choose_nprobe(searched, halves[0], options.recall_target, most=index.ivf.nlist)
            said = measured(searched, halves, chosen, options)
    index.ivf.nprobe = said["nprobe"]
    trained_on = training_rows(len(empty.vectors), exact)
    return index, {"trained_on": trained_on, "seed": options.seed, "type": exact.type, **said}


def _inputs(run: Run, user: Bundle, options: IndexOptions) -> str:
    layout = run.layout
    files = [
        layout.catalogue,
        layout.sample,
        *(layout.items(shard, run.item_shards) for shard in range(run.item_shards)),
    ]
    if options.popularity_weight:
        files.append(layout.popular)
    return inputs_digest(run, [user], files, **asdict(options))


def _kept_index(earlier: Sequence[Run], user: Bundle, options: IndexOptions, vectors: np.ndarray, scale: float) -> Any:
    """Find the index that an *earlier* run of the same profile built of these *vectors*; None if there is none.

    Every byte of it is checked, and of the items it was built of; one that is changed is as good as none.
    """
    for run in earlier:
        try:
            if not is_done(run.layout.index.ivf, _inputs(run, user, options)):
                continue
            item_ids = read_table(run.layout.catalogue)["item_id"].combine_chunks()
            index = open_index(run, item_ids, device="cpu")
        except UNUSABLE:
            continue
        if read_json(run.layout.index.parameters).get("scale", 0) != scale:
            continue
        if _same_bits(index.vectors, vectors):
            return index.ivf
    return None


def _same_bits(left: np.ndarray, right: np.ndarray) -> bool:
    return left.shape == right.shape and all(
        left[start : start + _AT_ONCE].tobytes() == right[start : start + _AT_ONCE].tobytes()
        for start in range(0, len(left), _AT_ONCE)
    )


def _train(run: Run, user: Bundle, options: IndexOptions, vectors: np.ndarray, scale: float, device: str) -> Any:
    scaling = np.where(np.arange(vectors.shape[1]) == user.width, scale, 1) if scale else None
    threads, folder = run.profile["faiss_threads"], run.layout.index.folder / ".parts"
    return train(vectors, options, threads=threads, device=device, scaling=scaling, folder=folder)


def _encode_sample(run: Run, session: Session) -> UserVectors:
    with reading_table(run.layout.sample) as reader:
        return vectors_of(session, (reader.get_batch(number) for number in range(reader.num_record_batches)))


def _require_options(run: Run, options: IndexOptions, device: str) -> None:
    if options.type not in (*TYPES, AUTO):
        raise UsageError(f"[index] type: expected one of {', '.join((*TYPES, AUTO))}, found {options.type!r}")
    if options.type != run.profile["index_type"]:
        raise StaleRunError(
            f"{run.folder}: prepared for an index of type {run.profile['index_type']}, asked for {options.type}; "
            "run `nightrec prepare` anew"
        )
    if not 0 < options.recall_target <= 1:
        raise UsageError(f"[index] recall_target: expected more than 0, at most 1, found {options.recall_target}")
    if not 1 <= options.recall_k <= 65_535:
        raise UsageError(f"[index] recall_k: expected 1 to 65535, found {options.recall_k}")
    if not 0 <= options.popularity_weight <= MOST_WEIGHT:
        raise UsageError(
            f"[retrieve] popularity_weight: expected 0 to {MOST_WEIGHT}, found {options.popularity_weight}"
        )
    require_searchable(device, k=options.recall_k)


def _ids(run: Run, catalogue: pa.Table) -> pa.Array:
    item_ids = catalogue["item_id"].combine_chunks()
    before, after = item_ids.slice(0, max(len(item_ids) - 1, 0)), item_ids.slice(1)
    ascending = pc.less(before, after)
    if not pc.all(ascending, min_count=0).as_py():
        place = pc.index(ascending, False).as_py() + 1
        raise InputError(
            f"{run.layout.catalogue}, row {place}: item_id {item_ids[place].as_py()!r} comes twice or is not ascending"
        )
    return item_ids


def _select(
    run: Run, catalogue: pa.Table, item_ids: pa.Array, *, more: int
) -> tuple[np.ndarray, np.ndarray, dict[str, int]]:
    """Choose what is indexed; gives catalogue rows int32, float32 vectors with *more* numbers behind, and counts."""
    eligible, signal = (catalogue[name].to_numpy() for name in ("eligible", "signal"))
    rows = np.flatnonzero(eligible & signal).astype(np.int32)
    vectors = gather_vectors(run, item_ids, rows, more=more)
    own = vectors[:, : vectors.shape[1] - more]  # a popular item without a vector of use is left out all the same
    parts = [slice(start, start + _AT_ONCE) for start in range(0, len(rows), _AT_ONCE)]
    finite, used = np.empty(len(rows), bool), np.empty(len(rows), bool)
    for part in parts:
        finite[part], used[part] = np.isfinite(own[part]).all(axis=1), own[part].any(axis=1)
    good = finite & used
    counts = {
        "ineligible": int((~eligible).sum()),
        "no_signal": int((eligible & ~signal).sum()),
        "nan_vectors": int((~finite).sum()),
        "zero_vectors": int((~used).sum()),
        "indexed": int(good.sum()),
    }
    if not good.any():
        reasons = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in counts.items() if count)
        raise InputError(f"{run.folder}: none of the {len(item_ids)} items can be indexed ({reasons or 'no items'})")
    end = 0
    for part in parts if not good.all() else []:  # in place: a second copy of all vectors may not fit
        kept = vectors[part][good[part]]
        vectors[end : end + len(kept)] = kept
        end += len(kept)
    return rows[good], vectors[: counts["indexed"]], counts


def _write(run: Run, index: Index, item_ids: pa.Array, said: dict[str, Any], inputs: str) -> None:
    layout, metadata = run.layout.index, run.metadata()
    for path in (layout.ivf, layout.items, layout.parameters):
        sweep_staged_files(path)
        remove_file(sidecar_of(path))
    with staged_file(layout.ivf) as file:
        faiss.write_index(index.ivf, faiss.PyCallbackIOWriter(file.write))  # type: ignore[attr-defined]
    _require_same_answers(layout.ivf, index)
    finish_file(layout.ivf, inputs=inputs, run_key=run.run_key)
    ids = item_ids.take(pa.array(index.items))
    with writing_table(layout.items, schemas.index_items(run.item_type), metadata=metadata, inputs=inputs) as table:
        table.write(pa.table({"item_id": ids, "item": index.items}))
    document = {
        "format": FORMAT,
        "metadata": metadata,
        "metric": "inner_product",
        "width": index.ivf.d,
        "items": len(index.items),
        "nlist": index.ivf.nlist,
        "faiss_threads": index.threads,
        "imbalance": index.ivf.invlists.imbalance_factor(),
        **said,
    }
    write_json(layout.parameters, document)
    finish_file(layout.parameters, inputs=inputs, run_key=run.run_key)


def _require_same_answers(path: Path, index: Index) -> None:
    """Read the file at *path* back: it must answer as the index in memory, whose recall was measured."""
    read = replace(index, ivf=read_ivf(path))
    queries = index.vectors[:: max(len(index.vectors) // 64, 1)]
    k, nprobe = min(10, len(index.items)), index.ivf.nprobe
    found, expected = (search(one, queries, k=k, nprobe=nprobe) for one in (read, index))
    same = all(np.array_equal(*pair) for pair in zip(found, expected, strict=True))
    if not same or (read.ivf.nprobe, read.ivf.ntotal) != (nprobe, len(index.items)):
        raise CorruptError(
            f"{path}: read back, it answers otherwise than the index that was written; is the disk sound?"
        )
