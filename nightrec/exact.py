"""What exported bundles answer to questions about users: the whole catalogue by exact inner products, over ONNX."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from artifacts.bundle import Bundle, Role
from artifacts.errors import InputError
from batch.session import Session, open_session
from batch.towers import encode_items, item_vectors
from features.encode import NO_ITEM
from features.mapped import zeros
from features.sequences import Sequences, ends_before, history_at
from models.events import EventIndex
from models.examples import Examples
from models.lists import UNUSED, Candidates, Night, ranker_inputs
from models.protocol import KS, Lists, Questions
from nightrec.config import Config
from nightrec.terminal import progress

_SCORES = 2**25  # inner products that are held at once


@dataclass(frozen=True, eq=False)
class Models:
    """Bundles that are opened, and how a night of the config uses them.

    Attributes:
        item: Embeds items.
        user: Turns histories into interests.
        ranker: Orders candidates; None where there is none.
        night: How many candidates it is given, and what recent popularity adds to their scores.
        zone: Where days begin and end.
    """

    item: Session
    user: Session
    ranker: Session | None
    night: Night
    zone: str


def open_models(config: Config, bundles: Sequence[Bundle]) -> Models:
    """Load the graphs of *bundles* on the device of the config, and replay their canary rows."""
    night = config.night
    rows = {Role.ITEM: night.batch_items, Role.USER: night.batch_users, Role.RANKER: night.batch_lists}
    sessions = {
        bundle.role: open_session(bundle, rows=rows[bundle.role], device=night.device, threads=night.threads)
        for bundle in bundles
    }
    how = Night(
        candidates=config.retrieve.candidates,
        popular_days=config.history.popular_days,
        popularity_weight=config.retrieve.popularity_weight,
    )
    return Models(sessions[Role.ITEM], sessions[Role.USER], sessions.get(Role.RANKER), how, config.surface.timezone)


def exact_lists(
    models: Models, sequences: Sequences, questions: Questions, now_us: int, k: int = max(KS)
) -> dict[str, Lists]:
    """Let the models answer at *now_us*: ``retrieval``, and ``retrieval, then ranker`` where there is one.

    Every item that a night would index is a candidate: eligible, known by its id or a side feature, with a usable
    vector. Nothing is told of *now_us* or after it, whenever a user came back.

    Raises:
        InputError: If a user's interests, or a score, is no number that can be used.
    """
    now = np.full(len(questions), now_us)
    asked = replace(questions.asked, now_us=now, ends=ends_before(sequences, questions.asked.users, now))
    index = EventIndex(sequences, zone=models.zone, until_us=int(np.iinfo(np.int64).max))
    vectors, added = _catalogue(models, sequences, index, now_us)
    found = {kind: _nothing(len(asked), max(k, models.night.candidates)) for kind in ("all", "new")}
    most = _SCORES // (max(models.user.bundle.interests, 1) * max(len(vectors), 1))
    with progress("asking", len(asked)) as advance:
        for chosen in _parts(len(asked), max(1, min(models.user.rows, most))):
            scores = _scores(models.user, sequences, asked.take(chosen), vectors) + added
            _keep_best(found["all"], chosen, scores)
            for row, question in enumerate(chosen):
                scores[row, questions.had[question]] = -np.inf
            _keep_best(found["new"], chosen, scores)
            advance(len(chosen))
    systems = {"retrieval": {kind: lists.items[:, :k] for kind, lists in found.items()}}
    if models.ranker is None:
        return systems
    ordered = {kind: _ordered(models, models.ranker, sequences, asked, index, one) for kind, one in found.items()}
    return {"retrieval, then ranker": ordered, **systems}


def _catalogue(models: Models, sequences: Sequences, index: EventIndex, now_us: int) -> tuple[np.ndarray, np.ndarray]:
    """Give the items' vectors [items, d], and what is added to their scores [items]: minus infinity leaves one out."""
    batches = sequences.catalogue.combine_chunks().to_batches()
    vectors = zeros((len(sequences.catalogue), models.item.bundle.width), np.float32)
    usable, end = np.empty(len(vectors), bool), 0
    for batch in encode_items(models.item, batches):
        found = item_vectors(models.item, batch)
        here = slice(end, end := end + len(found))
        usable[here] = np.isfinite(found).all(axis=1) & (found != 0).any(axis=1)
        vectors[here] = np.where(usable[here, None], found, 0)
    events = index.popularity(np.array([now_us]), np.arange(len(vectors))[None], models.night.popular_days)[0]
    added = (models.night.popularity_weight * np.log1p(events)).astype(np.float32)
    eligible, signal = (sequences.catalogue[name].to_numpy() for name in ("eligible", "signal"))
    added[~(usable & eligible & signal)] = -np.inf
    return vectors, added


def _parts(rows: int, most: int) -> list[np.ndarray]:
    return [np.arange(start, min(start + most, rows)) for start in range(0, rows, most)]


def _scores(user: Session, sequences: Sequences, asked: Examples, vectors: np.ndarray) -> np.ndarray:
    """Score the catalogue for each user by the best of their active interests, float32 [users, items]."""
    told = history_at(sequences, asked.users, asked.now_us, asked.ends, user.bundle.spec)
    results = user.run(told)
    interests, counts = results["interests"], results["count"].ravel()
    bad = (counts < 1) | (counts > user.bundle.interests)
    active = np.arange(user.bundle.interests) < counts[:, None]
    bad |= (active & ~np.isfinite(interests).all(axis=2)).any(axis=1)
    if bad.any():
        who = sequences.user_ids[int(asked.users[bad.argmax()])].as_py()
        raise InputError(
            f"user bundle {user.bundle.folder}, user_id {who!r}: expected 1 to {user.bundle.interests} interests of "
            "numbers, found others; the model cannot be used for this user"
        )
    products = np.where(active[:, :, None], interests, 0) @ vectors.T
    products[~active] = -np.inf
    best: np.ndarray = products.max(axis=1)
    return best


def _nothing(users: int, k: int) -> Candidates:
    shape = (users, k)
    return Candidates(np.full(shape, NO_ITEM), np.zeros(shape, np.float32), np.full(shape, UNUSED, np.int8))


def _keep_best(found: Candidates, users: np.ndarray, scores: np.ndarray) -> None:
    """Put each user's best items, of equals the lower row first, into their places of *found*."""
    k = min(found.items.shape[1], scores.shape[1])
    last = -np.partition(-scores, k - 1, axis=1)[:, k - 1 : k]  # the k-th best score
    better, equal = scores > last, scores == last
    kept = better | (equal & (np.cumsum(equal, axis=1) <= k - better.sum(axis=1, keepdims=True)))
    rows = np.nonzero(kept)[1].reshape(len(scores), k)
    reached = np.take_along_axis(scores, rows, axis=1)
    order = np.argsort(-reached, axis=1, kind="stable")
    rows, reached = (np.take_along_axis(side, order, axis=1) for side in (rows, reached))
    there = reached > -np.inf
    found.items[users, :k] = np.where(there, rows, NO_ITEM)
    found.scores[users, :k] = np.where(there, reached, 0)


def _ordered(
    models: Models, ranker: Session, sequences: Sequences, asked: Examples, index: EventIndex, found: Candidates
) -> np.ndarray:
    """Let the ranker order the first candidates, catalogue rows [N, C]; places without one come last."""
    lists, c = [], models.night.candidates
    for chosen in _parts(len(asked), ranker.rows):
        kept = Candidates(found.items[chosen, :c], found.scores[chosen, :c], found.labels[chosen, :c])
        told = ranker_inputs(sequences, asked.take(chosen), index, kept, spec=ranker.bundle.spec, night=models.night)
        scores = ranker.run(told)["score"]
        scores = np.where(kept.items == NO_ITEM, -np.inf, scores)
        if np.isnan(scores).any():
            raise InputError(f"ranker bundle {ranker.bundle.folder}: a score is NaN; the model cannot be used")
        lists.append(np.take_along_axis(kept.items, np.argsort(-scores, axis=1, kind="stable"), axis=1))
    return np.concatenate(lists)
