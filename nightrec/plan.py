"""``nightrec plan``: how many rows, how much memory and disk and how many minutes a night will take, before it starts.

The rows are counted in the inputs, or said, for a night that does not exist yet; the rest follows from them by what
nightrec/rates.py assumes, which is printed with the result. It is meant to be right within a factor of two or three, so
that nobody starts a night that cannot end.
"""

from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from artifacts.errors import UsageError
from nightrec.estimate import Effort, Means, Workload, estimate, kept_cost, lists_of, relief, total, type_of
from nightrec.night import ConfigPath, configured
from nightrec.rates import Rates, read_rates
from nightrec.terminal import answer, say, show

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nightrec.config import Config

Counted = int | None


@dataclass(frozen=True, slots=True)
class Kept:
    """Which *share* of its users' vectors the night of *date* had from an earlier one."""

    date: str
    share: float


def plan(  # noqa: PLR0913 - the options of a command are its arguments
    *,
    config: ConfigPath,
    users: Annotated[Counted, typer.Option("--users", min=1, help="Users, in place of counting the inputs.")] = None,
    items: Annotated[Counted, typer.Option("--items", min=1, help="Items; given with --users.")] = None,
    events: Annotated[
        Counted, typer.Option("--events", min=1, help="Events; by default a number for each user.")
    ] = None,
    machines: Annotated[int, typer.Option("--machines", min=1, help="Machines of one kind, under one root.")] = 1,
    cores: Annotated[Counted, typer.Option("--cores", min=1, help="Cores of a machine; by default of this.")] = None,
    memory: Annotated[
        str | None, typer.Option("--memory", help="Of a machine, such as 64GB; by default of this.")
    ] = None,
    gpus: Annotated[int, typer.Option("--gpus", min=0, help="GPUs over all machines, a worker for each.")] = 0,
    workers: Annotated[Counted, typer.Option("--workers", min=1, help="Instead of night.workers.")] = None,
    rates: Annotated[
        Path | None, typer.Option("--rates", help="A TOML file of rates and prices, where others are assumed.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Say how many rows, how much memory and disk, how many minutes and what cost a night will take."""
    from batch.machine import usable_cores, usable_memory

    room = _said_memory(memory) if memory else usable_memory()
    read = configured(config, workers=workers)
    assumed, prices = read_rates(rates)
    sizes = sizes_of(read, _asked(users, items, events, assumed))
    means = means_of(read, machines=machines, cores=cores or usable_cores(), gpus=gpus)
    efforts = estimate(sizes, means, assumed, prices)
    _show(read.surface.name, sizes, means, assumed, efforts)
    over = _exceeding(efforts, room)
    say(f"A month of the store, {prices.nights_kept:g} nights kept: {kept_cost(efforts, prices):,.2f}.")
    kept = kept_lately(read.root) if read.night.keep_unchanged and not users else None
    if kept:
        say(
            f"The night of {kept.date} kept the vectors of {kept.share:.0%} of its users; the minutes are of one that "
            "computes all of them."
        )
    if json:
        document = {"sizes": asdict(sizes), "means": asdict(means), "steps": [asdict(e) for e in efforts], **over}
        index = {"type": type_of(sizes, means), "lists": lists_of(sizes, means), "bytes": efforts[2].disk}
        said = {"index": index, "rates": asdict(assumed), "prices": asdict(prices), "store": kept_cost(efforts, prices)}
        answer({**document, **total(efforts), **said, "kept_lately": kept and asdict(kept)})


def _asked(users: int | None, items: int | None, events: int | None, rates: Rates) -> tuple[int, int, int] | None:
    """Give the counts that are said, events first; None where the inputs are to be counted.

    Raises:
        UsageError: If only some are said.
    """
    if users is None and items is None and events is None:
        return None
    if users is None or items is None:
        raise UsageError("--users and --items: give both, or neither, and the inputs are counted")
    return events or round(users * rates.events_a_user), users, items


def means_of(config: "Config", *, machines: int, cores: int, gpus: int) -> Means:
    """Say what a night of *config* may use on so many machines of so many cores, with so many GPUs over all of them."""
    from nightrec.values import bytes_of

    return Means(
        cores=cores,
        workers=max(config.night.workers, gpus, machines),
        memory=bytes_of(config.night.memory),
        index_type=config.index.type,
        candidates=config.retrieve.candidates,
        top_n=config.score.top_n,
        machines=machines,
        gpus=gpus,
        index_threads=config.night.faiss_threads,
        lists=config.index.lists,
        popularity=config.retrieve.popularity_weight > 0,
        index_memory=bytes_of(config.index.memory),
    )


def _exceeding(efforts: "Sequence[Effort]", room: int) -> dict[str, Any]:
    """Show people which steps hold more than the *room* of a machine, in bytes; gives what machines are told."""
    over = [effort for effort in efforts[:-1] if effort.memory > room]
    for effort in over:
        say(f"{effort.step} holds {readable(effort.memory)}, a machine has {readable(room)}: {relief(effort.step)}.")
    return {"machine_memory": room, "exceeding": [effort.step for effort in over]}


def _said_memory(text: str) -> int:
    """Read a size that was said on the command line.

    Raises:
        UsageError: If it is none.
    """
    from pydantic import TypeAdapter, ValidationError

    from nightrec.values import Memory, bytes_of

    try:
        return bytes_of(TypeAdapter(Memory).validate_python(text))
    except ValidationError as error:
        raise UsageError(f"--memory: expected a size such as 4GB, found {text!r}") from error


def _show(name: str, sizes: Workload, means: Means, rates: Rates, efforts: "Sequence[Effort]") -> None:
    """Show people the steps, and what was assumed."""
    columns = ("step", "rows", "shards", "writes", "reads", "a worker", "a machine", "minutes", "cost")
    rows = [
        (
            *(e.step, e.rows, e.shards, readable(e.disk), readable(e.fetched), readable(e.worker), readable(e.memory)),
            *(round(e.minutes, 1) if e.minutes < 100 else round(e.minutes), round(e.cost, 2)),
        )
        for e in efforts
    ]
    show(f"A night of {name}", columns, rows, needed=3)
    open_ = " or less, as tonight's users choose" if means.index_type == "auto" else ""
    many = f"{means.machines:,} machines of {means.cores} cores" if means.machines > 1 else f"{means.cores} cores"
    say(
        f"{sizes.events:,} events, about {sizes.users:,} users, {sizes.items:,} items; {many}, "
        f"{_count(means.gpus, 'GPU')}, {_count(means.workers, 'worker')}. "
        f"The index: {_count(lists_of(sizes, means), 'list')}, {type_of(sizes, means)}{open_}."
    )
    longest = max(efforts[:-1], key=lambda effort: effort.minutes)
    say(f"The longest step is {longest.step}: {longest.minutes / max(efforts[-1].minutes, 1e-9):.0%} of the night.")
    say(
        f"Assumed for one core: {rates.events:,.0f} events, {rates.items:,.0f} items, {rates.users:,.0f} users, "
        f"{rates.searches:,.0f} searches and {rates.pairs:,.0f} scored pairs a second."
    )
    if means.gpus:
        say(
            f"Assumed for one GPU, and not measured: {rates.gpu_users:,.0f} users, {rates.gpu_searches:,.0f} searches "
            f"and {rates.gpu_pairs:,.0f} scored pairs a second."
        )


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


def sizes_of(config: "Config", said: tuple[int, int, int] | None = None) -> Workload:
    """Count the inputs, unless events, users and items are *said*.

    The models' sizes are those of the bundles, or where there are none yet, what is usual.
    """
    from artifacts.bundle import Role
    from nightrec.inputs import count_inputs, inputs_of
    from nightrec.steps import bundle_of

    if said is None:
        counted = count_inputs(inputs_of(config))
        said = counted.events, counted.users, counted.items
    user = bundle_of(config, Role.USER) if config.bundles and Path(config.bundles.user).exists() else None
    return Workload(
        events=said[0],
        users=said[1],
        items=said[2],
        features=1 + len(config.inputs.items.features),
        history=user.spec.history_length if user else config.train.history_length if config.train else 20,
        interests=user.interests if user else 4,
        width=user.width if user else 64,
        ranked=config.bundles is None or config.bundles.ranker is not None,
    )


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}s" if number > 1 else f"{number or 'no'} {what}"


def readable(size: int) -> str:
    """Write so many bytes as a person says them."""
    for unit, bytes_ in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if size >= bytes_:
            return f"{size / bytes_:.1f} {unit}"
    return f"{size / 1e3:.1f} kB"
