"""What the search changes of a data set's base, one thing at a time; what may matter most comes first."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from benchmarks.quality.learned import Setting
from benchmarks.quality.rechub import RechubSetting

BEGUN = "where the search began"


def fitted(setting: Setting, **changed: Any) -> Setting:
    """Change how a setting is fitted."""
    return replace(setting, options=replace(setting.options, **changed))


def built(setting: Setting, **changed: Any) -> Setting:
    """Change what a setting's network is made of."""
    return replace(setting, config=replace(setting.config, **changed))


LEVERS: dict[str, Callable[[Setting], Setting]] = {
    BEGUN: lambda setting: setting,
    "learning rate 0.01": lambda setting: fitted(setting, learning_rate=0.01),
    "learning rate 0.001": lambda setting: fitted(setting, learning_rate=0.001),
    "no half-life": lambda setting: fitted(setting, half_life_days=0.0),
    "popularity of 7 days": lambda setting: replace(setting, popular_days=7),
    "popularity of 30 days": lambda setting: replace(setting, popular_days=30),
    "popularity when asked alone": lambda setting: replace(setting, popular_from="asked"),
    "temperature 1/5": lambda setting: built(setting, temperature=0.2),
    "4 targets": lambda setting: fitted(setting, targets=4),
    "ids alone": lambda setting: replace(setting, features=False),
    "no popularity": lambda setting: replace(setting, popular_weight=0.0),
    "width 32": lambda setting: built(setting, width=32),
    "inner product": lambda setting: built(setting, normalise=False),
    "questions by day": lambda setting: replace(setting, asks="day"),
    "questions by event": lambda setting: replace(setting, asks="events"),
}
SIZES: dict[str, Callable[[Setting], Setting]] = {  # of MIND, beside those that LEVERS has
    "width 32": lambda setting: built(setting, width=32),
    "width 128": lambda setting: built(setting, width=128),
    "2 interests": lambda setting: built(setting, interests=2),
    "8 interests": lambda setting: built(setting, interests=8),
    "20 behaviours": lambda setting: replace(setting, behaviours=20),
    "50 behaviours": lambda setting: replace(setting, behaviours=50),
}
NEGATIVES: dict[str, Callable[[Setting], Setting]] = {  # where the catalogue is large and the loss draws from it
    "256 negatives": lambda setting: fitted(setting, draws=256),
    "4,096 negatives": lambda setting: fitted(setting, draws=4096),
}
RECHUB_LEVERS: dict[str, Callable[[RechubSetting], RechubSetting]] = {
    BEGUN: lambda setting: setting,
    "12 targets": lambda setting: replace(setting, targets=12),
    **{
        f"learning rate {rate}, {negatives} negatives": partial(replace, learning_rate=rate, negatives=negatives)
        for negatives in (80, 20, 5)
        for rate in (0.001, 0.003, 0.01, 0.0003)
    },
}
