"""The step ``prepare``: raw tables become a run, whole or not at all, named by its content."""

import datetime
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from artifacts import schemas
from artifacts.bundle import Bundle, FeatureSpec, Role, read_bundle, require_one_model
from artifacts.digest import document_digest
from artifacts.documents import write_json, write_sealed
from artifacts.errors import RefusedError, UsageError
from artifacts.layout import ReplayLayout, RootLayout, RunLayout
from artifacts.run import FORMAT, Run, StepResult, run_key_of
from artifacts.store import exclusive
from artifacts.tables import TableWriter, read_sidecar, writing_table
from batch.carried import Terms, finding_carried, leave, take_inventory, what_was_left
from batch.memory import give_back_what_is_freed
from batch.place import find_prepared, prepared_tables, settle, staging
from batch.profile import resolve_profile
from batch.shards import Progress, untold
from batch.stages import each, forget_stages, stage, stages
from features.carried import Carried, WhatWasRead
from features.catalogue import encode_catalogue
from features.day import data_day, require_day
from features.histories import Cut, Histories, open_histories
from features.inputs import Inputs, check_inputs, count_events, fingerprint_inputs
from features.ordered import Engine
from features.vocabulary import Vocabulary, load_vocabularies


@dataclass(frozen=True, slots=True)
class PrepareRequest:
    """What a night is asked to be prepared from.

    Attributes:
        date: The data date, ISO.
        zone: The time zone in which it ends.
        inputs: The raw tables.
        bundles: Folders of the item and the user bundle, and of the ranker's if there is one.
        semantic: The part of the config that the content depends on; it enters the run's key as it is.
        shards: Into how many shards users are split.
        item_shards: Into how many ranges the catalogue is split.
        groups: Names of the columns that the shop's rules limit.
        popular_days: Days up to the data date whose events make an item popular.
        sample_users: Users of the fixed sample.
        device: ``cpu``, ``gpu`` or ``auto``, for the profile.
        batch_users: Rows of a batch of users, for the profile.
        batch_items: Rows of a batch of items, for the profile.
        batch_lists: Rows of a batch of users with their candidates, for the profile.
        faiss_threads: For the profile.
        index_type: For the profile.
        newest_within_seconds: How far before the day's end the newest event may lie; 0 asks nothing.
        min_share_of_median: Least share of the same weekday's median of events; 0 asks nothing.
        weeks: Weeks of that median.
        threads: Threads of DuckDB; 0 takes all cores. No byte depends on it.
        memory: What DuckDB may hold before it spills to disk, such as ``"4GB"``.
        keep_unchanged: Whether events of an earlier night may be carried on. No byte depends on it.
        seen_future: Why a model may be used that was trained on days after the data date; ``""`` refuses it.
    """

    date: str
    zone: str
    inputs: Inputs
    bundles: tuple[Path, ...]
    semantic: Mapping[str, Any] = field(default_factory=dict)
    shards: int = 1
    item_shards: int = 1
    groups: tuple[str, ...] = ()
    popular_days: int = 30
    sample_users: int = 4096
    device: str = "cpu"
    batch_users: int = 256
    batch_items: int = 1024
    batch_lists: int = 64
    faiss_threads: int = 2
    index_type: str = "Flat"
    newest_within_seconds: int = 86_400
    min_share_of_median: float = 0.5
    weeks: int = 4
    threads: int = 0
    memory: str = "4GB"
    keep_unchanged: bool = True
    seen_future: str = ""


def prepare(root: Path, request: PrepareRequest, *, progress: Progress = untold) -> tuple[Run, StepResult]:
    """Make the run that *request* asks for, or find it.

    One ``prepare`` of a date runs at a time; another waits for it. A killed one leaves only a staging folder, which
    the next one of that date removes.

    Args:
        root: The surface's root.
        request: What is asked.
        progress: Opened for each part of the step with its name and rows, and told how many were done.

    Returns:
        The run, which is the date's current one from now on, and what was done: all shards count as skipped where
        the run was there already.

    Raises:
        UsageError: If bundles don't belong together, or the request cannot be.
        RefusedError: If a model was trained on days after the data date and no reason is given.
        DeviceError: If the device is not there; before any data is read.
        NotReadyError: If the day's input is not there yet.
        InputError: If an input is wrong; the message names the file and the column.
    """
    give_back_what_is_freed()
    forget_stages()
    bundles = _read_bundles(request)
    require_same_popularity(bundles, request.semantic.get("retrieve", {}).get("popularity_weight", 0.0))
    semantic = _semantic(request, bundles)
    profile = resolve_profile(
        request.device,
        batch_users=request.batch_users,
        batch_items=request.batch_items,
        batch_lists=request.batch_lists,
        faiss_threads=request.faiss_threads,
        index_type=request.index_type,
    )
    layout = RootLayout(root)
    with exclusive(layout.current_run(request.date).parent / ".prepare.lock"):
        asked = _fingerprint(request, bundles, semantic, profile)
        run = find_prepared(layout, request.date, asked)
        skipped, carried = request.shards if run else 0, 0
        if run is None:
            run, left, carried = _make(layout, request, bundles, semantic, profile, progress)
            answer = {"asked": asked, "run_key": run.run_key, "carried": left}
            write_sealed(layout.request(request.date, asked), answer, version=FORMAT)
        write_json(layout.current_run(request.date), {"run_key": run.run_key})
    rows = 0 if skipped else run.counts["users"]
    counts = run.counts | ({"carried": carried} if carried else {})
    return run, StepResult("prepare", request.shards, skipped, rows, counts, stages=stages())


def _make(
    layout: RootLayout,
    request: PrepareRequest,
    bundles: Sequence[Bundle],
    semantic: dict[str, Any],
    profile: dict[str, Any],
    progress: Progress,
) -> tuple[Run, dict[str, Any], int]:
    """Check the inputs, write all tables into a staging folder, name the run by them, and move it to its place.

    Beside the run come what it left for the next night, and how many events were carried on from an earlier one.
    """
    day = datetime.date.fromisoformat(request.date)
    types = check_inputs(request.inputs)
    require_day(
        request.inputs,
        day,
        request.zone,
        newest_within_seconds=request.newest_within_seconds,
        min_share_of_median=request.min_share_of_median,
        weeks=request.weeks,
    )
    terms = Terms(request.inputs, types, request.shards, request.date, data_day(day, request.zone)[1])
    inventory = take_inventory(terms) if request.inputs.behaviours == "interactions" else None
    with staging(layout.current_run(request.date).parent) as staged:
        folder = staged / "run"
        finding = finding_carried(layout, terms, inventory) if inventory and request.keep_unchanged else nullcontext()
        with finding as carried:
            scratch = staged / "scratch"
            counts, read = _write_tables(RunLayout(folder), request, bundles, scratch, progress, carried)
        inputs = _digest(RunLayout(folder), request.shards)
        ids = _ids_of(bundles)
        run_key = run_key_of(inputs, ids, semantic, profile)
        run = Run(
            folder=layout.run(request.date, run_key).folder,
            run_key=run_key,
            date=request.date,
            now=terms.now_us // 1_000_000,
            inputs=inputs,
            user_id=str(types.user_id),
            item_id=str(types.item_id),
            shards=request.shards,
            item_shards=request.item_shards,
            bundles=ids,
            semantic=semantic,
            profile=profile,
            counts={"hidden_files": types.hidden_files, **counts},
        )
        for path in prepared_tables(RunLayout(folder), request.shards):
            replace(read_sidecar(path), run_key=run_key).write(path)
        left = what_was_left(RunLayout(folder), terms.now_us, inventory, counts, read) if inventory and read else {}
        return settle(folder, run), left, carried.rows if carried else 0


def joint_spec(bundles: Sequence[Bundle]) -> FeatureSpec:
    """What the tables must hold so that every bundle is served: the longest history, every profile feature."""
    specs = [bundle.spec for bundle in bundles if bundle.role is not Role.ITEM]
    edges = [bundle.spec.gap_edges for bundle in bundles if bundle.role is Role.RANKER]
    return FeatureSpec(
        item_features=specs[0].item_features,
        profile_features=tuple(dict.fromkeys(name for spec in specs for name in spec.profile_features)),
        history_length=max(spec.history_length for spec in specs),
        gap_edges=(edges or [specs[0].gap_edges])[0],
    )


def vocabularies_of(bundles: Sequence[Bundle], spec: FeatureSpec) -> dict[str, Vocabulary]:
    """Read the vocabulary of each feature of *spec* that a bundle has."""
    found: dict[str, Vocabulary] = {}
    for bundle in bundles:
        names = [name for name in bundle.spec.features if name in spec.features and name not in found]
        found |= load_vocabularies(bundle.layout.vocabulary(names[0]).parent, names) if names else {}
    return found


def _write_tables(
    layout: RunLayout,
    request: PrepareRequest,
    bundles: Sequence[Bundle],
    scratch: Path,
    progress: Progress,
    carried: Carried | None,
) -> tuple[dict[str, int], WhatWasRead | None]:
    """Write every prepared table; the same rows give the same bytes, whatever files they came from.

    Gives what was counted, and what the next night is told of interactions; of ready-made histories it is told nothing.
    """
    spec = joint_spec(bundles)
    vocabularies = vocabularies_of(bundles, spec)
    said = {
        "data_date": request.date,
        "spec": document_digest(spec.document()),
        **{f"vocabulary_{name}": _digest_of(bundles, name) for name in spec.features},
    }
    with stage("encode"):
        found = encode_catalogue(request.inputs, spec=spec, vocabularies=vocabularies, groups=request.groups)
    catalogue, counts = found

    write = partial(_write_table, said)
    write(layout.catalogue, [catalogue], catalogue.schema)
    with ExitStack() as stack:
        with stage("read"), progress("reading", count_events(request.inputs)) as advance:
            engine = Engine(scratch, request.memory, request.threads, advance, carried)
            opened = open_histories(
                request.inputs,
                catalogue=catalogue,
                spec=spec,
                vocabularies=vocabularies,
                cut=_cut(request),
                engine=engine,
            )
            histories = stack.enter_context(opened)
        sample, replayed, replay = histories.sample(), histories.replay(), ReplayLayout(layout.folder)
        for path, table in (
            (layout.popular, histories.popular()),
            (layout.sample, sample),
            (replay.histories(0, 1), replayed.histories),
            (replay.seen(0, 1), replayed.seen),
            (replay.happened, replayed.happened),
            (replay.popular, replayed.popular),
        ):
            write(path, [table], table.schema)
        advance = stack.enter_context(progress("writing", histories.counts["users"]))
        read = histories.read if request.inputs.behaviours == "interactions" else None
        with histories.scanning():
            _write_users(layout, request.shards, histories, sample.schema, said, advance)
            if read:
                leave(layout, histories, sample.schema.field("user_id").type, write)
        return counts | histories.counts, read


def _write_users(
    layout: RunLayout,
    shards: int,
    histories: Histories,
    schema: pa.Schema,
    said: Mapping[str, str],
    advance: Callable[[int], None],
) -> None:
    """Write both tables of every user, in one pass over what they did."""
    user_type = schema.field("user_id").type
    for shard in range(shards):
        with (
            stage("write"),
            _writing(said, layout.histories(shard, shards), schema) as told,
            _writing(said, layout.seen(shard, shards), schemas.seen(user_type)) as had,
        ):
            for history, seen in each("read", histories.users(shard)):
                told.write(history)
                had.write(seen)
                advance(history.num_rows)


def _write_table(
    said: Mapping[str, str], path: Path, batches: Iterable[pa.RecordBatch | pa.Table], schema: pa.Schema
) -> None:
    with stage("write"), _writing(said, path, schema) as writer:
        for batch in batches:
            writer.write(batch)


def _writing(said: Mapping[str, str], path: Path, schema: pa.Schema) -> AbstractContextManager[TableWriter]:
    return writing_table(path, schema, metadata=said, inputs=document_digest(said))


def _cut(request: PrepareRequest) -> Cut:
    return Cut(
        date=datetime.date.fromisoformat(request.date),
        zone=request.zone,
        shards=request.shards,
        popular_days=request.popular_days,
        sample_users=request.sample_users,
    )


def _digest_of(bundles: Sequence[Bundle], feature: str) -> str:
    return next(bundle.digest_of(feature) for bundle in bundles if feature in bundle.spec.features)


def _digest(layout: RunLayout, shards: int) -> str:
    """Digest the prepared tables by what their sidecars say."""
    paths = prepared_tables(layout, shards)
    return document_digest({path.relative_to(layout.folder).as_posix(): read_sidecar(path).sha256 for path in paths})


def _read_bundles(request: PrepareRequest) -> list[Bundle]:
    bundles = [read_bundle(folder) for folder in request.bundles]
    roles = sorted(str(bundle.role) for bundle in bundles)
    if roles not in (["item", "user"], ["item", "ranker", "user"]):
        raise UsageError(
            f"bundles: expected an item, a user and at most one ranker bundle, found {', '.join(roles) or 'none'}"
        )
    require_one_model(bundles)
    return bundles


def require_same_popularity(bundles: Sequence[Bundle], weight: float) -> None:
    """Refuse a ranker that learnt from retrieval scores with another *weight* of popularity, if its maker says so.

    Raises:
        UsageError: Naming both weights.
    """
    for bundle in bundles:
        night = bundle.about.get("model", {}).get("night")
        if night is None or "retrieval_score" not in bundle.spec.cross_features:
            continue
        if (fitted := night.get("popularity_weight", 0.0)) != weight:
            raise UsageError(
                f"[retrieve] popularity_weight: expected {fitted}, by which the {bundle.role} bundle {bundle.folder} "
                f"was fitted, found {weight}; fit and export it again, or set the key back"
            )


def _semantic(request: PrepareRequest, bundles: Sequence[Bundle]) -> dict[str, Any]:
    """What the content depends on; a model that has seen the future is refused, or its reason is on record here."""
    try:
        datetime.date.fromisoformat(request.date)
    except ValueError:
        raise UsageError(f"date: expected a day as YYYY-MM-DD, found {request.date!r}") from None
    for name in ("shards", "item_shards", "popular_days", "sample_users"):
        if getattr(request, name) < 1:
            raise UsageError(f"{name}: expected at least 1, found {getattr(request, name)}")
    semantic = {**request.semantic, "shards": request.shards, "item_shards": request.item_shards}
    late = [bundle for bundle in bundles if bundle.trained_through > request.date]
    if late and not request.seen_future:
        raise RefusedError(
            f"{late[0].role} bundle {late[0].folder} was trained through {late[0].trained_through}, after the data "
            f"date {request.date}: it has seen the future; use an earlier model, or give --seen-future REASON"
        )
    return {**semantic, "seen_future": request.seen_future} if late else semantic


def _ids_of(bundles: Sequence[Bundle]) -> dict[str, dict[str, str]]:
    return {str(b.role): {"model_id": b.model_id, "bundle_id": b.bundle_id} for b in bundles}


def _fingerprint(
    request: PrepareRequest, bundles: Sequence[Bundle], semantic: dict[str, Any], profile: dict[str, Any]
) -> str:
    """Digest a request by what its files hold: quick to take, and equal for a request that was answered before."""
    columns = {name: source.columns for name, source in request.inputs.sources.items()}
    return document_digest(
        {
            "date": request.date,
            "zone": request.zone,
            "files": fingerprint_inputs(request.inputs),
            "columns": columns,
            "naive_zone": request.inputs.naive_zone,
            "groups": request.groups,
            "popular_days": request.popular_days,
            "sample_users": request.sample_users,
            "bundles": _ids_of(bundles),
            "semantic": semantic,
            "profile": profile,
        }
    )
