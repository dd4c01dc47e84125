"""Fitting MIND and BST: training data in, a checkpoint out."""

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
from features.sequences import Sequences
from features.vocabulary import Vocabulary
from models.batches import bst_batches, kept_lists, mind_batches, mind_examples, spread
from models.bst import Bst, BstConfig
from models.candidates import Night, Popularity, popularity_of
from models.checkpoint import Checkpoint, build, checkpoint_of, save_checkpoint
from models.course import NO_COURSE, Course
from models.events import EventIndex, known_events
from models.examples import Split, Window
from models.loop import run_loop
from models.mind import Mind, MindConfig
from models.options import BST_OPTIONS, MIND_OPTIONS, FitOptions
from models.trainers import Batches, BstTrainer, MindTrainer, reproducible, sampler_of
from models.warm import start_warm

__all__ = [  # the options and batches are given from here too: who fits from Python needs one import
    "BST_OPTIONS",
    "MIND_OPTIONS",
    "FitOptions",
    "after_retrieval",
    "bst_batches",
    "calibrate",
    "event_counts",
    "fit_bst",
    "fit_mind",
    "forget_untrained",
    "kept_lists",
    "mind_batches",
    "mind_examples",
    "mind_trainer",
]

SMALL_CATALOGUE = 10_000  # items up to which MIND is compared with all of them
CALIBRATION_LISTS = 20_000  # of BST's lists, by which its residual is started


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
    """Work out what the loss adds to scores on each day of training and validation; None for the weight 0."""
    if not weight:
        return None
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


def calibrate(bst: Bst, batches: Batches) -> None:
    """Start the residual where cross features alone predict best: logistic regression of the labels on them.

    They have scales of their own, and one candidate in many comes true. From the retrieval score as it is, the first
    epochs would be spent on a few numbers that Newton's method finds at once, and where lists are few the layers would
    learn those by heart before the weights are right. Of many lists it takes ``CALIBRATION_LISTS``, evenly spread.
    """
    head = bst.head
    if head.wide is None:
        return
    parts = [
        [column[weights > 0] for column in (inputs["cross"], labels, weights)]
        for inputs, labels, weights in spread(batches, CALIBRATION_LISTS)
    ]
    cross, label, weight = (np.concatenate(column).astype(np.float64) for column in zip(*parts, strict=True))
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
    counts = np.zeros(len(sequences.catalogue), dtype=np.int64)
    for _, items, _ in known_events(sequences, split.train.end_us):
        counts += np.bincount(items, minlength=len(counts))
    return counts


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
