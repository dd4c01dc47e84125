"""What the search chose on each validation part; ``python -m benchmarks.quality.search`` searches anew."""

import math
from dataclasses import replace

from benchmarks.quality.learned import NETWORKS, Setting
from benchmarks.quality.levers import BEGUN, LEVERS, RECHUB_LEVERS
from benchmarks.quality.ranking import RankSetting
from benchmarks.quality.rechub import RechubSetting
from models.bst import BstConfig
from models.fit import FitOptions
from models.mind import MindConfig

UNIT = MindConfig(normalise=True, power=math.inf)
FITTED = FitOptions(batch=128, targets=12, half_life_days=60.0)
SHOP = Setting(UNIT, FITTED, popular_weight=1.0)
GROCER = replace(SHOP, last_days=90, options=replace(FITTED, draws=1024))
FILMS = replace(SHOP, config=replace(UNIT, power=1.0), popular_days=30, options=replace(FITTED, batch=64))
RECHUB_NAME = "torch_rechub"
SYSTEMS = (*NETWORKS, RECHUB_NAME)


def setting_of(base: Setting, system: str, epochs: int) -> Setting:
    """Take a setting for a system: one interest for those that have no more."""
    interests = base.config.interests if system == "mind" else 1
    return replace(base, config=replace(base.config, interests=interests), options=replace(base.options, epochs=epochs))


BASES = {"ml100k": FILMS, "ml100k_last_day": FILMS, "complete_journey": GROCER, "online_retail": SHOP}
LARGE = ("complete_journey",)  # more items than a step compares with: it draws some
RECHUB_BASES = {
    "ml100k": RechubSetting(),
    "ml100k_last_day": RechubSetting(),
    "complete_journey": RechubSetting(epochs=3, last_days=GROCER.last_days),  # a minute each
    "online_retail": RechubSetting(),
}
CHOSEN: dict[str, dict[str, tuple[str, int]]] = {  # which lever, and how many epochs
    "ml100k": {
        "mind": (BEGUN, 8),
        "mind_one": ("popularity of 7 days", 8),
        "two_tower": ("popularity when asked alone", 6),
        RECHUB_NAME: (BEGUN, 5),
    },
    "ml100k_last_day": {
        "mind": ("inner product", 2),
        "mind_one": ("inner product", 2),
        "two_tower": ("inner product", 3),
        RECHUB_NAME: ("learning rate 0.003, 80 negatives", 8),
    },
    "complete_journey": {
        "mind": (BEGUN, 4),
        "mind_one": (BEGUN, 4),
        "two_tower": (BEGUN, 4),
        RECHUB_NAME: ("learning rate 0.001, 80 negatives", 1),
    },
    "online_retail": {
        "mind": ("no half-life", 4),
        "mind_one": (BEGUN, 4),
        "two_tower": ("learning rate 0.01", 4),
        RECHUB_NAME: ("learning rate 0.001, 80 negatives", 1),
    },
}
RETRIEVAL = {
    data: {
        system: LEVERS[lever](setting_of(BASES[data], system, epochs))
        for system, (lever, epochs) in found.items()
        if system != RECHUB_NAME
    }
    for data, found in CHOSEN.items()
}
RECHUB = {
    data: RECHUB_LEVERS[lever](replace(RECHUB_BASES[data], epochs=epochs))
    for data, found in CHOSEN.items()
    for lever, epochs in [found[RECHUB_NAME]]
}
# Of rankers, all alike: chosen by lists that were kept from training (docs/quality.md, "What moved the figures"). There
# are as many steps as were best there, and an epoch of all lists has more.
LISTS = FitOptions(epochs=5, batch=32, learning_rate=0.001, targets=5, ratio=4, ema_momentum=0.99, unknown_rate=0.2)
FEW_LISTS = replace(LISTS, epochs=10, batch=16, ema_momentum=0.9, unknown_rate=0.02)  # MovieLens has 117 of them
NEW_LISTS = replace(LISTS, epochs=3, learning_rate=0.0003)
NETWORK = BstConfig(mlp=(256, 128, 64))
RANKING = {
    "ml100k": {
        "all": RankSetting(NETWORK, FEW_LISTS),
        "new": RankSetting(NETWORK, replace(FEW_LISTS, learning_rate=0.0003)),
    },
    "complete_journey": {"all": RankSetting(NETWORK, LISTS), "new": RankSetting(NETWORK, NEW_LISTS)},
    "online_retail": {"all": RankSetting(NETWORK, LISTS), "new": RankSetting(NETWORK, NEW_LISTS)},
}
