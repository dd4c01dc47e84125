"""From the size of a night to what its steps take, on one machine or on many; right within a factor of two or three."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nightrec.rates import Prices, Rates

INDEX_BYTES = {"Flat": 4.0, "SQ8": 1.0, "PQ": 0.25}  # of one dimension of one item
BYTES_OF_ID = 8  # of an item in the index
TRAININGS = 7  # as much k-means as of one index is done where several are tried, of half and twice as many lists too
MORE_WIDTH = 4  # numbers behind a vector where popularity counts
SHARD_ROWS = 65_536  # users of a shard, past which its memory grows no more
SAMPLE_USERS = 4_096  # that nprobe is chosen with
TRAIN_OF_LIST = 64  # items that k-means sees of each list, in each of its ROUNDS
ROUNDS = 10
HELD = 256 << 20  # bytes of vectors that a process holds; more lie in a file
BYTES_OF_ROW = 20  # of an item while it is indexed: its list, how near that is, its row
CARRIED = 8  # bytes of an event that is left for the next night, compressed


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

    @property
    def behaviours(self) -> int:
        """Of a user, of those that are kept."""
        return min(self.history, math.ceil(self.events / max(self.users, 1)))

    @property
    def active(self) -> int:
        """Interests of a user, K' of the paper."""
        return max(1, min(self.interests, int(math.log2(max(self.behaviours, 1)))))


@dataclass(frozen=True, slots=True)
class Means:
    """What a night may use.

    Attributes:
        cores: Of one machine.
        workers: Processes, over all machines.
        memory: Bytes of DuckDB's memory.
        index_type: As the config has it, as the next two.
        candidates: Of a user, for the ranker.
        top_n: Length of a list.
        machines: Of one kind.
        gpus: Over all machines.
        index_threads: Of k-means, ``night.faiss_threads``.
        lists: Of the index; 0 has them chosen.
        popularity: Whether the index has recent popularity behind each vector.
        index_memory: The most bytes of an index; 0 is no limit.
    """

    cores: int
    workers: int
    memory: int
    index_type: str
    candidates: int
    top_n: int
    machines: int = 1
    gpus: int = 0
    index_threads: int = 2
    lists: int = 0
    popularity: bool = False
    index_memory: int = 0


@dataclass(frozen=True, slots=True)
class Effort:
    """What one step takes.

    Attributes:
        step: Its name.
        rows: Rows it writes.
        disk: Bytes it writes.
        memory: Bytes that one machine holds at its peak, over its workers.
        minutes: How long it takes.
        shards: Into how many it should be cut.
        worker: Bytes that one worker holds.
        fetched: Bytes that its workers read, over all machines.
        cost: Of the machines while it runs.
    """

    step: str
    rows: int
    disk: int
    memory: int
    minutes: float
    shards: int = 1
    worker: int = 0
    fetched: int = 0
    cost: float = 0.0


@dataclass(frozen=True, slots=True)
class _Sizes:
    """Bytes of what is written and held; ``table`` is a model's embeddings of all items, which its workers hold."""

    histories: float
    catalogue: float
    vectors: float
    index: float
    interests: float
    scores: float
    table: float

    @property
    def release(self) -> float:
        """What is published."""
        return self.vectors + self.index + self.interests + self.scores


@dataclass(frozen=True, slots=True)
class _Part:
    """What a step writes, into how many shards, what it reads, and what one worker holds."""

    rows: int
    shards: int
    written: float
    fetched: float
    held: float


def estimate(sizes: Workload, means: Means, rates: Rates | None = None, prices: Prices | None = None) -> list[Effort]:
    """Work out each step's effort; the last row is the whole night."""
    rates, prices = rates or Rates(), prices or Prices()
    bytes_ = _bytes_of(sizes, means, rates)
    computing = _seconds(sizes, means, rates, bytes_)
    efforts = []
    for step, part in _parts(sizes, means, rates, bytes_).items():
        spread = step in _SPREAD
        machines = means.machines if spread else 1
        gpus = means.gpus if spread else min(means.gpus, 1) if step == "index" else 0
        seconds = computing[step]
        if means.machines > 1:  # else the root is a folder here
            seconds = max(seconds, (part.written + part.fetched) / machines / rates.network)
        effort = Effort(
            step,
            part.rows,
            round(part.written),
            round(part.held * (math.ceil(means.workers / machines) if spread else 1)),
            seconds / 60,
            part.shards,
            round(part.held),
            round(part.fetched),
            seconds / 3600 * (prices.core_hour * means.cores * machines + prices.gpu_hour * gpus),
        )
        efforts.append(effort)
    whole = total(efforts)
    rest = {"shards": 0, "worker": max(e.worker for e in efforts), "fetched": sum(e.fetched for e in efforts)}
    cost = sum(effort.cost for effort in efforts)
    return [*efforts, Effort("the night", 0, whole["disk"], whole["memory"], whole["minutes"], **rest, cost=cost)]


def _parts(sizes: Workload, means: Means, rates: Rates, bytes_: _Sizes) -> dict[str, _Part]:
    lists = sizes.users * means.top_n
    shards = max(1, math.ceil(sizes.users / SHARD_ROWS))
    item_shards = min(means.workers, max(1, math.ceil(sizes.items / SHARD_ROWS)))
    events, carried = sizes.events * rates.event_bytes, sizes.events * CARRIED
    tower = rates.worker_bytes + bytes_.table
    held = min(bytes_.vectors, HELD)
    beside = bytes_.index + bytes_.catalogue + bytes_.table * sizes.ranked
    shop, shown = beside + bytes_.vectors, lists_of(sizes, means) * TRAIN_OF_LIST * 4 * sizes.width
    chosen = 2 * held + shown + bytes_.catalogue + BYTES_OF_ROW * sizes.items
    open_ = means.index_type == "auto"  # of which two are held, the best so far and the next
    built = 2 * bytes_.index if open_ else min(bytes_.index, means.index_memory or math.inf)
    towers, shops, vectors = means.workers * bytes_.table, means.workers * shop, bytes_.vectors
    of_users = bytes_.histories + bytes_.interests
    return {
        "prepare": _Part(
            sizes.users + sizes.items, 1, bytes_.histories + carried, events, means.memory + bytes_.catalogue
        ),
        "items": _Part(sizes.items, item_shards, vectors, towers, tower),
        "index": _Part(sizes.items, 1, bytes_.index, vectors, rates.worker_bytes + chosen + built),
        "interests": _Part(sizes.users, shards, bytes_.interests, bytes_.histories + towers, tower),
        "score": _Part(lists, shards, bytes_.scores, of_users + shops, rates.worker_bytes + beside + held),
        "check": _Part(0, 1, 0, bytes_.release, rates.worker_bytes + means.memory),
        "publish": _Part(lists, 1, bytes_.release, bytes_.release, rates.worker_bytes),
    }


_SPREAD = frozenset({"items", "interests", "score"})  # over all workers; the others are done on one machine


def lists_of(sizes: Workload, means: Means) -> int:
    """Lists of the index, about: 4 times the root of the items."""
    return means.lists or max(1, min(4 * math.isqrt(sizes.items), sizes.items // TRAIN_OF_LIST))


def type_of(sizes: Workload, means: Means) -> str:
    """Type of the index; of one left open the largest that fits: it is chosen, unless less work finds as much."""
    if means.index_type != "auto":
        return means.index_type
    room = means.index_memory or math.inf
    fitting = [kind for kind in INDEX_BYTES if _index_bytes(sizes, means, kind) + BYTES_OF_ID * sizes.items <= room]
    return fitting[0] if fitting else list(INDEX_BYTES)[-1]


def _index_bytes(sizes: Workload, means: Means, kind: str) -> float:
    return sizes.items * (sizes.width + MORE_WIDTH * means.popularity) * INDEX_BYTES[kind]


def _bytes_of(sizes: Workload, means: Means, rates: Rates) -> _Sizes:
    rows = sizes.users * (16 + sizes.behaviours * (sizes.features + 1) * 4) + sizes.events * 16
    return _Sizes(
        histories=rows * rates.compressed,
        catalogue=sizes.items * (24 + 4 * sizes.features),
        vectors=sizes.items * sizes.width * 4,
        index=_index_bytes(sizes, means, type_of(sizes, means)),
        interests=sizes.users * (8 + sizes.active * sizes.width * 4),
        scores=sizes.users * means.top_n * 28 * rates.compressed,
        table=sizes.items * sizes.width * 4,
    )


def _seconds(sizes: Workload, means: Means, rates: Rates, bytes_: _Sizes) -> dict[str, float]:
    everywhere, gpus = means.cores * means.machines, means.gpus
    searches = sizes.users * sizes.active * max(1.0, sizes.width / 64 * math.sqrt(sizes.items / 200_000))
    pairs = sizes.users * means.candidates if sizes.ranked else 0
    harder = max(1.0, sizes.behaviours / 20 * sizes.width / 64)
    sampled = SAMPLE_USERS * sizes.active * sizes.items
    lists = lists_of(sizes, means)
    trained = lists * (lists * TRAIN_OF_LIST * ROUNDS + sizes.items) * (TRAININGS if means.index_type == "auto" else 1)
    flops = 2 * sizes.width * (trained + sampled)
    index_speed = rates.gpu_index_flops if gpus else rates.index_flops * min(means.index_threads, means.cores)
    beside = sizes.users / rates.passed / everywhere  # what the cores do while GPUs compute
    interests = sizes.users / rates.users * harder / everywhere
    score = (searches / rates.searches + pairs / rates.pairs) / everywhere
    if gpus:
        interests = max(beside, sizes.users / rates.gpu_users * harder / gpus)
        score = max(beside, (searches / rates.gpu_searches + pairs / rates.gpu_pairs) / gpus)
    return {
        "prepare": (sizes.events / rates.events + sizes.users / (20 * rates.users)) / means.cores,
        "items": sizes.items / rates.items / everywhere,
        "index": flops / index_speed + sizes.items / rates.items,
        "interests": interests,
        "score": score,
        "check": sizes.users * means.top_n / rates.rows_checked / means.cores,
        "publish": bytes_.release / rates.copied,
    }


def total(efforts: Sequence[Effort]) -> dict[str, Any]:
    """Add disk and minutes, and take the highest peak of memory."""
    steps = [effort for effort in efforts if effort.step != "the night"]
    return {
        "disk": sum(effort.disk for effort in steps),
        "memory": max(effort.memory for effort in steps),
        "minutes": sum(effort.minutes for effort in steps),
    }


def relief(step: str) -> str:
    """Say what lowers the memory that a step holds on one machine."""
    if step in {"prepare", "check"}:
        return "lower night.memory, past which DuckDB spills to disk"
    if step == "index":
        return 'take a smaller [index] type, such as "SQ8", or a machine with more for this step'
    return "take fewer night.workers with more night.threads for each, or more machines"


def kept_cost(efforts: Sequence[Effort], prices: Prices) -> float:
    """Price a month of the store, with the nights that are kept."""
    return efforts[-1].disk / 1e9 * prices.gb_month * prices.nights_kept
