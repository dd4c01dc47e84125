"""Bad times: without a zone, of other units and types, in the future, before 1970, and beyond all calendars."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tests.faults.ground import Case, Counted, Ground, Refused, Same, changed, rewritten


def _times(change: Callable[[np.ndarray], Any], ground: Ground) -> None:
    seconds = pa.timestamp("s", tz="UTC")  # Parquet has kept milliseconds
    changed("interactions", "time", lambda times: change(times.cast(seconds).cast(pa.int64()).to_numpy()), ground)


def _stamped(change: Callable[[np.ndarray], np.ndarray], ground: Ground) -> None:
    _times(lambda seconds: pa.array(change(seconds), pa.timestamp("s", tz="UTC")), ground)


def _first(value: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda seconds: np.concatenate([[value], seconds[1:]])


def _declared(unit: str, factor: int, ground: Ground) -> None:
    _times(lambda seconds: pa.array(seconds * factor), ground)
    ground.edit("[inputs.interactions]", f'[inputs.interactions]\ntime_unit = "{unit}"')


def _naive(ground: Ground) -> None:
    """Write local times of Berlin without a zone, and declare it."""

    def local(values: pa.ChunkedArray) -> pa.ChunkedArray:
        return pc.local_timestamp(values.cast(pa.timestamp("s", tz="Europe/Berlin")))

    changed("interactions", "time", local, ground)
    ground.edit("[inputs.interactions]", '[inputs.interactions]\nnaive_zone = "Europe/Berlin"')


def _without_first(ground: Ground) -> None:
    rewritten("interactions", lambda rows: rows.slice(1), ground)


def cases() -> Iterator[Case]:
    """Every case of bad times."""
    refused = ["interactions.parquet", "column time"]
    for unit in ("ms", "us", "ns"):
        damage = partial(changed, "interactions", "time", lambda t, unit=unit: t.cast(pa.timestamp(unit, tz="UTC")))
        yield Case(f"times in {unit}", damage, Same())
    for unit, factor in (("s", 1), ("ms", 1_000), ("us", 1_000_000)):
        yield Case(f"whole numbers, said to be {unit}", partial(_declared, unit, factor), Same())
    yield Case("times without a zone, whose zone is declared", _naive, Same())
    in_kolkata = partial(changed, "interactions", "time", lambda t: t.cast(pa.timestamp("s", tz="Asia/Kolkata")))
    yield Case("times of another zone", in_kolkata, Same())
    yield Case("whole numbers, of no unit", partial(_times, pa.array), Refused([4], [*refused, "time_unit"]))
    yield Case("milliseconds, said to be s", partial(_declared, "s", 1_000), Refused([4, 5], ["interactions"]))
    yield Case("seconds, said to be ms", partial(_declared, "ms", 1), Refused([5], ["the newest event is of 1970-01-"]))
    yield Case("microseconds, said to be s", partial(_declared, "s", 10**6), Refused([4], [*refused, "out of range"]))
    for kind in (pa.string(), pa.date32(), pa.time64("us"), pa.float64()):
        damage = partial(changed, "interactions", "time", lambda times, kind=kind: _as(times, kind))
        yield Case(f"times of {kind}", damage, Refused([4], [*refused, str(kind)]))
    future = int(datetime(2026, 4, 1, tzinfo=UTC).timestamp())
    one = Counted({"interactions_future": 1}, _without_first)
    yield Case("an event of the next day", partial(_stamped, _first(future)), one)
    yield Case("an event of 2199", partial(_stamped, _first(7_250_000_000)), one)
    yield Case("an event of 9999-12-31", partial(_stamped, _first(253_402_214_400)), one)
    yield Case("an event of the year 100,000", partial(_stamped, _first(3_093_527_980_800)), Refused([4], refused))
    yield Case("an event of 1969", partial(_stamped, _first(-86_400)), Counted({"interactions_before_1970": 1}))
    yield Case(
        "events of 1900", partial(_stamped, _first(-2_208_988_800)), Counted({"interactions_before_1970": 1}), "run"
    )
    smallest = partial(_times, lambda s: pa.array(_first(-(2**63))(s * 10**6), pa.timestamp("us", tz="UTC")))
    yield Case("the smallest time that there is", smallest, Refused([4], [*refused, "out of range"]))
    yield Case(
        "every event a year late",
        partial(_stamped, lambda seconds: seconds + 366 * 86_400),
        Refused([5], ["no event up to the end of 2026-03-31"]),
    )
    yield Case(
        "every event a year early", partial(_stamped, lambda s: s - 366 * 86_400), Refused([5], ["the newest event is"])
    )
    yield Case("an empty day", _empty_day, Refused([5], ["the newest event is of 2026-03-30"]))
    yield Case("a thin day", _thin_day, Refused([5], ["2026-03-31 has", "less than 0.5"]))


def _as(times: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    if kind == pa.float64():
        return times.cast(pa.int64()).cast(kind)
    return pc.strftime(times) if kind == pa.string() else times.cast(pa.timestamp("us", tz="UTC")).cast(kind)


def _on_the_day(rows: pa.Table) -> pa.Array:
    midnight = pa.scalar(datetime(2026, 3, 30, 22, tzinfo=UTC), pa.timestamp("ms", tz="UTC"))
    return pc.greater_equal(rows["time"], midnight)


def _empty_day(ground: Ground) -> None:
    rewritten("interactions", lambda rows: rows.filter(pc.invert(_on_the_day(rows))), ground)
    ground.edit("[night]", "[day]\nnewest_within_hours = 20\n\n[night]")


def _thin_day(ground: Ground) -> None:
    def thinned(rows: pa.Table) -> pa.Table:
        on_day = _on_the_day(rows)
        return pa.concat_tables([rows.filter(pc.invert(on_day)), rows.filter(on_day).slice(0, 3)])

    rewritten("interactions", thinned, ground)
