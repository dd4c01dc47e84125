"""What of BST is worth how much: one change at a time, and the same lists to learn from and to order."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from benchmarks.quality import ranking
from benchmarks.quality.lines import Lines
from benchmarks.quality.ranking import CROSS, Lists, RankSetting


def built(**changed: Any) -> Callable[[RankSetting], RankSetting]:
    """Change what the network is made of."""
    return lambda setting: replace(setting, config=replace(setting.config, **changed))


def told(**changed: Any) -> Callable[[RankSetting], RankSetting]:
    """Change what the network is told."""
    return lambda setting: replace(setting, **changed)


CHANGES: dict[str, Callable[[RankSetting], RankSetting]] = {
    "BST as above": lambda setting: setting,
    "2 blocks": built(blocks=2),
    "3 blocks": built(blocks=3),
    "all rows to the head": built(output="all"),
    "no time gaps": told(gaps=False),
    "no cross features but the retrieval score": told(cross=CROSS[:1]),
    "not from the cross features": built(residual=False),
}
LENGTH = 20  # of the history, as in the paper: more blocks and all rows go pair by pair, and would take hours with 100


def short(lists: Lists, length: int = LENGTH) -> Lists:
    """Let rankers be told the newest *length* behaviours only."""
    return replace(lists, part=replace(lists.part, spec=replace(lists.part.spec, history_length=length)))


def measured(
    train: Lists, asked: Lists, setting: RankSetting, lines: Lines, *, seed: int
) -> dict[str, dict[str, float]]:
    """Fit every change to *train*, and measure its order of *asked*."""
    train, asked, rows = short(train), short(asked.with_a_truth()), {}
    for name, change in CHANGES.items():
        changed = change(setting)
        network = ranking.fit(train, "bst", changed, seed=seed)
        rows[name] = ranking.quality(ranking.order(asked, network, changed), asked)
        lines.tell(name, rows[name])
    return rows
