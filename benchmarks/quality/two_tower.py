"""A two-tower model with one vector for a user: the mean of what they had, in MIND's place and trained like it."""

from collections.abc import Mapping
from itertools import pairwise

import torch
from torch import Tensor, nn

from artifacts.bundle import FeatureSpec
from features.vocabulary import PADDING, Vocabulary
from models.embedding import look_up, make_tables, seeded
from models.mind import MindConfig


class TwoTower(nn.Module):
    """The network; what :class:`models.trainers.MindTrainer` asks of MIND it answers with one interest.

    ``item = mean of the features' embeddings``; ``user = H(concat(mean of the history's items, profile))``, with the
    same tables for both and H as in MIND: ReLU layers, the last one linear.
    """

    def __init__(self, config: MindConfig, spec: FeatureSpec, vocabularies: Mapping[str, Vocabulary]) -> None:
        """Build with start weights drawn from ``config.seed``; of the config, what is routing's alone is not used."""
        super().__init__()
        self.config, self.spec = config, spec
        items, profiles = spec.item_features, spec.profile_features
        with seeded(config.seed):
            unit = config.width**-0.5
            self.item_tables = make_tables(vocabularies, items, [config.width] * len(items), deviation=unit)
            self.profile_tables = make_tables(
                vocabularies, profiles, [config.profile_width] * len(profiles), deviation=unit
            )
            widths = [config.width + config.profile_width * len(profiles), *config.hidden]
            hidden = [nn.Sequential(nn.Linear(a, b), nn.ReLU()) for a, b in pairwise(widths)]
            self.head = nn.Sequential(*hidden, nn.Linear(widths[-1], config.width))

    def item_vectors(self, *rows: Tensor) -> Tensor:
        """Rows [...] of each item feature -> vectors [..., d], of length 1 if the config normalises."""
        vectors = torch.stack(look_up(self.item_tables, rows)).mean(dim=0)
        return nn.functional.normalize(vectors, dim=-1) if self.config.normalise else vectors

    def interests(self, *inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Histories -> a vector each [users, 1, d], their count [users], and weights of behaviours [users, 1, L].

        Inputs are those of :meth:`models.mind.Mind.interests`.
        """
        features = len(self.spec.item_features)
        history, profile = inputs[:features], inputs[features:]
        real = (history[0] != PADDING).float()
        weights = real / real.sum(dim=1, keepdim=True).clamp_min(1)
        behaviours = torch.stack(look_up(self.item_tables, history)).mean(dim=0)
        mean = (weights.unsqueeze(1) @ behaviours).squeeze(1)
        user = self.head(torch.cat([mean, *look_up(self.profile_tables, profile)], dim=-1))
        if self.config.normalise:
            user = nn.functional.normalize(user, dim=-1) / self.config.temperature
        return user.unsqueeze(1), torch.ones(len(user), dtype=torch.int32), weights.unsqueeze(1)
