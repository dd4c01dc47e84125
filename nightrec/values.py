"""What the values of the config may be: its types, each with what a person is told who gives another."""

import os
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Annotated, Literal
from zoneinfo import available_timezones

from pydantic import AfterValidator, BeforeValidator, Field, Strict, ValidationInfo

from artifacts.errors import UsageError
from artifacts.mirror import require_url


@dataclass(frozen=True, slots=True)
class Words:
    """What a type of values is called in front of people."""

    said: str


def _zone(name: str) -> str:
    if name not in available_timezones():
        raise ValueError("a time zone such as 'UTC' or 'Europe/Berlin'", available_timezones())
    return name


def _place(text: str, info: ValidationInfo) -> str:
    folder: Path = (info.context or {}).get("folder", Path())
    return text if "://" in text else str(folder / text)


def _root(text: str, info: ValidationInfo) -> str:
    return require_url(text) if "://" in text else _place(text, info)


def _day(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return date.fromisoformat(value)
    except ValueError:
        raise ValueError("a day as YYYY-MM-DD") from None


RESERVED = frozenset(
    {
        *("user_id", "item_id", "item_ids", "id", "time", "times", "time_unit", "event", "weight", "title", "eligible"),
        *("value", "signal", "gap", "last_gap", "history_length", "length", "item", "items", "user", "users", "events"),
        *("vector", "vectors", "interest", "interests", "count", "weights", "cold", "cross", "candidates"),
        *("rank", "source", "score", "retrieval_score", "times_had", "days_since", "popularity"),
    }
)  # columns of the inputs and of our tables, and the graphs' inputs and outputs
RESERVED_PREFIXES = ("history_", "profile_", "candidate_", "feature_", "group_")


def _feature(name: str) -> str:
    if name in RESERVED:
        raise ValueError("a feature's name that is none of the column names we use ourselves")
    if name.startswith(RESERVED_PREFIXES):
        raise ValueError(f"a feature's name that begins with none of {', '.join(RESERVED_PREFIXES)}")
    return name


def _weight(weight: float) -> float:
    if 0 < weight < LEAST_WEIGHT:
        raise ValueError(f"0, or a number of at least {LEAST_WEIGHT:f}")
    return weight


Count = Annotated[int, Strict(), Field(ge=0, le=2**31 - 1)]
Number = Annotated[float, Strict(), Field(allow_inf_nan=False)]
Share = Annotated[float, Strict(), Field(ge=0, le=1)]
Text = Annotated[str, Strict(), Field(min_length=1)]
Name = Annotated[str, Strict(), Field(pattern=r"^[a-z][a-z0-9_]*$"), Words("name of a-z, 0-9 and _, a letter first")]
Feature = Annotated[Name, AfterValidator(_feature)]
Place = Annotated[Text, AfterValidator(_place), Words("path, relative to the config's folder")]
Root = Annotated[Text, AfterValidator(_root), Words("path, or address of an object store")]
Zone = Annotated[Text, AfterValidator(_zone), Words("time zone, such as 'Europe/Berlin'")]
Memory = Annotated[
    str, Strict(), Field(pattern=r"^[0-9]+(\.[0-9]+)? ?([KMGT]i?)?B$"), Words("size, such as '4GB' or '512MiB'")
]
Day = Annotated[date, BeforeValidator(_day), Strict(), Words("day as YYYY-MM-DD")]
LEAST_WEIGHT = 1e-6  # a weight that is divided by; what is less moves no list
Weight = Annotated[Number, Field(ge=0, le=1000), AfterValidator(_weight)]
TimeUnit = Literal["s", "ms", "us"]
CrossFeature = Literal["retrieval_score", "times_had", "days_since", "popularity"]
Positive = Annotated[int, Strict(), Field(ge=1, le=2**31 - 1)]
Few = Annotated[Positive, Field(le=65_535)]  # of what is counted in two bytes
Days = Annotated[Positive, Field(le=36_525)]  # a century
Hours = Annotated[Number, Field(ge=0, le=876_600)]  # a century too


def bytes_of(text: str) -> int:
    """Read a size as DuckDB writes it: ``bytes_of("4GB") == 4_000_000_000``, ``bytes_of("1KiB") == 1024``."""
    number = text.rstrip("KMGTiB ")
    unit = text[len(number) :].strip()
    base = 1024 if "i" in unit else 1000
    power = " KMGT".index(unit[0] if len(unit) > 1 else " ")
    return int(float(number) * base**power)


def cache_folder(said: str | None) -> Path:
    """Name the folder of the cache: the one that is *said*, else as the environment has it.

    Raises:
        UsageError: If nobody says, and there is no home directory for it.
    """
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    try:
        return Path(said or os.environ.get("NIGHTREC_CACHE") or f"{caches}/nightrec").expanduser()
    except RuntimeError as error:
        raise UsageError(f"[store] cache: {error}; name a folder, or set NIGHTREC_CACHE") from error
