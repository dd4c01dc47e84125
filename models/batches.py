"""What a fit learns from, batch by batch: MIND's questions, and BST's lists of what retrieval proposed."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from artifacts.bundle import FeatureSpec, Role, input_names
from features.mapped import drawn, joined
from features.sequences import Sequences, history_at
from models.candidates import (
    POSITIVE,
    Candidates,
    Night,
    Popularity,
    columns_of,
    draw_negatives,
    ranker_inputs,
    retrieved,
)
from models.events import EventIndex
from models.examples import Drawn, Examples, Split, days_of, make_stale, next_events
from models.mind import Mind
from models.options import FitOptions
from models.trainers import Batch, Batches, Epoch

KEPT_LISTS = 1_000  # of BST's lists, by which an export in narrower arithmetic is judged


def mind_batches(
    sequences: Sequences,
    split: Split,
    *,
    spec: FeatureSpec,
    options: FitOptions,
    training: bool = True,
    popularity: Popularity | None = None,
) -> Batches:
    """Batches for :class:`models.trainers.MindTrainer`; those of training differ from epoch to epoch."""
    asked = mind_examples(sequences, split, options, training=training)

    def begin(epoch: int) -> Epoch:
        examples = asked(epoch)

        def assemble(rows: npt.NDArray[np.int64]) -> Batch:
            some = examples.take(rows)
            told = history_at(sequences, some.users, some.now_us, some.ends, spec)
            inputs: dict[str, npt.NDArray[Any]] = {name: told[name] for name in input_names(Role.USER, spec)}
            if popularity is not None:
                inputs["day"] = popularity.rows(some.now_us)
            return inputs, some.targets, some.weights

        return Epoch(len(examples), assemble)

    return Batches(begin, batch=options.batch, seed=options.seed if training else None)


def mind_examples(
    sequences: Sequences, split: Split, options: FitOptions, *, training: bool
) -> Callable[[int], Examples | Drawn]:
    """Say what each epoch asks, as ``options.asks`` has it; validation asks the same every time."""
    window, half_life = (split.train, options.half_life_days) if training else (split.valid, 0.0)
    if options.asks == "day":
        days = days_of(sequences, window, zone=split.zone, half_life_days=half_life)
        return lambda epoch: days.draw(options.targets, seed=[options.seed, epoch if training else 0])

    def events(epoch: int) -> Examples:
        shift = epoch % options.targets if training else 0
        examples = next_events(sequences, window, targets=options.targets, half_life_days=half_life, shift=shift)
        if not training:
            return examples
        return make_stale(sequences, examples, rate=options.stale_rate, seed=[options.seed, epoch])

    return events


def bst_batches(
    sequences: Sequences,
    split: Split,
    *,
    spec: FeatureSpec,
    mind: Mind,
    night: Night,
    options: FitOptions,
    training: bool = True,
) -> Batches:
    """Batches for :class:`models.trainers.BstTrainer`; in training every epoch draws other negatives."""
    window = split.train if training else split.valid
    index = EventIndex(sequences, zone=split.zone, until_us=window.end_us)
    half_life = options.half_life_days if training else 0.0
    examples = next_events(sequences, window, targets=options.targets, half_life_days=half_life)
    found = retrieved(sequences, examples, index, mind=mind, night=night)
    examples, candidates = _with_a_positive(found)

    def begin(epoch: int) -> Epoch:
        keys = drawn(np.random.default_rng([options.seed, epoch if training else 0]), candidates.items.shape)

        def assemble(rows: npt.NDArray[np.int64]) -> Batch:
            asked = examples.take(rows)
            kept, filled = draw_negatives(
                candidates.take(rows), keys[rows], positives=options.targets, ratio=options.ratio
            )
            true = kept.labels == POSITIVE
            weights = filled * asked.weights.max(axis=1, initial=0.0)[:, None]
            if training:
                weights = np.where(true, options.positive_weight, 1.0) * weights
            inputs = ranker_inputs(sequences, asked, index, kept, spec=spec, night=night)
            return inputs, true.astype(np.float32), weights.astype(np.float32)

        return Epoch(len(examples), assemble)

    return Batches(begin, batch=options.batch, seed=options.seed if training else None)


def _with_a_positive(found: Iterator[tuple[Examples, Candidates]]) -> tuple[Examples, Candidates]:
    """Keep the examples of which a candidate came true, in files without a name."""

    def parts() -> Iterator[tuple[npt.NDArray[Any], ...]]:
        for asked, candidates in found:
            useful = (candidates.labels == POSITIVE).any(axis=1)
            yield columns_of(asked.take(useful)) + columns_of(candidates.take(useful))

    columns = joined(parts())
    cut = len(Examples.__slots__)
    return Examples(*columns[:cut]), Candidates(*columns[cut:])


def spread(batches: Batches, most: int) -> Iterator[Batch]:
    """Put together so many of the batches, evenly spread, that they have *most* examples or a few more, or all."""
    wanted = min(math.ceil(most * len(batches) / max(batches.examples, 1)), len(batches))
    for index in np.linspace(0, len(batches) - 1, wanted).round():
        yield batches[int(index)]


def kept_lists(batches: Batches, most: int = KEPT_LISTS) -> dict[str, npt.NDArray[Any]]:
    """Keep some lists of BST's batches, evenly spread: its inputs, and ``label`` [N, C] as in a checkpoint."""
    parts = list(spread(batches, most))
    labels = [np.where(weights > 0, labels, -1).astype(np.int8) for _, labels, weights in parts]
    kept = {name: np.concatenate([inputs[name] for inputs, _, _ in parts]) for name in parts[0][0]}
    return {name: array[:most] for name, array in {**kept, "label": np.concatenate(labels)}.items()}
