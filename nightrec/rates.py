"""What a plan assumes: rates of one core and of one GPU, sizes and prices, with where each is from.

Those of a core were measured by ``make bench-night`` (docs/performance.md), those of a GPU were set below what one H200
gave (docs/gpu.md), and prices are round figures. A TOML file of the same keys says others.
"""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Rates:
    """What is done in a second, and what things weigh.

    Attributes:
        events: Read and cut into histories, by one core.
        items: Embedded and written, by one core.
        users: Given interests by one core, at 20 behaviours and d = 64.
        searches: Interests searched by one core, at d = 64 and 200,000 items; more items take it with their root.
        pairs: User and candidate scored by one core.
        index_flops: Multiplications and additions of k-means, adding and exact search, by one core.
        passed: Users read, compressed and written by one core beside a GPU that computes.
        rows_checked: Rows of lists judged by one core.
        copied: Bytes copied by one machine into the release.
        network: Bytes between one machine and the store, where there are several machines; assumed.
        gpu_users: As ``users``, by one GPU; 1.3 million were measured in batches of 1,024.
        gpu_searches: As ``searches``, by one GPU; 235,000 were measured in a night, 256 users at a time.
        gpu_pairs: As ``pairs``, by one GPU; 12 million were measured in fp32, 256 lists at a time.
        gpu_index_flops: As ``index_flops``, by one GPU; exact search was measured at 14e12, k-means of 181,000 vectors,
            where most is not arithmetic, at 0.5e12; at the sizes that a plan is for the first is nearer, so we assume.
        events_a_user: Where only users are given: events of one.
        event_bytes: Of an event in the inputs' files.
        compressed: Bytes on disk over bytes in memory, of ids and rows; vectors do not shrink.
        worker_bytes: A process with its libraries, its graph without tables, and its batches.
    """

    events: float = 500_000
    items: float = 150_000
    users: float = 25_000
    searches: float = 2_000
    pairs: float = 50_000
    index_flops: float = 12e9
    passed: float = 80_000
    rows_checked: float = 500_000
    copied: float = 500e6
    network: float = 1.25e9
    gpu_users: float = 500_000
    gpu_searches: float = 200_000
    gpu_pairs: float = 5_000_000
    gpu_index_flops: float = 10e12
    events_a_user: float = 60
    event_bytes: float = 12
    compressed: float = 0.7
    worker_bytes: float = 600e6


@dataclass(frozen=True, slots=True)
class Prices:
    """What is paid, in any one currency.

    Attributes:
        core_hour: A core with its memory, for an hour.
        gpu_hour: A GPU, for an hour, beside the cores of its machine.
        gb_month: A gigabyte in the store, for a month.
        nights_kept: Runs and releases that are there at a time.
    """

    core_hour: float = 0.04
    gpu_hour: float = 2.5
    gb_month: float = 0.023
    nights_kept: float = 7


def read_rates(path: Path | None) -> tuple[Rates, Prices]:
    """Read what is assumed in place of the defaults.

    Raises:
        UsageError: If the file cannot be read, a key is unknown, or a value is no number above 0.
    """
    from artifacts.errors import UsageError
    from nightrec.config import read_document
    from nightrec.sections import read_section

    if path is None:
        return Rates(), Prices()
    given = {key: float(value) if type(value) is int else value for key, value in read_document(path).items()}
    rates, prices = read_section(Rates(), Prices(), given, at=str(path))
    for key, value in given.items():
        if not getattr(rates, key, getattr(prices, key, 1)) > 0:
            raise UsageError(f"{path}: {key}: expected a number above 0, found {value}")
    return rates, prices
