"""The learned retrieval systems: MIND, MIND with one interest, a two-tower model; all fitted alike by our trainer."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from artifacts.bundle import FeatureSpec, Role, input_names
from benchmarks.quality.protocol import Part, Scorer
from benchmarks.quality.two_tower import TwoTower
from features.encode import item_features
from features.sequences import Sequences, history_at
from models.backend import keras
from models.candidates import item_vectors, user_interests
from models.examples import DAY_US, Examples, Window, age_weights, day_starts, make_stale, next_day, next_events
from models.fit import FitOptions, forget_untrained, mind_trainer
from models.losses import full_softmax, sampled_softmax, score_targets, serving_scores
from models.mind import Mind, MindConfig
from models.trainers import Batch, Batches, Epoch, MindTrainer, hide_ids, reproducible

Network = Mind | TwoTower
NETWORKS: dict[str, type[Network]] = {"mind": Mind, "mind_one": Mind, "two_tower": TwoTower}


@dataclass(frozen=True, slots=True)
class Setting:
    """How a network is built, fitted and asked.

    Attributes:
        config: Of the network.
        options: How it is fitted; ``epochs`` is what the validation part chose.
        asks: What one example is: a user's ``"day"``, asked in the morning as a night does, with up to
            ``options.targets`` of its items, others every epoch; or so many ``"events"``, as ``nightrec fit`` has it.
        adaptive: Whether a short history has fewer interests, ``K' = max(1, min(K, floor(log2 n)))``, or all K.
        last_days: Days before the cut that examples are taken from; 0 takes them from all. Histories stay whole.
        features: Whether the network is told more than the ids of items.
        popular_weight: What the score of an item gets for the logarithm of (1 + its recent events); 0 adds nothing.
        popular_days: What is recent.
        popular_from: Whether that is added in ``"training"`` too, so that the network learns what popularity does not
            say, or when it is ``"asked"`` alone.
    """

    config: MindConfig
    options: FitOptions
    asks: Literal["day", "events"] = "day"
    adaptive: bool = True
    last_days: int = 0
    features: bool = True
    popular_weight: float = 0.0
    popular_days: int = 7
    popular_from: Literal["training", "asked"] = "training"


@dataclass(frozen=True, eq=False)
class Recent:
    """How popular every item was on the days before each day.

    Attributes:
        midnights: When each day begins, [D].
        logs: ``log(1 + events of the days before)``, [D, items].
    """

    midnights: npt.NDArray[np.int64]
    logs: Tensor = field(repr=False)

    def day_of(self, now_us: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Say which row of ``logs`` tells what was known at each moment."""
        return np.searchsorted(self.midnights, now_us, side="right") - 1


def recent(sequences: Sequences, *, zone: str, days: int) -> Recent:
    """Count every item's events of the *days* whole days before each day."""
    known = sequences.items >= 0
    midnights = day_starts(sequences.times_us, zone)
    items = len(sequences.catalogue)
    day = np.searchsorted(midnights, sequences.times_us[known], side="right") - 1
    flat = np.bincount(day * items + sequences.items[known], minlength=len(midnights) * items)
    before = np.zeros((len(midnights) + 1, items), np.float32)
    np.cumsum(flat.reshape(-1, items), axis=0, out=before[1:])
    first = np.maximum(np.arange(len(midnights)) - days, 0)
    return Recent(midnights, torch.from_numpy(np.log1p(before[:-1] - before[first])))


class Trainer(MindTrainer):
    """MIND's trainer, with recent popularity added to every score that the loss compares."""

    def __init__(self, base: MindTrainer, popular: Tensor) -> None:
        """Take over the module, inputs and catalogue of *base*; *popular* [days, items] is scaled already."""
        super().__init__(base.mind, base.names, base.catalogue.rows, base.catalogue.sampler)
        self.popular = (popular,)  # Keras need not look into it

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Tensor:
        """Softmax over the whole catalogue, or over what the sampler drew; ``x["day"]`` [users] is a row of popular."""
        (interests, count), targets, (popular,) = y_pred, y.long(), self.popular
        config, sampler, day = self.mind.config, self.catalogue.sampler, x["day"].long()
        if sampler is None:
            vectors = self.mind.item_vectors(*hide_ids(self.catalogue.rows, config.unknown_rate))
            positive, others = compared(config, interests, count, vectors[targets], vectors)
            known = popular[day]
            return full_softmax(positive + known.gather(1, targets), others + known[:, None], sample_weight)
        drawn = sampler.draw()
        asked = torch.cat([targets.flatten(), drawn])
        rows = hide_ids([feature[asked] for feature in self.catalogue.rows], config.unknown_rate)
        vectors = self.mind.item_vectors(*rows)
        wanted = vectors[: targets.numel()].reshape(*targets.shape, -1)
        positive, others = compared(config, interests, count, wanted, vectors[targets.numel() :])
        return sampled_softmax(
            positive + popular[day[:, None], targets],
            others + popular[day[:, None], drawn][:, None],
            sample_weight,
            hits=targets[:, :, None] == drawn,
            log_q=sampler.log_inclusion(targets),
            candidate_log_q=sampler.log_inclusion(drawn),
        )


def compared(
    config: MindConfig, interests: Tensor, count: Tensor, targets: Tensor, candidates: Tensor
) -> tuple[Tensor, Tensor]:
    """Score targets and candidates as :func:`models.losses.score_targets` does.

    Where each item has the whole weight of its best interest, that is what serving does, in a third of the time.
    """
    if config.attention == "own" and math.isinf(config.power):
        return serving_scores(interests, count, targets), serving_scores(interests, count, candidates)[:, None]
    return score_targets(interests, count, targets, candidates, attention=config.attention, power=config.power)


def batches(part: Part, spec: FeatureSpec, setting: Setting, options: FitOptions, known: Recent | None) -> Batches:
    """Batches for the trainer, of other questions every epoch."""
    sequences, names = part.sequences, input_names(Role.USER, spec)
    start_us = part.cut_us - setting.last_days * DAY_US if setting.last_days else part.split.train.start_us
    window = Window(start_us, part.cut_us)
    asked = (_days if setting.asks == "day" else _events)(part, window, options)

    def begin(epoch: int) -> Epoch:
        examples = asked(epoch)

        def assemble(rows: npt.NDArray[np.int64]) -> Batch:
            some = examples.take(rows)
            told = history_at(sequences, some.users, some.now_us, some.ends, spec)
            inputs: dict[str, npt.NDArray[Any]] = {name: told[name] for name in names}
            if known is not None:
                inputs["day"] = known.day_of(some.now_us)
            return inputs, some.targets, some.weights

        return Epoch(len(examples), assemble)

    return Batches(begin, batch=options.batch, seed=options.seed)


def _events(part: Part, window: Window, options: FitOptions) -> Callable[[int], Examples]:
    def examples(epoch: int) -> Examples:
        shift, half_life = epoch % options.targets, options.half_life_days
        found = next_events(part.sequences, window, targets=options.targets, half_life_days=half_life, shift=shift)
        return make_stale(part.sequences, found, rate=options.stale_rate, seed=[options.seed, epoch])

    return examples


def _days(part: Part, window: Window, options: FitOptions) -> Callable[[int], Examples]:
    days = next_day(part.sequences, window, zone=part.zone)
    question, place = np.nonzero(days.weights)
    items = days.targets[question, place]
    rank = np.arange(len(items)) - np.searchsorted(question, question, side="left")
    kept, ages = rank < options.targets, age_weights(days.now_us, part.cut_us, options.half_life_days)

    def examples(epoch: int) -> Examples:
        drawn = items[np.lexsort((np.random.default_rng([options.seed, epoch]).random(len(items)), question))]
        targets = np.zeros((len(days), options.targets), np.int64)
        weights = np.zeros(targets.shape, np.float32)
        targets[question[kept], rank[kept]] = drawn[kept]
        weights[question[kept], rank[kept]] = ages[question[kept]]
        return Examples(days.users, days.now_us, days.ends, targets, weights)

    return examples


def fit(
    part: Part, system: str, setting: Setting, *, seed: int, watch: Callable[[int, Network], None] | None = None
) -> Network:
    """Fit *system* on the part's training days, for as many epochs as the setting says.

    Args:
        part: What may be learnt from.
        system: A key of ``NETWORKS``.
        setting: Of the network and its fitting.
        seed: What all that is drawn follows from.
        watch: Is shown the network after every epoch, from 1.
    """
    options, config = replace(setting.options, seed=seed), replace(setting.config, seed=seed)
    spec = spec_of(part, setting)
    known = recent(part.sequences, zone=part.zone, days=setting.popular_days) if setting.popular_weight else None
    train = batches(part, spec, setting, options, known)
    with reproducible(seed):
        network = NETWORKS[system](config, spec, part.vocabularies)
        if not setting.adaptive:
            network.thresholds.zero_()
        trainer = mind_trainer(network, part.sequences, part.split, options)
        if known is not None and setting.popular_from == "training":
            trainer = Trainer(trainer, setting.popular_weight * known.logs)
        trainer.compile(optimizer=keras.optimizers.Adam(learning_rate=options.learning_rate))
        shown = [keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: watch(epoch + 1, network))]
        trainer.fit(train, epochs=options.epochs, shuffle=False, verbose=0, callbacks=shown if watch else [])
    forget_untrained(network, part.sequences, part.split)
    return network


def spec_of(part: Part, setting: Setting) -> FeatureSpec:
    """Say what a network of the setting is told."""
    return part.spec if setting.features else replace(part.spec, item_features=("item_id",), profile_features=())


def scorer_of(part: Part, network: Network, setting: Setting) -> Scorer:
    """Score the catalogue as serving does: the best inner product of an interest, and what recent popularity adds."""
    vectors = item_vectors(network, item_features(part.sequences.catalogue, network.spec))
    known = recent(part.sequences, zone=part.zone, days=setting.popular_days) if setting.popular_weight else None

    def score(questions: Examples) -> npt.NDArray[np.floating]:
        told = history_at(part.sequences, questions.users, questions.now_us, questions.ends, network.spec)
        scores = serving_scores(*user_interests(network, told), vectors)
        if known is not None:
            scores += setting.popular_weight * known.logs[known.day_of(questions.now_us)]
        found: npt.NDArray[np.floating] = scores.numpy()
        return found

    return score
