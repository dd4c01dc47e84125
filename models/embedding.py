"""Embedding tables: one row per vocabulary row, the padding row zero, equal starts for equal seeds."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from artifacts.errors import UsageError
from features.vocabulary import PADDING, Vocabulary


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw start weights from *seed*, and leave torch's own generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def make_tables(
    vocabularies: Mapping[str, Vocabulary], names: Sequence[str], widths: Sequence[int], *, deviation: float
) -> nn.ModuleList:
    """Make one table per feature, in the order of *names*; entries start Gaussian with standard *deviation*.

    A list rather than a dict: a feature may have any name, and torch forbids some as keys.

    Raises:
        UsageError: If a feature has no vocabulary.
    """
    if missing := [name for name in names if name not in vocabularies]:
        raise UsageError(f"feature {missing[0]}: expected a vocabulary, found only those of {sorted(vocabularies)}")
    return nn.ModuleList(
        make_table(vocabularies[name].size, width, deviation=deviation)
        for name, width in zip(names, widths, strict=True)
    )


def make_table(rows: int, width: int, *, deviation: float) -> nn.Embedding:
    """Make a table [rows, width] whose padding row is zero and stays so in training."""
    table = nn.Embedding(rows, width, padding_idx=PADDING)
    with torch.no_grad():
        table.weight.normal_(std=deviation)
        table.weight[PADDING] = 0
    return table


def look_up(tables: nn.ModuleList, rows: Sequence[Tensor]) -> list[Tensor]:
    """Look up each feature's rows [...] in its own table: a vector [..., width] per feature."""
    return [table(row) for table, row in zip(tables, rows, strict=True)]
