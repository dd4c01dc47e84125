"""What a release is worth on the days after it, beside two floors, and what it recommends to three people."""

from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console
from rich.table import Table

from artifacts.schemas import SOURCE_RANKED
from features.catalogue import encode_catalogue
from features.day import data_day
from features.ordered import Engine
from features.sequences import Sequences, read_sequences
from models import evaluate
from models.candidates import NEGATIVE, POSITIVE, UNUSED, Candidates, Night
from models.checkpoint import load_checkpoint
from models.events import EventIndex, users_of
from models.examples import Examples
from nightrec.config import Config, read_config
from nightrec.inputs import inputs_of
from release.pointer import find_release

LAST_INPUT_DAYS = 60  # to be read after the data date: all that MovieLens has
POPULAR_DAYS = 30
KS = (10, 50, 100)
FAR_BELOW = -1e30  # the score of an item that was not retrieved


@dataclass(frozen=True, slots=True)
class Held:
    """The days after the data date, and what a release says of the users who have a history and come back.

    Attributes:
        sequences: All events, those after the data date too.
        examples: One question for each such user, asked at the end of the data date; the targets are all they did then.
        found: The release's candidates in the order of retrieval, and which came true.
        scores: The ranker's scores of the candidates, [N, C].
    """

    sequences: Sequences
    examples: Examples
    found: Candidates
    scores: np.ndarray


def show(console: Console, config_path: Path) -> None:
    """Print three people's recommendations and both quality tables."""
    config = read_config(config_path)
    release = find_release(config.root)
    day = date.fromisoformat(release.manifest.date)
    sequences = _read(config, day)
    examples = _held_out(sequences, data_day(day, config.surface.timezone)[1])
    scores = pa.concat_tables(
        pa.ipc.open_file(path).read_all() for path in sorted(release.layout.scores.glob("*.arrow"))
    )
    held = _released(sequences, examples, scores)
    floors = _floors(held)
    _show_people(console, held, scores)
    _show_retrieval(console, held, floors)
    _show_ranking(console, held, floors)


def _read(config: Config, day: date) -> Sequences:
    checkpoint = load_checkpoint(Path(config.train.folder) / "bst")  # type: ignore[union-attr]  # the demo has one
    catalogue, _ = encode_catalogue(inputs_of(config), spec=checkpoint.spec, vocabularies=checkpoint.vocabularies)
    with TemporaryDirectory() as scratch:
        return read_sequences(
            inputs_of(config),
            catalogue=catalogue,
            spec=checkpoint.spec,
            vocabularies=checkpoint.vocabularies,
            until=day + timedelta(days=LAST_INPUT_DAYS),
            zone=config.surface.timezone,
            engine=Engine(Path(scratch)),
        )


def _held_out(sequences: Sequences, now_us: int) -> Examples:
    """Ask every user who has a history and comes back; each different item of the days to come is a target."""
    users = users_of(sequences)
    later = sequences.times_us >= now_us
    before = np.bincount(users[~later], minlength=len(sequences.user_ids))
    pairs = np.unique(np.stack([users[later], sequences.items[later]], axis=1), axis=0)
    pairs = pairs[(before[pairs[:, 0]] > 0) & (pairs[:, 1] >= 0)]
    asked, first, counts = np.unique(pairs[:, 0], return_index=True, return_counts=True)
    places = (np.repeat(np.arange(len(asked)), counts), np.arange(len(pairs)) - np.repeat(first, counts))
    targets = np.zeros((len(asked), counts.max(initial=0)), dtype=np.int64)
    weights = np.zeros(targets.shape, dtype=np.float32)
    targets[places], weights[places] = pairs[:, 1], 1.0
    ends = sequences.starts[asked] + before[asked]
    return Examples(asked, np.full(len(asked), now_us), ends, targets, weights)


def _released(sequences: Sequences, examples: Examples, scores: pa.Table) -> Held:
    """Lay the ranked rows of the asked users out as [N, C], in the order of retrieval."""
    users = _positions(scores["user_id"], sequences.user_ids.take(pa.array(examples.users)))
    kept = (users >= 0) & (scores["source"].to_numpy() == SOURCE_RANKED)
    rows = scores.filter(pa.array(kept))
    users = users[kept]
    items = _positions(rows["item_id"], sequences.catalogue["item_id"])
    retrieval, ranking = rows["retrieval_score"].to_numpy(), rows["score"].to_numpy()
    order = np.lexsort((items, -retrieval, users))
    users, items, retrieval, ranking = (array[order] for array in (users, items, retrieval, ranking))
    counts = np.bincount(users, minlength=len(examples))
    places = (users, np.arange(len(users)) - np.repeat(np.cumsum(counts) - counts, counts))
    shape = (len(examples), int(counts.max(initial=0)))
    found, best, ranked = np.full(shape, -1), np.zeros(shape, np.float32), np.full(shape, FAR_BELOW)
    found[places], best[places], ranked[places] = items, retrieval, ranking
    wanted = np.where(examples.weights > 0, examples.targets, -2)
    true = (found[:, :, None] == wanted[:, None, :]).any(axis=2)
    labels = np.where(true, POSITIVE, np.where(found >= 0, NEGATIVE, UNUSED)).astype(np.int8)
    return Held(sequences, examples, Candidates(found, best, labels), ranked)


def _positions(values: pa.ChunkedArray, of: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Where each value stands in *of*; -1 where it does not."""
    return pc.fill_null(pc.index_in(values, value_set=of), -1).to_numpy()


def _catalogue_scores(held: Held, scores: np.ndarray) -> evaluate.Scorer:
    """Spread the scores of candidates over the whole catalogue; what was not retrieved stands far below."""
    table = np.full((len(held.examples), len(held.sequences.catalogue)), FAR_BELOW)
    rows, places = np.nonzero(held.found.items >= 0)
    table[rows, held.found.items[rows, places]] = scores[rows, places]
    row_of_user = {user: row for row, user in enumerate(held.examples.users.tolist())}
    return lambda asked: table[[row_of_user[user] for user in asked.users.tolist()]]


def _floors(held: Held) -> dict[str, evaluate.Scorer]:
    now_us = int(held.examples.now_us[0])
    index = EventIndex(held.sequences, zone="UTC", until_us=now_us)
    neighbours = evaluate.item_neighbours(held.sequences, now_us)
    return {
        f"most popular, {POPULAR_DAYS} days": evaluate.most_popular(held.sequences, index, POPULAR_DAYS),
        "item-kNN": evaluate.nearest_items(held.sequences, neighbours),
    }


def _show_retrieval(console: Console, held: Held, floors: dict[str, evaluate.Scorer]) -> None:
    systems = {
        "retrieval (MIND)": _catalogue_scores(held, held.found.scores),
        "release (MIND, then BST)": _catalogue_scores(held, held.scores),
        **floors,
    }
    measured = {
        name: evaluate.retrieval_quality(held.sequences, held.examples, score, night=Night(), ks=KS)
        for name, score in systems.items()
    }
    events = next(iter(measured.values())).events
    rows = {name: [quality.hit_rate[k] for k in KS] for name, quality in measured.items()}
    title = f"HitRate over the whole catalogue: {events} held-out events of {len(held.examples)} people who came back"
    _print(console, title, [f"@{k}" for k in KS], rows, models=2)


def _show_ranking(console: Console, held: Held, floors: dict[str, evaluate.Scorer]) -> None:
    systems = {"BST": held.scores, "retrieval score (MIND)": held.found.scores}
    for name, score in floors.items():
        systems[name] = evaluate.of_candidates(score, held.examples, held.found)
    measured = {name: evaluate.ranking_quality(scores, held.found) for name, scores in systems.items()}
    rows = {name: [quality.auc, quality.ndcg_10] for name, quality in measured.items()}
    some = next(iter(measured.values()))
    title = f"Ranking of the release's own candidates: {some.lists} lists with {some.positives} that came true"
    _print(console, title, ["AUC", "NDCG@10"], rows, models=1)


def _print(console: Console, title: str, measures: list[str], rows: dict[str, list[float]], *, models: int) -> None:
    """Print a table and, for each model in its first rows, which floors it loses to."""
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("system")
    for measure in measures:
        table.add_column(measure, justify="right")
    for name, values in rows.items():
        table.add_row(name, *(f"{value:.3f}" for value in values))
    console.print()
    console.print(table)
    names = list(rows)
    for model in names[:models]:
        for floor in names[models:]:
            lost = [m for m, ours, theirs in zip(measures, rows[model], rows[floor], strict=True) if ours < theirs]
            if lost:
                console.print(f"  {model} loses to {floor} at {', '.join(lost)}.", style="yellow")


def _show_people(console: Console, held: Held, scores: pa.Table) -> None:
    """Show three people: of those who came back, the ones with the first, the middle and the last id."""
    titles = dict(zip(*(held.sequences.catalogue[name].to_pylist() for name in ("item_id", "title")), strict=True))
    catalogue_ids = held.sequences.catalogue["item_id"].to_pylist()
    last = len(held.examples) - 1
    for row in (0, last // 2, last):
        user = held.sequences.user_ids[int(held.examples.users[row])].as_py()
        end = int(held.examples.ends[row])
        start = max(end - 5, int(held.sequences.starts[held.examples.users[row]]))
        watched = [titles[catalogue_ids[item]] for item in held.sequences.items[start:end][::-1] if item >= 0]
        mine = scores.filter(pc.equal(scores["user_id"], user)).slice(0, 5)
        came_true = {catalogue_ids[item] for item in held.examples.targets[row][held.examples.weights[row] > 0]}
        table = Table(title=f"User {user}", title_justify="left", title_style="bold")
        table.add_column("watched last")
        table.add_column("recommended, best first (✓ watched it in the days after)")
        recommended = [titles[item] + (" ✓" if item in came_true else "") for item in mine["item_id"].to_pylist()]
        for number in range(max(len(watched), len(recommended))):
            table.add_row(*(names[number] if number < len(names) else "" for names in (watched, recommended)))
        console.print()
        console.print(table)
