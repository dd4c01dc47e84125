"""Whether the approximate index costs quality: exact search beside the IVF that a night would have tuned."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from artifacts.bundle import Role, input_names
from batch.indexed import appended
from batch.ivf import IndexOptions, popularity_scale, train
from batch.merge import Lists
from batch.nprobe import choose_nprobe, halves_of
from batch.retrieve import Index, retrieve
from benchmarks.quality.learned import Network, Setting
from benchmarks.quality.protocol import Part
from features.encode import NO_ITEM, item_features
from features.sequences import history_at
from models import protocol
from models.candidates import item_vectors, user_interests
from models.events import EventIndex
from models.examples import Examples

TARGETS = {"ivf": IndexOptions().recall_target, "ivf_98": 0.98}
METRICS = ("all.hr@50", "all.hr@100", "new.hr@50", "new.hr@100")
Floats = npt.NDArray[np.float32]


def interests_of(part: Part, network: Network, questions: Examples) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Give the active interests of some questions, user after user, and how many each has."""
    told = history_at(part.sequences, questions.users, questions.now_us, questions.ends, network.spec)
    interests, count = user_interests(network, {name: told[name] for name in input_names(Role.USER, network.spec)})
    counts = count.numpy().astype(np.int64)
    active = np.arange(interests.shape[1]) < counts[:, None]
    return interests.numpy()[active].astype(np.float32), counts


def index_of(part: Part, network: Network, setting: Setting) -> Index:
    """Index the eligible items on the night before the part's first day: popularity behind the vectors, not tuned."""
    items = np.flatnonzero(part.sequences.catalogue["eligible"].to_numpy()).astype(np.int32)
    vectors = item_vectors(network, item_features(part.sequences.catalogue, network.spec)).numpy()
    width, append = vectors.shape[1], appended(vectors.shape[1], setting.popular_weight)
    indexed = np.zeros((len(items), width + len(append)), np.float32)
    indexed[:, :width] = vectors[items]
    if len(append):
        events = EventIndex(part.sequences, zone=part.zone, until_us=int(np.iinfo(np.int64).max))
        counts = events.popularity(np.array([part.cut_us]), items[None].astype(np.int64), setting.popular_days)
        indexed[:, width] = np.log1p(counts[0])
    interests, _ = interests_of(part, network, part.questions)
    options = IndexOptions(popularity_weight=setting.popular_weight)
    scale = popularity_scale(interests, setting.popular_weight)
    scaling = np.where(np.arange(indexed.shape[1]) == width, scale, 1) if scale else None
    return Index(train(indexed, options, threads=1, scaling=scaling), items, indexed, 1, 1, append=append)


def nprobes(part: Part, network: Network, index: Index) -> dict[str, int]:
    """Choose nprobe as a night does, on every second user, for each of ``TARGETS``; all lists for ``exact``."""
    interests, counts = interests_of(part, network, part.questions)
    chooses, _ = halves_of(index.vectors, index.queries(interests), counts, k=IndexOptions().recall_k)
    chosen = {name: choose_nprobe(index, chooses, target).nprobe for name, target in TARGETS.items()}
    return {"exact": index.ivf.nlist, **chosen}


def lists_of(part: Part, network: Network, index: Index, *, nprobe: int) -> dict[str, npt.NDArray[np.int64]]:
    """Retrieve as a night does, from *nprobe* lists of the index: with repeats, ``all``, and without, ``new``."""
    interests, counts = interests_of(part, network, part.questions)
    asked, queries = replace(index, nprobe=nprobe), index.queries(interests)
    row_of = np.full(len(part.sequences.catalogue), NO_ITEM, np.int64)
    row_of[index.items] = np.arange(len(index.items))
    own = [row_of[had][row_of[had] != NO_ITEM] for had in part.asked.had]
    had = Lists(np.concatenate([np.empty(0, np.int64), *own]), np.array([len(rows) for rows in own]))
    nothing = Lists(np.empty(0, np.int64), np.zeros(len(counts), np.int64))
    lists = {}
    for kind, seen in (("all", nothing), ("new", had)):
        rows = retrieve(asked, queries, counts, seen, limit=max(protocol.KS), fetch=2 * max(protocol.KS)).rows
        lists[kind] = np.where(rows == NO_ITEM, NO_ITEM, index.items[rows])
    return lists


def measured(part: Part, network: Network, setting: Setting) -> dict[str, dict[str, float]]:
    """Measure HitRate by exact search and by the index at each of its targets, and which share of the lists it sees.

    All questions are asked with the popularity of one night, that before the part's first day, since there is one
    index: so the figures are below those of retrieval.
    """
    index = index_of(part, network, setting)
    rows = {}
    for name, nprobe in nprobes(part, network, index).items():
        found = protocol.judge(part.asked, lists_of(part, network, index, nprobe=nprobe))
        rows[name] = {metric: found[metric] for metric in METRICS} | {"lists": nprobe / index.ivf.nlist}
    return rows
