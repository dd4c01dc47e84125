"""What the search chose on each validation part; ``python -m benchmarks.quality.search`` searches anew."""

import math
from dataclasses import replace
from typing import Any

from benchmarks.quality.learned import Setting
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


def setting_of(base: Setting, system: str, epochs: int) -> Setting:
    """Take a setting for a system: one interest for those that have no more."""
    interests = base.config.interests if system == "mind" else 1
    return replace(base, config=replace(base.config, interests=interests), options=replace(base.options, epochs=epochs))


EPOCHS = {
    "ml100k": {"mind": 8, "mind_one": 8, "two_tower": 6},
    "ml100k_last_day": {"mind": 8, "mind_one": 8, "two_tower": 6},
    "complete_journey": {"mind": 4, "mind_one": 4, "two_tower": 4},
    "online_retail": {"mind": 3, "mind_one": 4, "two_tower": 4},
}
BASES = {"ml100k": FILMS, "ml100k_last_day": FILMS, "complete_journey": GROCER, "online_retail": SHOP}
FOUND: dict[str, dict[str, dict[str, Any]]] = {  # where a system was better off with another setting than MIND
    "ml100k": {"mind_one": {"popular_days": 7}, "two_tower": {"popular_from": "asked"}},
    "ml100k_last_day": {"mind_one": {"popular_days": 7}, "two_tower": {"popular_from": "asked"}},
}
RETRIEVAL = {
    data: {
        system: replace(setting_of(BASES[data], system, epochs), **FOUND.get(data, {}).get(system, {}))
        for system, epochs in systems.items()
    }
    for data, systems in EPOCHS.items()
}
LISTS = FitOptions(epochs=6, batch=32, learning_rate=0.001, targets=5, ratio=4)
FEW_LISTS = replace(LISTS, epochs=20, batch=16)  # MovieLens has 117 of them
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
RECHUB = {
    "ml100k": RechubSetting(),
    "ml100k_last_day": RechubSetting(),
    "complete_journey": RechubSetting(epochs=3, last_days=GROCER.last_days),  # a minute each
    "online_retail": RechubSetting(),
}
