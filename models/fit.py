"""Fitting MIND and BST: training data in, a checkpoint out."""

import math
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import date
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from artifacts.bundle import FeatureSpec, Role, input_names
from artifacts.errors import UsageError
from features.day import data_day
from features.encode import item_features
from features.sequences import Sequences, history_at
from features.vocabulary import Vocabulary
from models.bst import Bst, BstConfig
from models.candidates import POSITIVE, Night, Popularity, draw_negatives, popularity_of, ranker_inputs, retrieve
from models.checkpoint import Checkpoint, build, checkpoint_of, save_checkpoint
from models.course import NO_COURSE, Course
from models.examples import EventIndex, Examples, Split, Window, days_of, make_stale, next_events
from models.loop import run_loop
from models.mind import Mind, MindConfig
from models.options import BST_OPTIONS, MIND_OPTIONS, FitOptions
from models.trainers import Batch, Batches, BstTrainer, Epoch, MindTrainer, reproducible, sampler_of
from models.warm import start_warm

__all__ = [  # the options are given from here too: who fits from Python needs one import
    "BST_OPTIONS",
    "MIND_OPTIONS",
    "FitOptions",
    "after_retrieval",
    "bst_batches",
    "calibrate",
    "fit_bst",
    "fit_mind",
    "forget_untrained",
    "kept_lists",
    "mind_batches",
    "mind_examples",
    "mind_trainer",
]

SMALL_CATALOGUE = 10_000  # items up to which MIND is compared with all of them
KEPT_LISTS = 1_000  # of BST's lists, by which an export in narrower arithmetic is judged


def fit_mind(
    sequences: Sequences,
    *,
    spec: FeatureSpec,
    vocabularies: dict[str, Vocabulary],
    split: Split,
    config: MindConfig,
    options: FitOptions = MIND_OPTIONS,
    popular_days: int = 30,
    out: Path | None = None,
    course: Course = NO_COURSE,
) -> Checkpoint:
    """Fit MIND to what users did next.

    Args:
        sequences: All users' events, encoded by *vocabularies*.
        spec: What the network is told.
        vocabularies: By feature.
        split: Days to train and to validate on.
        config: Sizes and choices of the network.
        options: How it is fitted.
        popular_days: Days before an example's day whose events ``options.popularity_weight`` is about.
        out: Folder to write the checkpoint to; None writes none.
        course: Where it starts, goes on and is watched.

    Raises:
        InputError: If the days to train on hold no event with a history before it.
        UsageError: If the course's start does not fit.
        ConflictError: If *out* exists.
    """
    popularity = _popularity(sequences, split, options.popularity_weight, popular_days)
    how: dict[str, Any] = {"spec": spec, "options": options, "popularity": popularity}
    train = mind_batches(sequences, split, **how)
    valid = mind_batches(sequences, split, training=False, **how)
    with reproducible(options.seed, threads=options.threads):
        mind = Mind(config, spec, vocabularies)
        _begin(mind, course, split, vocabularies)
        trainer = mind_trainer(mind, sequences, split, options, popularity)
        about = run_loop(trainer, train, valid, options, course)
    forget_untrained(mind, sequences, split)
    return _finish(mind, config, spec, vocabularies, split, about, out)


def _popularity(sequences: Sequences, split: Split, weight: float, days: int) -> Popularity | None:
    """Work out what the loss adds to scores on each day of training and validation."""
    index = EventIndex(sequences, zone=split.zone, until_us=split.valid.end_us)
    moments = np.array([split.train.start_us, split.valid.end_us - 1])
    night = Night(popular_days=days, popularity_weight=weight)
    return popularity_of(index, moments, len(sequences.catalogue), night)


def fit_bst(  # noqa: PLR0913 - all that a fit takes, by name
    sequences: Sequences,
    *,
    spec: FeatureSpec,
    vocabularies: dict[str, Vocabulary],
    split: Split,
    retrieval: Checkpoint,
    night: Night,
    config: BstConfig,
    options: FitOptions = BST_OPTIONS,
    out: Path | None = None,
    course: Course = NO_COURSE,
) -> Checkpoint:
    """Fit BST to tell what users did next from what retrieval proposed.

    Args:
        sequences: All users' events, encoded by *vocabularies*.
        spec: What the network is told.
        vocabularies: By feature.
        split: Days to train and to validate on; training starts after the last day that *retrieval* has seen, unless
            the options say ``in_sample``.
        retrieval: A MIND that proposes the candidates. Its scores of events that it was itself trained on are too
            good, and a ranker that learns to trust them is misled at night; so take one of earlier days, and let
            BST learn from the days since. The price is BST's older events: on MovieLens-100K, where 45 days hold
            2,700 examples and all days 12,300, ``in_sample`` with the night's own MIND was better (GAUC on the last
            14 days 0.65 against 0.60; retrieval's own order 0.63).
        night: How the night will retrieve.
        config: Sizes and choices of the network.
        options: How it is fitted.
        out: Folder to write the checkpoint to; None writes none.
        course: Where it starts, goes on and is watched.

    Raises:
        UsageError: If *retrieval* has seen all the days to train on, or the course's start does not fit.
        InputError: If those days hold no event that retrieval proposed.
        ConflictError: If *out* exists.
    """
    if not options.in_sample:
        split = after_retrieval(split, retrieval)
    mind = build(retrieval)
    if not isinstance(mind, Mind):
        raise UsageError(f"expected a MIND checkpoint to retrieve with, found {retrieval.kind}")
    how: dict[str, Any] = {"spec": spec, "mind": mind, "night": night, "options": options}
    with reproducible(options.seed, threads=options.threads):
        train = bst_batches(sequences, split, **how)
        valid = bst_batches(sequences, split, training=False, **how)
        bst = Bst(config, spec, vocabularies)
        if not _begin(bst, course, split, vocabularies):
            calibrate(bst, train)
        trainer = BstTrainer(bst, input_names(Role.RANKER, spec), unknown_rate=options.unknown_rate)
        about = run_loop(trainer, train, valid, options, course)
    forget_untrained(bst, sequences, split)
    about |= {"night": asdict(night), "retrieval_trained_through": retrieval.trained_through}
    lists = kept_lists(valid if valid.examples else train)
    return _finish(bst, config, spec, vocabularies, split, about, out, lists=lists)


def _begin(module: Mind | Bst, course: Course, split: Split, vocabularies: dict[str, Vocabulary]) -> bool:
    """Start warm where that is asked for; says whether it was.

    Raises:
        UsageError: If the checkpoint is another network's, or has seen days that are validated on.
    """
    start = course.start
    if start is None:
        return False
    if start.trained_through > split.trained_through:
        raise UsageError(
            f"warm start: the checkpoint was trained through {start.trained_through}, after the last day of training "
            f"here, {split.trained_through}; take an earlier one, or train on later days"
        )
    start_warm(module, start, vocabularies)
    return True


def after_retrieval(split: Split, retrieval: Checkpoint) -> Split:
    """Let training begin after the last day that *retrieval* was trained on.

    Raises:
        UsageError: If no day is left.
    """
    _, seen_us = data_day(date.fromisoformat(retrieval.trained_through), split.zone)
    if seen_us >= split.train.end_us:
        raise UsageError(
            f"the retrieval model was trained through {retrieval.trained_through}: of the days through "
            f"{split.trained_through} none is left that it has not seen; "
            "fit one for this on earlier days, or set in_sample"
        )
    return replace(split, train=Window(max(split.train.start_us, seen_us), split.train.end_us))


def mind_trainer(
    mind: Mind, sequences: Sequences, split: Split, options: FitOptions, popularity: Popularity | None = None
) -> MindTrainer:
    """Put *mind* into a Keras model that compares with the whole of a small catalogue, or a sample of a large one."""
    catalogue = item_features(sequences.catalogue, mind.spec)
    rows = [torch.from_numpy(catalogue[name].copy()) for name in mind.spec.item_features]
    large = len(sequences.catalogue) > SMALL_CATALOGUE
    sampler = sampler_of(event_counts(sequences, split), options.draws) if large else None
    added = popularity.by_day if popularity else None
    return MindTrainer(mind, input_names(Role.USER, mind.spec), rows, sampler, added)


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
) -> Callable[[int], Examples]:
    """Say what each epoch asks, as ``options.asks`` has it; validation asks the same every time."""
    window, half_life = (split.train, options.half_life_days) if training else (split.valid, 0.0)
    if options.asks == "day":
        days = days_of(sequences, window, zone=split.zone, half_life_days=half_life)
        return lambda epoch: days.ask(options.targets, seed=[options.seed, epoch if training else 0])

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
    candidates = retrieve(sequences, examples, index, mind=mind, night=night)
    useful = (candidates.labels == POSITIVE).any(axis=1)
    examples, candidates = examples.take(useful), candidates.take(useful)

    def begin(epoch: int) -> Epoch:
        seed = [options.seed, epoch if training else 0]
        drawn, filled = draw_negatives(candidates, positives=options.targets, ratio=options.ratio, seed=seed)
        weights = filled * examples.weights.max(axis=1, initial=0.0)[:, None]
        if training:
            weights = np.where(drawn.labels == POSITIVE, options.positive_weight, 1.0) * weights

        def assemble(rows: npt.NDArray[np.int64]) -> Batch:
            kept = drawn.take(rows)
            inputs = ranker_inputs(sequences, examples.take(rows), index, kept, spec=spec, night=night)
            return inputs, (kept.labels == POSITIVE).astype(np.float32), weights[rows].astype(np.float32)

        return Epoch(len(examples), assemble)

    return Batches(begin, batch=options.batch, seed=options.seed if training else None)


def kept_lists(batches: Batches, most: int = KEPT_LISTS) -> dict[str, npt.NDArray[Any]]:
    """Keep some lists of BST's batches, evenly spread: its inputs, and ``label`` [N, C] as in a checkpoint."""
    wanted = max(1, math.ceil(most * len(batches) / max(batches.examples, 1)))
    chosen = np.unique(np.linspace(0, len(batches) - 1, wanted).round().astype(int))
    parts = [batches[int(index)] for index in chosen]
    labels = [np.where(weights > 0, labels, -1).astype(np.int8) for _, labels, weights in parts]
    kept = {name: np.concatenate([inputs[name] for inputs, _, _ in parts]) for name in parts[0][0]}
    return {name: array[:most] for name, array in {**kept, "label": np.concatenate(labels)}.items()}


def calibrate(bst: Bst, batches: Batches) -> None:
    """Start the residual where cross features alone predict best: logistic regression of the labels on them.

    They have scales of their own, and one candidate in many comes true. From the retrieval score as it is, the first
    epochs would be spent on a few numbers that Newton's method finds at once, and where lists are few the layers would
    learn those by heart before the weights are right.
    """
    head = bst.head
    if head.wide is None:
        return
    parts = [batches[index] for index in range(len(batches))]
    kept = [weights > 0 for _, _, weights in parts]
    columns = (
        [inputs["cross"][k] for (inputs, _, _), k in zip(parts, kept, strict=True)],
        [labels[k] for (_, labels, _), k in zip(parts, kept, strict=True)],
        [weights[k] for (_, _, weights), k in zip(parts, kept, strict=True)],
    )
    cross, label, weight = (np.concatenate(column).astype(np.float64) for column in columns)
    design = np.concatenate([cross, np.ones((len(cross), 1))], axis=1)
    ridge = 1e-3 * np.eye(design.shape[1])
    solution = np.zeros(design.shape[1])
    for _ in range(20):
        expected = 1 / (1 + np.exp(-np.clip(design @ solution, -30, 30)))
        curvature = design.T @ (design * (weight * expected * (1 - expected))[:, None]) + ridge
        solution += np.linalg.solve(curvature, design.T @ (weight * (label - expected)) - ridge @ solution)
    with torch.no_grad():
        head.wide.copy_(torch.from_numpy(solution[:-1]))
        head.last.bias.fill_(float(solution[-1]))


def event_counts(sequences: Sequences, split: Split) -> npt.NDArray[np.int64]:
    """Count each catalogue item's events before the end of training, [items]."""
    known = (sequences.items >= 0) & (sequences.times_us < split.train.end_us)
    return np.bincount(sequences.items[known], minlength=len(sequences.catalogue))


def forget_untrained(module: Mind | Bst, sequences: Sequences, split: Split) -> None:
    """Give every id that no training event held the vector of the unknown id.

    What is left in its row is where it started, or what was learnt of it as a negative; tonight's new items get the
    unknown row too, and so are treated alike.
    """
    rows = sequences.catalogue[f"feature_{module.spec.item_features[0]}"].to_numpy()
    with torch.no_grad():
        table = cast(nn.Embedding, module.item_tables[0]).weight
        untrained = torch.ones(len(table), dtype=torch.bool)
        untrained[torch.from_numpy(rows[event_counts(sequences, split) > 0].astype(np.int64))] = False
        untrained[0] = False
        table[untrained] = table[1].clone()


def _finish(
    module: Mind | Bst,
    config: MindConfig | BstConfig,
    spec: FeatureSpec,
    vocabularies: dict[str, Vocabulary],
    split: Split,
    about: dict[str, Any],
    out: Path | None,
    lists: dict[str, npt.NDArray[Any]] | None = None,
) -> Checkpoint:
    checkpoint = checkpoint_of(
        module,
        config=config,
        spec=spec,
        vocabularies=vocabularies,
        trained_through=split.trained_through,
        about=about,
        lists=lists,
    )
    if out is not None:
        save_checkpoint(checkpoint, out)
    return checkpoint
