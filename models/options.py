"""How long and how a network is fitted: the options of ``[train.mind]`` and ``[train.bst]`` that are no network's."""

import math
from dataclasses import dataclass
from typing import Literal

from artifacts.errors import UsageError

_CLIPS = ("clipnorm", "global_clipnorm", "clipvalue")


@dataclass(frozen=True, slots=True)
class FitOptions:
    """How long and how a network is fitted.

    Attributes:
        epochs: The most passes over the training events.
        patience: Epochs without a better validation before fitting stops; the best epoch's weights are kept.
        batch: Examples of a step.
        optimizer: By name, with *learning_rate*.
        learning_rate: Of the optimizer.
        clipnorm: The longest gradient of each weight by itself, as Keras's optimizers have it; 0 clips none.
        global_clipnorm: The longest gradient of all weights together; 0 clips none.
        clipvalue: The greatest entry of a gradient; 0 clips none. One of the three, not two.
        ema_momentum: Of the running average of all weights that is validated and kept in place of the last ones, as
            Keras's optimizers have it: 0.99 is of about the last 100 steps, so it takes a fit of several times as many.
            0 keeps no average.
        asks: What one example is (MIND): a user's ``"day"``, asked in its morning as a night asks, with up to *targets*
            of its different items, others every epoch; or so many ``"events"`` one after the other, asked just before
            the first of them.
        targets: Items or events that one example asks for; more save work, since they share a history.
        half_life_days: An event this much older than the last day weighs half; 0 weighs all alike.
        stale_rate: Share of examples by ``"events"`` whose history ends earlier, as a night's does (MIND); 0 is none.
            On MovieLens-100K half of them give HitRate@50 of 0.24 in place of 0.22 for nights, and 0.40 in place of
            0.44 for events in the middle of a sitting.
        popularity_weight: What the loss multiplies log(1 + an item's recent events) by and adds to its scores (MIND):
            the network then learns what popularity does not say, and takes as much of it at night
            (``retrieve.popularity_weight``). It was better on Online Retail, and worse on MovieLens-100K.
        draws: Items that a step of sampled softmax draws, where the catalogue is not small (MIND).
        ratio: Negatives for each positive (BST).
        positive_weight: Weight of a positive beside a negative's 1, as Keras's ``class_weight = {1: ...}`` (BST).
        unknown_rate: Share of ids that training turns into the unknown row (BST; MIND's config has its own).
        in_sample: Whether BST may learn from days that retrieval was trained on too. Retrieval's scores of them are
            too good, but where days are few, more of them can be worth more: see :func:`fit_bst`.
        threads: Of torch; the weights depend on it, and more than one seldom pays.
        seed: What everything drawn follows from, besides the config's seed of the start weights.
        verbose: Whether to show progress: a bar on a terminal, else lines.
    """

    epochs: int = 20
    patience: int = 2
    batch: int = 256
    optimizer: Literal["adam", "adagrad"] = "adam"
    learning_rate: float = 0.003
    clipnorm: float = 0.0
    global_clipnorm: float = 0.0
    clipvalue: float = 0.0
    ema_momentum: float = 0.0
    asks: Literal["day", "events"] = "events"
    targets: int = 4
    half_life_days: float = 90.0
    stale_rate: float = 0.5
    popularity_weight: float = 0.0
    draws: int = 4096
    ratio: int = 4
    positive_weight: float = 1.0
    unknown_rate: float = 0.02
    in_sample: bool = False
    threads: int = 1
    seed: int = 1
    verbose: bool = True

    def __post_init__(self) -> None:
        """Refuse what cannot be fitted by.

        Raises:
            UsageError: Naming the field, what was expected and what was found.
        """
        ones = dict.fromkeys(("epochs", "batch", "targets", "draws", "ratio", "threads"), 1)
        for name, bound in {
            **ones,
            **dict.fromkeys(("patience", "seed", "half_life_days", "popularity_weight", *_CLIPS), 0),
        }.items():
            if not getattr(self, name) >= bound:
                raise UsageError(f"train.{name}: expected {bound} or more, found {getattr(self, name)}")
        _require_known(self)
        for name in ("learning_rate", "positive_weight"):
            if not 0 < getattr(self, name) < math.inf:
                raise UsageError(f"train.{name}: expected more than 0, found {getattr(self, name)}")
        for name in ("stale_rate", "unknown_rate"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"train.{name}: expected a share from 0 to 1, found {getattr(self, name)}")
        if not 0 <= self.ema_momentum < 1:
            raise UsageError(f"train.ema_momentum: expected a share from 0 to below 1, found {self.ema_momentum}")
        if len(asked := [name for name in _CLIPS if getattr(self, name)]) > 1:
            raise UsageError(f"train.{asked[0]}: expected one kind of clipping, found {' and '.join(asked)}")


def _require_known(options: FitOptions) -> None:
    for name, (one, other) in {"optimizer": ("adam", "adagrad"), "asks": ("day", "events")}.items():
        if (found := getattr(options, name)) not in {one, other}:
            raise UsageError(f'train.{name}: expected "{one}" or "{other}", found "{found}"')


# Of a search on validation days: docs/training.md, "Where the defaults come from".
MIND_OPTIONS = FitOptions(asks="day", targets=12, half_life_days=60.0, batch=128)
BST_OPTIONS = FitOptions(learning_rate=0.001, batch=32, epochs=8, patience=3, ema_momentum=0.99)
