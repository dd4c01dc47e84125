"""A run: what one night was asked to compute, from which inputs, and where its tables lie."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from dataclasses import fields as dataclass_fields
from pathlib import Path
from typing import Any, Self

import pyarrow as pa

from artifacts.digest import document_digest
from artifacts.documents import read_json, read_sealed, write_sealed
from artifacts.errors import CorruptError, StaleRunError, UsageError
from artifacts.fields import DAY, SHA256, mapping, only, table, text, whole
from artifacts.layout import RecordLayout, ReplayLayout, RootLayout, RunLayout
from artifacts.store import exclusive, is_there, sweep_staged_files

FORMAT = 1
RUN_KEY = re.compile(r"[0-9a-f]{16}")
_IDS = re.compile("int64|uint64|string")


@dataclass(frozen=True, slots=True)
class Span:
    """When and how one shard was computed; it goes into the timings and into no content.

    Attributes:
        shard: Its number.
        began: Seconds since 1970 UTC, by the clock of the machine that did it.
        seconds: How long it took; the last rows are compressed and flushed after that, while the next is computed.
        rows: Rows written.
        memory: The most bytes that its process had held in this step until then.
    """

    shard: int
    began: float
    seconds: float
    rows: int
    memory: int


@dataclass(frozen=True, slots=True)
class StepResult:
    """What a step did, for the terminal, ``--json`` and the record.

    Attributes:
        step: Its name.
        shards: Shards asked for.
        skipped: Shards among them that were done already.
        rows: Rows written now.
        counts: What else was counted: cold users, dropped rows ...
        spans: When and how each shard was computed, where a step has shards.
        stages: Seconds of each stage of :mod:`batch.stages`, added up over threads and processes.
        about: What people want to know in words.
    """

    step: str
    shards: int
    skipped: int
    rows: int
    counts: dict[str, int]
    spans: tuple[Span, ...] = ()
    stages: dict[str, float] = field(default_factory=dict)
    about: str = ""


@dataclass(frozen=True, slots=True)
class Run:
    """The content of ``run.json``; no clock, host name or path is in it.

    Attributes:
        folder: Where the run lies.
        run_key: Digest of ``inputs``, bundles, semantic config and profile; the folder's name.
        date: The data date, ISO.
        now: End of the data date in its time zone, in seconds since 1970 UTC: the "now" of all gaps.
        inputs: Digest of the prepared tables.
        user_id: Type of user ids: ``"int64"``, ``"uint64"`` or ``"string"``.
        item_id: Type of item ids.
        shards: Into how many shards the users are split.
        item_shards: Into how many ranges the catalogue is split.
        bundles: Role to ``{"model_id": ..., "bundle_id": ...}``.
        semantic: The part of the config that the content depends on.
        profile: The execution profile that every step must have.
        counts: What ``prepare`` counted: rows read, kept, dropped by reason, users, items ...
    """

    folder: Path
    run_key: str
    date: str
    now: int
    inputs: str
    user_id: str
    item_id: str
    shards: int
    item_shards: int
    bundles: dict[str, dict[str, str]]
    semantic: dict[str, Any]
    profile: dict[str, Any]
    counts: dict[str, int]

    @property
    def layout(self) -> RunLayout:
        """Where the tables lie."""
        return RunLayout(self.folder)

    @property
    def user_type(self) -> pa.DataType:
        """Arrow type of user ids."""
        return pa.type_for_alias(self.user_id)

    @property
    def item_type(self) -> pa.DataType:
        """Arrow type of item ids."""
        return pa.type_for_alias(self.item_id)

    def metadata(self) -> dict[str, str]:
        """What every table after ``prepare`` says in its schema's metadata."""
        models = {f"model_id_{role}": ids["model_id"] for role, ids in self.bundles.items()}
        return {"data_date": self.date, "run_key": self.run_key, "inputs": self.inputs, **models}

    def document(self) -> dict[str, Any]:
        """What goes into ``run.json``, beside its format and its own digest."""
        document = asdict(self)
        del document["folder"]
        return document

    def write(self) -> None:
        """Write ``run.json``, sealed with its own digest."""
        write_sealed(self.layout.run, self.document(), version=FORMAT)

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the run in *folder*.

        Raises:
            StaleRunError: If ``prepare`` has not finished it.
            CorruptError: If its ``run.json`` is not one of ours, is changed in any byte, or has another run's key.
        """
        path = RunLayout(folder).run
        if not is_there(path):
            raise StaleRunError(f"{folder}: not a prepared run (no {path.name}); run `nightrec prepare` first")
        document = read_sealed(path, version=FORMAT, remedy="run `nightrec prepare` again")
        try:
            _require_fields(document)
        except ValueError as error:
            raise CorruptError(f"{path}: expected a run's fields ({error}); run `nightrec prepare` again") from error
        run = cls(folder=folder, **document)
        if (key := run_key_of(run.inputs, run.bundles, run.semantic, run.profile)) != run.run_key:
            raise CorruptError(f"{path}: run_key is {run.run_key}, but its fields give {key}; prepare the date again")
        return run


def _require_fields(document: dict[str, Any]) -> None:
    only(document, *(field.name for field in dataclass_fields(Run) if field.name != "folder"))
    for key, form in (("date", DAY), ("run_key", RUN_KEY), ("inputs", SHA256), ("user_id", _IDS), ("item_id", _IDS)):
        text(document, key, form)
    for key, least in (("now", 0), ("shards", 1), ("item_shards", 1)):
        whole(document, key, least=least)
    for bundle in table(document, "bundles").values():
        only(bundle, "model_id", "bundle_id")
        for key in ("model_id", "bundle_id"):
            text(bundle, key)
    for key in ("semantic", "profile"):
        mapping(document, key)
    counts = mapping(document, "counts")
    for key in counts:
        whole(counts, key)


class Replay(Run):
    """A run asked again for a sample of its users as they stood when the data date began, in one shard.

    The steps ``interests`` and ``score`` do it like any shard. What its users did on the data date judges its lists.
    """

    __slots__ = ()

    @property
    def layout(self) -> ReplayLayout:
        """Where its tables lie: beside those of the run, with whose catalogue, items and index it is done."""
        return ReplayLayout(self.folder)


def replay_of(run: Run) -> Replay:
    """Give the replay of *run*."""
    values = {field.name: getattr(run, field.name) for field in dataclass_fields(run)}
    return Replay(**{**values, "shards": 1})


def run_key_of(
    inputs: str, bundles: dict[str, dict[str, str]], semantic: dict[str, Any], profile: dict[str, Any]
) -> str:
    """Name a run by what its content depends on: 16 hex digits."""
    asked = {"inputs": inputs, "bundles": bundles, "semantic": semantic, "profile": profile}
    return document_digest(asked)[:16]


@contextmanager
def recording(run: Run) -> Iterator[RecordLayout]:
    """Hold the lock of the run's record while it is read as a whole or changed; what killed writers left is gone."""
    record = run.layout.record
    with exclusive(run.folder / ".record.lock"):
        for path in (record.gates, record.report, record.contents):
            sweep_staged_files(path)
        yield record


def find_run(root: Path, date: str, run_key: str | None = None) -> Run:
    """Find the run of *date* that ``prepare`` made or found last, or the one named *run_key*.

    Raises:
        StaleRunError: If there is none.
        UsageError: If *run_key* is no key of a run.
        CorruptError: If another run lies in its place.
    """
    layout = RootLayout(root)
    if run_key is not None and not RUN_KEY.fullmatch(run_key):
        raise UsageError(f"--run {run_key}: expected the key of a run, 16 hex digits")
    if run_key is None:
        current = layout.current_run(date)
        if not is_there(current):
            raise StaleRunError(
                f"no run of {date} is prepared under {root}; run `nightrec prepare --date {date}` first"
            )
        run_key = read_key(current)
        if not is_there(layout.run(date, run_key).run):
            raise StaleRunError(f"{current}: names run {run_key}, which is not prepared; run `nightrec prepare` first")
    run = Run.read(layout.run(date, run_key).folder)
    if (run.date, run.run_key) != (date, run_key):
        raise CorruptError(f"{run.layout.run}: is run {run.run_key} of {run.date}; run `nightrec prepare` again")
    return run


def read_key(path: Path) -> str:
    """Read the key of the run that the document at *path* names.

    Raises:
        CorruptError: If it names none.
    """
    document = read_json(path)
    try:
        only(document, "run_key")
        return text(document, "run_key", RUN_KEY)
    except ValueError as error:
        raise CorruptError(f"{path}: expected the key of a run ({error}); run `nightrec prepare` again") from error


def parse_shards(text: str, shards: int) -> range:
    """Read ``"3/64"`` or ``"0-7/64"`` (both ends included).

    Raises:
        UsageError: If it cannot be read, or does not fit the run's *shards*.
    """
    group, _, total = text.partition("/")
    first, _, last = group.partition("-")
    try:
        start, stop, of = int(first), int(last or first) + 1, int(total)
    except ValueError:
        raise UsageError(f"--shard {text}: expected i/n or first-last/n, such as 3/64 or 0-7/64") from None
    if of != shards:
        raise UsageError(f"--shard {text}: this run has {shards} shards, not {of}")
    if not 0 <= start < stop <= of:
        raise UsageError(f"--shard {text}: expected shards between 0 and {of - 1}, first to last")
    return range(start, stop)


def parse_group(text: str, shards: int) -> range:
    """Read ``"i/n"``: the i-th, from 0, of n even groups of *shards*, some of them empty if there are more groups.

    Groups are neighbours, differ by one shard at most, and hold each shard once.

    Raises:
        UsageError: If it cannot be read.
    """
    number, _, total = text.partition("/")
    try:
        group, groups = int(number), int(total)
    except ValueError:
        raise UsageError(f"--group {text}: expected i/n, such as 0/4") from None
    if not 0 <= group < groups:
        raise UsageError(f"--group {text}: groups are counted from 0: expected i below n, such as 0/4")
    return range(group * shards // groups, (group + 1) * shards // groups)


def seen_within(exclude_seen: str, exclude_days: int) -> int | None:
    """Give what the policy of seen items excludes: what a user had in the last so many seconds; None is all of it.

    The step that leaves items out and the gate that asks why somebody has none must mean the same by it.

    Args:
        exclude_seen: ``"all"``, ``"days"`` or ``"none"``, for which the answer is negative.
        exclude_days: Of ``"days"``.
    """
    return {"all": None, "days": exclude_days * 86_400, "none": -1}[exclude_seen]
