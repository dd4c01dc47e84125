"""Real nights in a world, some of them bad: which are refused, and by what.

    python -m tests.faults.trials movielens --folder build/faults --seed 1

An ordinary night of each day is published, so that there is always an earlier release to compare with. Before it,
each trial of that day goes through all steps to ``check`` in the same store, and is never published.
"""

import argparse
import io
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pyarrow.parquet as pq

from artifacts.documents import read_json
from artifacts.errors import NightrecError
from artifacts.layout import RootLayout
from artifacts.run import Run
from nightrec.config import read_config
from nightrec.run import check_run, do_step, prepare_run, publish_run, shards_of
from nightrec.steps import MODEL_STEPS
from tests.faults.nights import Kind, Tables, bad_kinds, good_kinds
from tests.faults.worlds import WORLDS, World, made_world

HISTORY = 4  # ordinary nights before the first trial: enough for a median


@dataclass(frozen=True)
class Outcome:
    """What became of a night.

    Attributes:
        day: The data date.
        kind: Which kind of night it was.
        good: Whether it should have passed.
        refused: Why it was refused: names of gates, or the step that refused it; empty if it passed.
        values: What the gates measured, where they did.
    """

    day: str
    kind: str
    good: bool
    refused: tuple[str, ...]
    values: dict[str, float]


@contextmanager
def poor_index() -> Iterator[None]:
    """Let lists be made from noise, and the search look into one of them."""
    from batch import index
    from batch.nprobe import Chosen

    train, one = index.train, Chosen(1, {})

    def on_noise(vectors: np.ndarray, *arguments: Any, **options: Any) -> Any:
        ivf = train(np.random.default_rng(1).normal(size=vectors.shape).astype(np.float32), *arguments, **options)
        ivf.reset()
        ivf.add(vectors)
        return ivf

    with mock.patch.object(index, "train", on_noise), mock.patch.object(index, "choose_nprobe", return_value=one):
        yield


def night(world: World, folder: Path, day: date, kind: Kind, rng: np.random.Generator, *, published: bool) -> Outcome:
    """Go through the night of *day* up to ``check``, and through ``publish`` if it shall be *published*."""
    inputs = folder / "inputs"
    shutil.rmtree(inputs, ignore_errors=True)
    inputs.mkdir(parents=True)
    tables = kind.change(world.tables(day), rng)
    _write(tables, inputs)
    root = folder / "store"
    config = read_config(world.config(inputs, root, kind.bundles))
    runs = RootLayout(root).current_run(day.isoformat()).parent
    shutil.rmtree(runs, ignore_errors=True)
    step, run = "prepare", None
    try:
        with redirect_stderr(io.StringIO()):
            run, _ = prepare_run(config, day.isoformat())
            for step in MODEL_STEPS:
                _do(step, config, run, kind, rng)
            step = "check"
            check_run(config, run, override="an ordinary night" if published else None)
            if published:
                publish_run(config, run, override="an ordinary night", supersede=None)
        refused: tuple[str, ...] = ()
    except NightrecError as error:
        refused = (f"{step}: {type(error).__name__}: {str(error).splitlines()[0][:160]}",)
    verdicts = _verdicts(run)
    failed = tuple(verdict["name"] for verdict in verdicts if verdict["state"] == "fail")
    values = {v["name"]: v["value"] for v in verdicts if v["value"] is not None}
    shutil.rmtree(runs, ignore_errors=True)
    return Outcome(day.isoformat(), kind.name, published, failed or refused, values)


def _do(step: str, config: Any, run: Run, kind: Kind, rng: np.random.Generator) -> None:
    if step == "index" and kind.untrained_index:
        with poor_index():
            do_step(step, config, run, shards_of(step, run))
    else:
        do_step(step, config, run, shards_of(step, run))
    if step == kind.after:
        kind.meddle(run, rng)


def _verdicts(run: Run | None) -> list[dict[str, Any]]:
    if run is None or not run.layout.record.gates.exists():
        return []
    found: list[dict[str, Any]] = read_json(run.layout.record.gates)["verdicts"]
    return found


def _write(tables: Tables, folder: Path) -> None:
    for name in ("interactions", "items", "users"):
        pq.write_table(getattr(tables, name), folder / f"{name}.parquet")


def trials(
    world: World,
    folder: Path,
    *,
    seed: int,
    bad: Sequence[Kind],
    good: Sequence[Kind],
    nights: int,
    told: Callable[[Outcome], None] = lambda outcome: None,
) -> list[Outcome]:
    """Have *nights* ordinary nights, and among them each kind of the *bad* and the *good* ones.

    Kinds are dealt over the days after the first ``HISTORY``, in an order that *seed* shuffles. The ordinary nights
    after these are good nights too.
    """
    rng = np.random.default_rng(seed)
    days = world.days()[:nights]
    dealt: dict[date, list[tuple[Kind, bool]]] = {day: [] for day in days[HISTORY:]}
    todo = [(kind, False) for kind in bad] + [(kind, True) for kind in good]
    for place, number in enumerate(rng.permutation(len(todo))):
        dealt[days[HISTORY + place % (len(days) - HISTORY)]].append(todo[number])
    outcomes = []
    for day in days:
        for kind, is_good in dealt.get(day, []):
            outcome = night(world, folder, day, kind, rng, published=False)
            outcomes.append(Outcome(outcome.day, outcome.kind, is_good, outcome.refused, outcome.values))
            told(outcomes[-1])
        ordinary = night(world, folder, day, Kind("an ordinary day"), rng, published=True)
        if day in dealt:
            outcomes.append(ordinary)
            told(ordinary)
    return outcomes


def summary(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Count what was tried and refused, for ``build/faults.json``."""
    bad, good = ([one for one in outcomes if one.good is kind] for kind in (False, True))
    return {
        "bad_nights": {
            "tried": len(bad),
            "refused": sum(bool(one.refused) for one in bad),
            "by": {one.kind: ", ".join(one.refused[:3]) for one in bad},
        },
        "good_nights": {
            "tried": len(good),
            "refused": sum(bool(one.refused) for one in good),
            "by": {f"{one.kind}, {one.day}": ", ".join(one.refused[:3]) for one in good if one.refused},
        },
    }


# Of the short form: what is found whatever the models are worth, for those of the made world know nothing.
SHORT = (
    "a week's partitions are missing",
    "all partitions are there twice",
    "user ids are counted anew",
    "user ids are joined by the wrong key",
    "item ids are joined by the wrong key",
    "times are in a zone five hours west",
    "the catalogue is halved",
    "one country is missing",
    "half of the users are cold",
    "an untrained index",
    "constant scores",
    "lists are cut short",
)


def short_form(folder: Path, seed: int, *, bad: int = len(SHORT), good: int = 8) -> dict[str, Any]:
    """Try *bad* kinds of the short form and *good* unusual nights in the made world; give the :func:`summary`."""
    world = made_world(folder / "made")
    kinds = [kind for kind in bad_kinds() if kind.name in SHORT][:bad]
    unusual = [kind for kind in good_kinds() if kind.bundles == "bundles"][:good]
    shutil.rmtree(folder / "made-nights", ignore_errors=True)
    return summary(trials(world, folder / "made-nights", seed=seed, bad=kinds, good=unusual, nights=HISTORY + 2))


def main() -> None:
    """Print a line for each trial, and the summary."""
    parser = argparse.ArgumentParser()
    parser.add_argument("world", choices=WORLDS)
    parser.add_argument("--folder", type=Path, default=Path("build/faults"))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--nights", type=int, default=40)
    parser.add_argument("--kinds", default="", help="only those whose names have this in them")
    parser.add_argument("--good", type=int, default=64, help="trials of unusual good nights")
    options = parser.parse_args()
    world = WORLDS[options.world](options.folder / options.world)
    if world is None:
        raise SystemExit(f"{options.world}: its data is not here")
    folder = options.folder / f"{options.world}-nights"
    shutil.rmtree(folder, ignore_errors=True)
    kinds = good_kinds()
    good = [one for one in (kinds[place % len(kinds)] for place in range(options.good)) if options.kinds in one.name]
    bad = [one for one in bad_kinds() if options.kinds in one.name]
    with (options.folder / f"{options.world}-{options.seed}.jsonl").open("w") as log:

        def told(outcome: Outcome) -> None:
            print(json.dumps(asdict(outcome)), file=log, flush=True)
            right = bool(outcome.refused) is not outcome.good
            print(
                f"{'' if right else 'WRONG '}{outcome.day} {outcome.kind}: {', '.join(outcome.refused) or 'passed'}",
                flush=True,
            )

        outcomes = trials(world, folder, seed=options.seed, bad=bad, good=good, nights=options.nights, told=told)
    print(json.dumps(summary(outcomes), indent=2))


if __name__ == "__main__":
    main()
