"""MIND's user tower as a night computes it: what does not depend on the user is worked out once, at export.

The same function as :class:`models.mind.UserTower`, at about half the cost. Three facts do it. The shared map S is
linear, and a behaviour is the average of its features' rows, so ``S e = sum of (S row) / features``: S and the average
go into the tables. A padded behaviour is a row of zeros there, which adds nothing to a sum, so it needs no mask. The
first layer of H is linear in the capsule and in each profile feature, so a profile feature's part goes into its table.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from features.vocabulary import PADDING
from models.attention import MASKED
from models.mind import Mind, unit

_PART = 65_536  # rows of a table that are mapped at once, in float64


class FoldedUserTower(nn.Module):
    """A trained MIND's user tower over tables of its own: ``forward`` takes and gives what ``UserTower`` does.

    What needs no folding is shared with the network; it is not trained.
    """

    start: Tensor  # [rows of item_id, K]
    thresholds: Tensor  # [K]
    capsule: Tensor  # [d, first width of H]
    bias: Tensor  # [first width of H]

    def __init__(self, mind: Mind) -> None:
        """Fold what *mind* has learnt; sums are in float64, tables in float32."""
        super().__init__()
        self.config, self.features = mind.config, len(mind.item_tables)
        width, known = mind.config.width, mind.config.profile_width
        weight, bias = (parameter.detach() for parameter in list(mind.head.parameters())[:2])
        shared = mind.shared.weight.detach().double() / self.features
        self.item_tables = nn.ParameterList(_mapped(rows, shared) for rows in mind.item_tables.parameters())
        for table in self.item_tables:
            table[PADDING] = 0.0
        self.profile_tables = nn.ParameterList(
            _mapped(rows, weight[:, start : start + known])
            for rows, start in zip(mind.profile_tables.parameters(), range(width, weight.shape[1], known), strict=True)
        )
        self.rest = nn.Sequential(nn.ReLU(), *list(mind.head)[1:]) if len(mind.head) > 1 else nn.Identity()
        for name, tensor in (("capsule", weight[:, :width].T.contiguous()), ("bias", bias), ("start", mind.start)):
            self.register_buffer(name, tensor)
        self.register_buffer("thresholds", mind.thresholds)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Give interests [users, K, d], count [users] int32 and weights [users, K, L]."""
        history, profile = inputs[: self.features], inputs[self.features :]
        real = history[0] != PADDING
        active = (real.sum(dim=-1, keepdim=True) >= self.thresholds).unsqueeze(-1)
        h, *others = map(functional.embedding, history, self.item_tables)
        for other in others:
            h = h + other
        logits = functional.embedding(history[0], self.start).transpose(1, 2)
        u, weights = _route(h, torch.where(active, logits, MASKED), self.config.rounds)
        known = self.bias
        for part in map(functional.embedding, profile, self.profile_tables):
            known = known + part.unsqueeze(1)
        v = self.rest(u @ self.capsule + known)
        if self.config.normalise:
            v = unit(v) / self.config.temperature
        # Products with 0 and 1: ONNX Runtime takes a quarter of the time of `where` for them.
        v, weights = v * active.to(v.dtype), weights * real.unsqueeze(1).to(v.dtype)
        return v, active.squeeze(-1).sum(dim=-1, dtype=torch.int32), weights


def _mapped(rows: Tensor, weight: Tensor) -> nn.Parameter:
    """Give the table whose rows are *weight* [out, in] times *rows* [..., in]."""
    mapped, transposed = torch.empty(len(rows), len(weight)), weight.double().T
    for start in range(0, len(rows), _PART):
        mapped[start : start + _PART] = rows.detach()[start : start + _PART].double() @ transposed
    return nn.Parameter(mapped, requires_grad=False)


def _route(h: Tensor, logits: Tensor, rounds: int) -> tuple[Tensor, Tensor]:
    """Route behaviours *h* [users, L, d], zero where padded, by logits [users, K, L], far below 0 where inactive.

    An inactive interest stays so without a mask: its weights are 0, so its capsule is, and its logits do not move.
    Capsules are needed in the last round alone; before it, their products with *h* are those of z, shortened.

    Returns:
        Capsules u [users, K, d], zero where inactive, and the weights of the last round [users, K, L].
    """
    for _ in range(rounds - 1):
        z = logits.softmax(dim=1) @ h
        logits = logits + z @ h.transpose(1, 2) * _shortening(z)
    weights = logits.softmax(dim=1)
    z = weights @ h
    return z * _shortening(z), weights


def _shortening(z: Tensor) -> Tensor:
    """By what :func:`models.mind.squash` multiplies vectors [..., d]: [..., 1]."""
    square = z.square().sum(dim=-1, keepdim=True)
    return (square + 1e-9).sqrt() / (1 + square)
