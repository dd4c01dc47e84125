"""The learned retrieval systems: MIND, MIND with one interest, a two-tower model; all fitted alike by our trainer."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from artifacts.bundle import FeatureSpec
from benchmarks.quality.protocol import HISTORY, Part, Scorer
from benchmarks.quality.two_tower import TwoTower
from features.encode import item_features
from features.sequences import history_at
from models.backend import keras
from models.candidates import Night, Popularity, item_vectors, popularity_of, user_interests
from models.events import DAY_US, EventIndex
from models.examples import Examples, Window
from models.fit import FitOptions, forget_untrained, mind_batches, mind_trainer
from models.losses import serving_scores
from models.mind import Mind, MindConfig
from models.trainers import reproducible

Network = Mind | TwoTower
NETWORKS: dict[str, type[Network]] = {"mind": Mind, "mind_one": Mind, "two_tower": TwoTower}


@dataclass(frozen=True, slots=True)
class Setting:
    """How a network is built, fitted and asked.

    Attributes:
        config: Of the network.
        options: How it is fitted; ``epochs`` is what the validation part chose.
        asks: What one example is, as :class:`models.options.FitOptions` has it.
        adaptive: Whether a short history has fewer interests, ``K' = max(1, min(K, floor(log2 n)))``, or all K.
        last_days: Days before the cut that examples are taken from; 0 takes them from all. Histories stay whole.
        features: Whether the network is told more than the ids of items.
        behaviours: L, of the history, the most that the network is told.
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
    behaviours: int = HISTORY
    popular_weight: float = 0.0
    popular_days: int = 7
    popular_from: Literal["training", "asked"] = "training"


def recent(part: Part, setting: Setting) -> Popularity | None:
    """Work out what recent popularity adds to every item's scores on each day of the part."""
    index = EventIndex(part.sequences, zone=part.zone, until_us=int(np.iinfo(np.int64).max))
    every_day = np.array([part.sequences.times_us.min(), part.sequences.times_us.max()])
    night = Night(popular_days=setting.popular_days, popularity_weight=setting.popular_weight)
    return popularity_of(index, every_day, len(part.sequences.catalogue), night)


def fit(
    part: Part,
    system: str,
    setting: Setting,
    *,
    seed: int,
    start: Callable[[Network], None] | None = None,
    watch: Callable[[int, Network], None] | None = None,
) -> Network:
    """Fit *system* on the part's training days, for as many epochs as the setting says.

    Args:
        part: What may be learnt from.
        system: A key of ``NETWORKS``.
        setting: Of the network and its fitting.
        seed: What all that is drawn follows from.
        start: Is shown the network before it is fitted, for a warm start.
        watch: Is shown the network after every epoch, from 1.
    """
    options, config = replace(setting.options, seed=seed, asks=setting.asks), replace(setting.config, seed=seed)
    spec, split = spec_of(part, setting), part.split
    if setting.last_days:
        split = replace(split, train=Window(part.cut_us - setting.last_days * DAY_US, part.cut_us))
    known = recent(part, setting) if setting.popular_from == "training" else None
    train = mind_batches(part.sequences, split, spec=spec, options=options, popularity=known)
    with reproducible(seed):
        network = NETWORKS[system](config, spec, part.vocabularies)
        if start is not None:
            start(network)
        if not setting.adaptive:
            network.thresholds.zero_()
        trainer = mind_trainer(network, part.sequences, split, options, known)
        trainer.compile(optimizer=keras.optimizers.Adam(learning_rate=options.learning_rate))
        shown = [keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: watch(epoch + 1, network))]
        trainer.fit(train, epochs=options.epochs, shuffle=False, verbose=0, callbacks=shown if watch else [])
    forget_untrained(network, part.sequences, part.split)
    return network


def spec_of(part: Part, setting: Setting) -> FeatureSpec:
    """Say what a network of the setting is told."""
    spec = replace(part.spec, history_length=setting.behaviours)
    return spec if setting.features else replace(spec, item_features=("item_id",), profile_features=())


def scorer_of(part: Part, network: Network, setting: Setting) -> Scorer:
    """Score the catalogue as serving does: the best inner product of an interest, and what recent popularity adds."""
    vectors = item_vectors(network, item_features(part.sequences.catalogue, network.spec))
    known = recent(part, setting)

    def score(questions: Examples) -> npt.NDArray[np.floating]:
        told = history_at(part.sequences, questions.users, questions.now_us, questions.ends, network.spec)
        scores = serving_scores(*user_interests(network, told), vectors)
        if known is not None:
            scores += known.by_day[torch.from_numpy(known.rows(questions.now_us))]
        found: npt.NDArray[np.floating] = scores.numpy()
        return found

    return score
