"""``nightrec plan``: how many rows, how much memory and disk and how many minutes a night will take, before it starts.

The rows are counted in the inputs; the rest follows from them by the assumptions below, which are printed with the
result. They are meant to be right within a factor of two or three, so that nobody starts a night that cannot end.
"""

import math
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nightrec.night import ConfigPath, configured
from nightrec.terminal import answer, say, show

if TYPE_CHECKING:
    from nightrec.config import Config

EVENTS_A_SECOND = 500_000  # read and cut into histories, by one core
ITEMS_A_SECOND = 150_000  # embedded by one core
USERS_A_SECOND = 25_000  # given interests by one core, at 20 behaviours and d = 64
SEARCHES_A_SECOND = 2_000  # interests searched by one core, at 64 dimensions and 200,000 items
PAIRS_A_SECOND = 50_000  # user x candidate scored by one core
COMPRESSED = 0.7  # bytes on disk over bytes in memory, of ids and rows; vectors do not shrink
INDEX_BYTES = {"Flat": 4.0, "SQ8": 1.0, "PQ": 0.25}  # of one dimension of one item
WORKER_BYTES = 600_000_000  # a process with its libraries, its graph and its batches


@dataclass(frozen=True, slots=True)
class Workload:
    """What a night's effort depends on.

    Attributes:
        events: Rows of interactions, or behaviours in ready-made histories.
        users: Users, about.
        items: Items of the catalogue.
        features: Features of an item.
        history: L, the newest behaviours kept.
        interests: K, the most interests of a user.
        width: d, of vectors.
        ranked: Whether there is a ranker.
    """

    events: int
    users: int
    items: int
    features: int
    history: int
    interests: int
    width: int
    ranked: bool


@dataclass(frozen=True, slots=True)
class Effort:
    """What one step takes.

    Attributes:
        step: Its name.
        rows: Rows it writes.
        disk: Bytes it writes.
        memory: Bytes it holds at its peak, over all workers.
        minutes: How long it takes on this machine.
    """

    step: str
    rows: int
    disk: int
    memory: int
    minutes: float


@dataclass(frozen=True, slots=True)
class Means:
    """What a night may use: cores, processes, bytes of DuckDB's memory, and the config's cuts."""

    cores: int
    workers: int
    memory: int
    index_type: str
    candidates: int
    top_n: int


@dataclass(frozen=True, slots=True)
class Kept:
    """Which *share* of its users' vectors the night of *date* had from an earlier one."""

    date: str
    share: float


def plan(
    *,
    config: ConfigPath,
    workers: Annotated[int | None, typer.Option("--workers", min=1, help="Instead of night.workers.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Say how many rows, how much memory and disk and how many minutes a night will take."""
    from nightrec.values import bytes_of

    read = configured(config, workers=workers)
    sizes = sizes_of(read)
    means = Means(
        cores=len(os.sched_getaffinity(0)),
        workers=read.night.workers,
        memory=bytes_of(read.night.memory),
        index_type=read.index.type,
        candidates=read.retrieve.candidates,
        top_n=read.score.top_n,
    )
    efforts = estimate(sizes, means)
    rows = [(e.step, e.rows, _bytes(e.disk), _bytes(e.memory), round(e.minutes, 1)) for e in efforts]
    show(f"A night of {read.surface.name}", ("step", "rows", "disk", "memory", "minutes"), rows)
    say(f"{sizes.events:,} events, about {sizes.users:,} users, {sizes.items:,} items; {means.cores} cores, no GPU.")
    say(
        f"Assumed for one core: {EVENTS_A_SECOND:,} events, {ITEMS_A_SECOND:,} items, {USERS_A_SECOND:,} users, "
        f"{SEARCHES_A_SECOND:,} searches and {PAIRS_A_SECOND:,} scored pairs a second."
    )
    kept = kept_lately(read.root) if read.night.keep_unchanged else None
    if kept:
        say(
            f"The night of {kept.date} kept the vectors of {kept.share:.0%} of its users; the minutes are of one that "
            "computes all of them."
        )
    if json:
        document = {"sizes": asdict(sizes), "means": asdict(means), "steps": [asdict(e) for e in efforts]}
        answer({**document, **total(efforts), "kept_lately": kept and asdict(kept)})


def kept_lately(root: Path) -> Kept | None:
    """Say what the newest night under *root* kept, by its timings; None where none of the last week's says it."""
    from artifacts.documents import find_sealed
    from artifacts.errors import NightrecError
    from artifacts.fields import DAY
    from artifacts.layout import RootLayout
    from artifacts.run import find_run
    from artifacts.store import names_in

    with suppress(NightrecError):  # a plan is made where the store cannot be reached, too
        days = [name for name in names_in(RootLayout(root).runs) if DAY.fullmatch(name)]
        for day in days[:-8:-1]:
            timings = find_sealed(find_run(root, day).layout.timings, version=1) or {}
            entries = timings.get("interests", [])
            if rows := sum(entry["rows"] for entry in entries):
                return Kept(day, sum(entry["counts"].get("kept", 0) for entry in entries) / rows)
    return None


def sizes_of(config: "Config") -> Workload:
    """Count the inputs; take the models' sizes from the bundles, or where there are none yet, what is usual."""
    from artifacts.bundle import Role
    from nightrec.inputs import count_inputs, inputs_of
    from nightrec.steps import bundle_of

    counted = count_inputs(inputs_of(config))
    user = bundle_of(config, Role.USER) if config.bundles and Path(config.bundles.user).exists() else None
    return Workload(
        events=counted.events,
        users=counted.users,
        items=counted.items,
        features=1 + len(config.inputs.items.features),
        history=user.spec.history_length if user else config.train.history_length if config.train else 20,
        interests=user.interests if user else 4,
        width=user.width if user else 64,
        ranked=config.bundles is None or config.bundles.ranker is not None,
    )


def estimate(sizes: Workload, means: Means) -> list[Effort]:
    """Work out each step's effort; the last row is the whole night."""
    behaviours = min(sizes.history, math.ceil(sizes.events / max(sizes.users, 1)))
    active = max(1, min(sizes.interests, int(math.log2(max(behaviours, 1)))))
    vectors = sizes.items * sizes.width * 4
    index = round(sizes.items * sizes.width * INDEX_BYTES[means.index_type])
    worked = means.workers * WORKER_BYTES
    history_bytes = sizes.users * (16 + behaviours * (sizes.features + 1) * 4) + sizes.events * 16
    recommendations = sizes.users * means.top_n
    pairs = sizes.users * means.candidates if sizes.ranked else 0
    searches = sizes.users * active * max(1.0, sizes.width / 64 * math.sqrt(sizes.items / 100_000))
    seconds = {
        "prepare": sizes.events / EVENTS_A_SECOND + sizes.users / (20 * USERS_A_SECOND),
        "items": sizes.items / ITEMS_A_SECOND,
        "index": sizes.items / ITEMS_A_SECOND + 4096 * active / SEARCHES_A_SECOND * 4,
        "interests": sizes.users / USERS_A_SECOND * max(1.0, behaviours / 20 * sizes.width / 64),
        "score": searches / SEARCHES_A_SECOND + pairs / PAIRS_A_SECOND,
        "check": recommendations / EVENTS_A_SECOND,
        "publish": (vectors + recommendations * 30) / 500e6,
    }
    per_step = [
        ("prepare", sizes.users + sizes.items, history_bytes * COMPRESSED, means.memory),
        ("items", sizes.items, vectors, worked),
        ("index", sizes.items, index, WORKER_BYTES + 2 * vectors + index),
        ("interests", sizes.users, sizes.users * (8 + active * sizes.width * 4), worked),
        ("score", recommendations, recommendations * 28 * COMPRESSED, worked + means.workers * (index + vectors)),
        ("check", 0, 0, WORKER_BYTES + means.memory),
        ("publish", recommendations, index + vectors + recommendations * 28 * COMPRESSED, WORKER_BYTES),
    ]
    efforts = [
        Effort(step, rows, round(disk), round(memory), seconds[step] / means.cores / 60)
        for step, rows, disk, memory in per_step
    ]
    whole = total(efforts)
    return [*efforts, Effort("the night", 0, whole["disk"], whole["memory"], whole["minutes"])]


def total(efforts: Sequence[Effort]) -> dict[str, Any]:
    """Add disk and minutes, and take the highest peak of memory."""
    steps = [effort for effort in efforts if effort.step != "the night"]
    return {
        "disk": sum(effort.disk for effort in steps),
        "memory": max(effort.memory for effort in steps),
        "minutes": sum(effort.minutes for effort in steps),
    }


def _bytes(size: int) -> str:
    for unit, bytes_ in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if size >= bytes_:
            return f"{size / bytes_:.1f} {unit}"
    return f"{size / 1e3:.1f} kB"
