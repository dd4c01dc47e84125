"""What a stranger's folder holds: events drawn at random, and files as other programs write them."""

import csv
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

USERS, ITEMS, EVENTS = 90, 40, 2000


def drawn() -> list[tuple[int, int, datetime]]:
    """Draw a user, an item and a minute of sixty days for each event; the last day is the first of March."""
    random = np.random.default_rng(4)
    start = datetime(2026, 1, 1)
    users, items = random.integers(0, USERS, EVENTS), random.integers(0, ITEMS, EVENTS)
    return [
        (int(user), int(item), start + timedelta(minutes=int(minute)))
        for user, item, minute in zip(users, items, random.integers(0, 60 * 24 * 60, EVENTS), strict=True)
    ]


def write_csv(
    path: Path, header: Sequence[str], rows: Sequence[Sequence[Any]], *, delimiter: str = ",", encoding: str = "utf-8"
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding=encoding, newline="") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(header)
        writer.writerows(rows)
