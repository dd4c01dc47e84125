"""What BST is compared with: wide and deep, without the history or with its mean, and DIN; with BST's own head."""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from artifacts.bundle import FeatureSpec
from features.vocabulary import PADDING, Vocabulary
from models.bst import BstConfig, Head, feature_widths
from models.embedding import look_up, make_table, make_tables, seeded

_DEVIATION = 0.03  # of embeddings at the start, as BST's


class Pooled(nn.Module):
    """A ranker that makes one vector of the history, in place of BST's blocks.

    ``nothing`` leaves the history out: wide and deep (arXiv 1606.07792), whose wide part, linear in the cross features,
    BST's head has too. ``mean`` is the same with the mean of the history beside the candidate. ``attention`` is DIN's
    (arXiv 1706.06978, section 4.3): the history's sum, each behaviour weighted by a small network that sees it, the
    candidate and their product; the weights are not normalised.
    """

    def __init__(
        self,
        pool: Literal["nothing", "mean", "attention"],
        config: BstConfig,
        spec: FeatureSpec,
        vocabularies: Mapping[str, Vocabulary],
    ) -> None:
        """Build with start weights drawn from ``config.seed``; of the config, the blocks' fields are not used."""
        super().__init__()
        self.pool, self.config, self.spec = pool, config, spec
        profiles, cross = spec.profile_features, spec.cross_features
        with seeded(config.seed):
            widths = feature_widths(config, len(spec.item_features))
            self.item_tables = make_tables(vocabularies, spec.item_features, widths, deviation=_DEVIATION)
            self.gap_table = make_table(len(spec.gap_edges) + 2, config.gap_width, deviation=_DEVIATION)
            self.profile_tables = make_tables(
                vocabularies, profiles, [config.profile_width] * len(profiles), deviation=_DEVIATION
            )
            if pool == "attention":
                self.weigh = nn.Sequential(nn.Linear(3 * config.width, 36), nn.PReLU(), nn.Linear(36, 1))
            self.head = Head(
                config,
                per_user=config.profile_width * len(profiles),
                per_pair=config.width * (1 if pool == "nothing" else 2),
                cross=cross,
            )

    def logits(self, *inputs: Tensor) -> Tensor:
        """Score candidates [users, C] before the sigmoid; inputs as of ``input_names(Role.RANKER, spec)``."""
        items, profiles = len(self.spec.item_features), len(self.spec.profile_features)
        history, gap, rest = inputs[:items], inputs[items], inputs[items + 1 :]
        profile, candidate, cross = rest[:profiles], rest[profiles : profiles + items], rest[profiles + items :]
        real = history[0] != PADDING
        x = torch.cat([*look_up(self.item_tables, history), self.gap_table(gap)], dim=-1)
        now = self.gap_table(torch.ones_like(candidate[0]))
        x_c = torch.cat([*look_up(self.item_tables, candidate), now], dim=-1)
        pooled = self.pooled(x, real, x_c)
        logits: Tensor = self.head(look_up(self.profile_tables, profile), x_c, cross, pooled)
        return logits

    def pooled(self, x: Tensor, real: Tensor, x_c: Tensor) -> Tensor:
        """Make a vector [users, C, d or 0] of each history x [users, L, d] for each candidate x_c [users, C, d]."""
        if self.pool == "nothing":
            return x_c[..., :0]
        if self.pool == "mean":
            weights = real.float() / real.sum(dim=1, keepdim=True).clamp_min(1)
            return (weights.unsqueeze(1) @ x).expand(-1, x_c.shape[1], -1)
        first, bend, last = self.weigh
        behaviour, now, both = first.weight.chunk(3, dim=1)  # of [behaviour, candidate, their product]
        products = (both * x_c.unsqueeze(2)).flatten(1, 2)  # [users, C * 36, d]: the product itself is never made
        seen = (x @ products.transpose(1, 2)).unflatten(2, (x_c.shape[1], -1))  # [users, L, C, 36]
        seen = seen + (x @ behaviour.T).unsqueeze(2) + (x_c @ now.T + first.bias).unsqueeze(1)
        weights = torch.where(real.unsqueeze(2), last(bend(seen)).squeeze(-1), 0.0).transpose(1, 2)
        return weights @ x

    def forward(self, *inputs: Tensor) -> Tensor:
        """Give probabilities [users, C]."""
        return torch.sigmoid(self.logits(*inputs))
