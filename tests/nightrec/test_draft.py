"""The first config: whatever the sizes, it can be read, and says what fits them."""

import tomllib
from collections.abc import Mapping
from datetime import date, timedelta
from pathlib import Path

import pytest

from nightrec.config import Config
from nightrec.convert import Ready
from nightrec.draft import Sizes, draft

NEWEST = date(2026, 3, 1)
READY = {
    "interactions": Ready("events.parquet", {"user_id": "u", "item_id": "i", "time": "t"}, {}, "ms"),
    "items": Ready("items.parquet", {"item_id": "i"}, {"brand": 'a "b" \\c'}, copied="a night reads Parquet"),
}


def drafted(folder: Path, sizes: Sizes) -> Config:
    text = draft("shop", "Europe/Berlin", READY, sizes, folder)
    return Config.model_validate(tomllib.loads(text), context={"folder": folder})


def days(events: int, every: int = 1, count: int = 90) -> Mapping[date, int]:
    """Spread events evenly over each *every*-th day; the newest is the last."""
    listed = [NEWEST - timedelta(days=every * ago) for ago in reversed(range(count))]
    return {day: max(1, events // count) for day in listed}


@pytest.mark.parametrize("users", [1, 400, 3_000_000])
@pytest.mark.parametrize("items", [1, 60, 5_000, 3_000_000, 30_000_000])
@pytest.mark.parametrize("events", [1, 50_000, 800_000, 5_000_000, 400_000_000])
@pytest.mark.parametrize("repeated", [0.0, 0.5])
def test_every_size_makes_a_config_that_can_be_read(
    tmp_path: Path, users: int, items: int, events: int, repeated: float
) -> None:
    """No rule of the config is broken by what is chosen."""
    config = drafted(tmp_path, Sizes(events, users, items, days(events), NEWEST, repeated))

    assert config.train is not None
    assert config.train.until + timedelta(days=config.train.validate_days) == NEWEST
    assert config.retrieve.candidates == min(100, items)
    assert config.night.shards == (12 if users == 3_000_000 else 1)
    assert config.index.type == {3_000_000: "SQ8", 30_000_000: "PQ"}.get(items, "Flat")
    assert config.retrieve.exclude_seen == ("none" if repeated else "all")
    assert config.train.refit == (events < 20_000_000)
    assert config.train.mind.get("epochs", 20) == {50_000: 20, 800_000: 3, 1: 20}.get(events, 2)
    assert config.inputs.items.features == {"brand": 'a "b" \\c'}
    assert config.day.newest_within_hours == 24


def test_the_rules_of_the_day_are_those_that_the_days_keep(tmp_path: Path) -> None:
    """A shop that sells on each third day, or very unevenly, would else be refused every week."""
    rare = drafted(tmp_path, Sizes(9000, 10, 10, days(9000, every=3), NEWEST, 0))
    assert rare.day.newest_within_hours == 72
    uneven = {day: 1 if place % 3 else 100 for place, day in enumerate(days(9000))}
    assert drafted(tmp_path, Sizes(9000, 10, 10, uneven, NEWEST, 0)).day.min_share_of_median == 0


def test_each_setting_has_its_reason_beside_it(tmp_path: Path) -> None:
    """A number without a reason teaches nobody when to change it."""
    text = draft("shop", "UTC", READY, Sizes(800_000, 500_000, 60, days(800_000), NEWEST, 0.4), tmp_path)

    for key in ("shards", "exclude_seen", "until", "validate_days", "refit", "history_length", "epochs", "candidates"):
        said = [line for line in text.splitlines() if line.startswith(f"{key} = ")]
        assert said
        assert all(" # " in line for line in said)
    assert 'path = "events.parquet"' in draft("s", "UTC", READY, Sizes(1, 1, 1, days(1), NEWEST, 0), Path.cwd())
