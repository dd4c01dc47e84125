"""BST: a transformer scores candidates beside a user's history (arXiv 1905.06874, as in DESIGN §6)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, cast

import torch
from torch import Tensor, nn

from artifacts.bundle import FeatureSpec
from artifacts.errors import UsageError
from features.vocabulary import PADDING, Vocabulary
from models.attention import add_key, attend, join_heads, split_heads
from models.embedding import look_up, make_table, make_tables, seeded

_RETRIEVAL = "retrieval_score"
# Of embeddings at the start: Adagrad hardly moves larger ones, and rare items stay the noise they began as. And of what
# the blocks pass on: a norm would make it thirty times as large as the embeddings beside it, most of it noise.
_DEVIATION = 0.03


@dataclass(frozen=True, slots=True)
class BstConfig:
    """What a BST is made of; every field enters its checkpoint.

    Attributes:
        width: d, of a behaviour: the embeddings of its item's features and of its gap bucket, side by side.
        gap_width: What of d the gap bucket gets. Of the rest, item features other than ``item_id`` get half in equal
            parts, rounded down, and ``item_id`` gets all that is left; see :func:`feature_widths`.
        heads: Heads of the attention; they divide d.
        blocks: Transformer blocks. One does a user's own work once for all candidates; more go pair by pair.
        output: Whether the candidate's own row of the last block is passed on, or ``"all"`` rows, padded ones zeroed.
        ffn_width: Of the hidden layer of a block's feed-forward part.
        profile_width: Of the embedding of each profile feature.
        mlp: Widths of the LeakyReLU layers between the blocks and the logit.
        dropout: Share that training drops from the output of attention and of the feed-forward part.
        residual: Whether the logit starts from a sum of the cross features, with weights that are learnt, and the
            layers add to it: the wide part of wide and deep (arXiv 1606.07792). Before training it is the retrieval
            score alone, and an untrained ranker leaves the order of retrieval as it is.
        seed: Of the start weights.
    """

    width: int = 64
    gap_width: int = 8
    heads: int = 8
    blocks: int = 1
    output: Literal["target", "all"] = "target"
    ffn_width: int = 256
    profile_width: int = 16
    mlp: tuple[int, ...] = (1024, 512, 256)
    dropout: float = 0.2
    residual: bool = True
    seed: int = 1

    def __post_init__(self) -> None:
        """Refuse what cannot be built.

        Raises:
            UsageError: Naming the field, what was expected and what was found.
        """
        for name in ("width", "gap_width", "heads", "blocks", "ffn_width", "profile_width"):
            if not getattr(self, name) > 0:
                raise UsageError(f"bst.{name}: expected more than 0, found {getattr(self, name)}")
        if self.width % self.heads:
            raise UsageError(f"bst.heads: expected a divisor of width {self.width}, found {self.heads}")
        if self.output not in {"target", "all"}:
            raise UsageError(f'bst.output: expected "target" or "all", found "{self.output}"')
        if not self.mlp or not all(width > 0 for width in self.mlp):
            raise UsageError(f"bst.mlp: expected at least one width, all above 0, found {self.mlp}")
        if not 0 <= self.dropout < 1:
            raise UsageError(f"bst.dropout: expected a share from 0 to below 1, found {self.dropout}")


def feature_widths(config: BstConfig, features: int) -> list[int]:
    """Share ``width - gap_width`` among an item's features, ``item_id`` first: half for it, half for the others.

    The others get equal parts, rounded down; what that leaves goes to ``item_id``.

    Raises:
        UsageError: If a feature would get nothing.
    """
    rest = config.width - config.gap_width
    other = rest // 2 // (features - 1) if features > 1 else 0
    widths = [rest - other * (features - 1)] + [other] * (features - 1)
    if min(widths) < 1:
        raise UsageError(
            f"bst.width: expected room for {features} item features beside gap_width {config.gap_width}, "
            f"found {config.width}; every feature needs at least 1"
        )
    return widths


class Block(nn.Module):
    """A transformer block, post-norm: ``S' = LayerNorm(E + MultiHead(E))``, ``F = LayerNorm(S' + FFN(S'))``."""

    def __init__(self, config: BstConfig) -> None:
        """Draw start weights from torch's generator as it is; :class:`Bst` seeds it."""
        super().__init__()
        d = config.width
        self.heads = config.heads
        self.query, self.key, self.value, self.out = (nn.Linear(d, d, bias=False) for _ in range(4))
        with torch.no_grad():
            # Equal items attend to each other from the first step on, since q . k is then a square. With two
            # unrelated maps it is noise of either sign, and the embeddings would have to be learnt around it.
            self.key.weight.copy_(self.query.weight)
        self.attended, self.fed = nn.LayerNorm(d), nn.LayerNorm(d)
        self.dropout = nn.Dropout(config.dropout)
        self.feed = nn.Sequential(nn.Linear(d, config.ffn_width), nn.LeakyReLU(), nn.Linear(config.ffn_width, d))

    def project(self, e: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Give queries, keys and values [..., heads, N, d / heads] of rows e [..., N, d]."""
        query, key, value = (split_heads(layer(e), self.heads) for layer in (self.query, self.key, self.value))
        return query, key, value

    def finish(self, e: Tensor, mixed: Tensor) -> Tensor:
        """Go from rows e [..., d] and their mixed values, heads joined [..., d], to rows of F [..., d]."""
        attended: Tensor = self.attended(e + self.dropout(self.out(mixed)))
        fed: Tensor = self.fed(attended + self.dropout(self.feed(attended)))
        return fed

    def forward(self, e: Tensor, real: Tensor, first: int) -> Tensor:
        """Give the rows of F from row *first* on, for sequences e [..., N, d] of which *real* [..., N] take part."""
        query, key, value = self.project(e)
        mixed, _ = attend(query[..., first:, :], key, value, real[..., None, None, :])
        return self.finish(e[..., first:, :], join_heads(mixed))


class Head(nn.Module):
    """What lies between the blocks and the logit: ``concat(profile, candidate, cross, F)``, LeakyReLU layers, a sum."""

    def __init__(self, config: BstConfig, *, per_user: int, per_pair: int, cross: Sequence[str]) -> None:
        """Draw start weights from torch's generator as it is; :class:`Bst` seeds it.

        Args:
            config: Of the network.
            per_user: Width of what is known of a user alone, the profile.
            per_pair: Width of what is known of a user and a candidate, but for cross features.
            cross: Names of the cross features.
        """
        super().__init__()
        # One layer in two parts, so that the user's is computed once, whatever the number of candidates.
        per_pair += len(cross)
        whole = nn.Linear(per_user + per_pair, config.mlp[0])
        self.first_user = nn.Linear(per_user, config.mlp[0], bias=False) if per_user else None
        self.first = nn.Linear(per_pair, config.mlp[0])
        with torch.no_grad():
            self.first.weight.copy_(whole.weight[:, per_user:])
            self.first.bias.copy_(whole.bias)
            if self.first_user is not None:
                self.first_user.weight.copy_(whole.weight[:, :per_user])
        deeper = [nn.Sequential(nn.Linear(a, b), nn.LeakyReLU()) for a, b in pairwise(config.mlp)]
        self.deeper = nn.Sequential(nn.LeakyReLU(), *deeper)
        self.last = nn.Linear(config.mlp[-1], 1)
        self.wide = None
        if config.residual and cross:
            self.wide = nn.Parameter(torch.tensor([float(name == _RETRIEVAL) for name in cross]))
            nn.init.zeros_(self.last.weight)  # the logit starts from the cross features and nothing else
            nn.init.zeros_(self.last.bias)

    def forward(self, profile: Sequence[Tensor], x_c: Tensor, cross: Sequence[Tensor], f: Tensor) -> Tensor:
        """Give logits [users, C].

        Args:
            profile: The embeddings [users, ...] of the profile features, if any.
            x_c: The candidates [users, C, d].
            cross: The cross features [users, C, f], if any.
            f: What the blocks pass on, [users, C, ...].
        """
        hidden: Tensor = self.first(torch.cat([x_c, *cross, f], dim=-1))
        if self.first_user is not None:
            hidden = hidden + self.first_user(torch.cat(list(profile), dim=-1)).unsqueeze(1)
        logit: Tensor = self.last(self.deeper(hidden)).squeeze(-1)
        return logit if self.wide is None else logit + (cross[0] * self.wide).sum(dim=-1)


class Bst(nn.Module):
    """The network, which is also what the ranker bundle computes.

    Inputs are vocabulary rows, int32 or int64 (``cross`` is float32); histories come newest first, padded with row 0
    to L. Nothing is causal, and the gap bucket is all that the network is told about order.
    """

    gap_zero: Tensor  # [] the bucket of a candidate, whose gap is 0

    def __init__(self, config: BstConfig, spec: FeatureSpec, vocabularies: Mapping[str, Vocabulary]) -> None:
        """Build with start weights drawn from ``config.seed`` alone.

        Raises:
            UsageError: If a feature of *spec* has no vocabulary, or the width has no room for the item features.
        """
        super().__init__()
        self.config, self.spec = config, spec
        self.deviation = _DEVIATION  # of a row of a table at the start
        profiles, cross = spec.profile_features, spec.cross_features
        rows = 1 if config.output == "target" else spec.history_length + 1
        widths = feature_widths(config, len(spec.item_features))
        with seeded(config.seed):
            self.item_tables = make_tables(vocabularies, spec.item_features, widths, deviation=_DEVIATION)
            self.gap_table = make_table(len(spec.gap_edges) + 2, config.gap_width, deviation=_DEVIATION)
            self.profile_tables = make_tables(
                vocabularies, profiles, [config.profile_width] * len(profiles), deviation=_DEVIATION
            )
            self.blocks = nn.ModuleList(Block(config) for _ in range(config.blocks))
            nn.init.constant_(cast("Block", self.blocks[-1]).fed.weight, _DEVIATION)
            self.head = Head(
                config,
                per_user=config.profile_width * len(profiles),
                per_pair=config.width + config.width * rows,
                cross=cross,
            )
        gap_zero = torch.tensor(1 + sum(edge <= 0 for edge in spec.gap_edges))
        self.register_buffer("gap_zero", gap_zero, persistent=False)

    def embed(self, rows: Sequence[Tensor], gap: Tensor) -> Tensor:
        """Put an item's features and its gap bucket side by side: rows [...] of each, buckets [...] -> x [..., d]."""
        return torch.cat([*look_up(self.item_tables, rows), self.gap_table(gap)], dim=-1)

    def logits(self, *inputs: Tensor, slow: bool = False) -> Tensor:
        """Score candidates before the sigmoid.

        Args:
            *inputs: In the order of ``input_names(Role.RANKER, spec)``: rows [users, L] of each item feature of the
                history, gap buckets [users, L], rows [users] of each profile feature, rows [users, C] of each item
                feature of the candidates, and cross features [users, C, f] where the spec has any.
            slow: Whether to go pair by pair even where one block allows the shared form.

        Returns:
            [users, C] float32.
        """
        items, profiles = len(self.spec.item_features), len(self.spec.profile_features)
        history, gap, rest = inputs[:items], inputs[items], inputs[items + 1 :]
        profile, candidate, cross = rest[:profiles], rest[profiles : profiles + items], rest[profiles + items :]
        real = history[0] != PADDING
        x = torch.where(real.unsqueeze(-1), self.embed(history, gap), 0.0)
        x_c = self.embed(candidate, self.gap_zero.expand(candidate[0].shape))
        shared = len(self.blocks) == 1 and not slow
        f = self.shared_rows(x, real, x_c) if shared else self.pairwise_rows(x, real, x_c)
        logits: Tensor = self.head(look_up(self.profile_tables, profile), x_c, cross, f)
        return logits

    def shared_rows(self, x: Tensor, real: Tensor, x_c: Tensor) -> Tensor:
        """Run the only block with a user's own work done once; the same as :meth:`pairwise_rows`, and exact.

        A row's attention over history and candidate follows from its attention over the history alone, mixed value o
        and log-sum-exp l, as ``o + sigmoid(s - l) (v_c - o)`` with s its logit for the candidate.

        Args:
            x: The history [users, L, d], zero where padded.
            real: Which behaviours are no padding, [users, L].
            x_c: The candidates [users, C, d].

        Returns:
            Of each candidate the row [users, C, d], or all rows side by side [users, C, (L + 1) d], its own last.
        """
        block = cast("Block", self.blocks[0])
        (query, key, value), (query_c, key_c, value_c) = (
            block.project(x),
            block.project(x_c),
        )  # [users, heads, L | C, w]
        keys = real[:, None, None, :]
        mixed, log_total = attend(query_c, key, value, keys)
        own = (query_c * key_c).sum(dim=-1, keepdim=True) * key_c.shape[-1] ** -0.5
        row_c = block.finish(x_c, join_heads(add_key(mixed, log_total, own, value_c)))
        if self.config.output == "target":
            return row_c
        mixed, log_total = (
            part.unsqueeze(2) for part in attend(query, key, value, keys)
        )  # [users, heads, 1, L, w | 1]
        logit = (key_c @ query.transpose(-1, -2) * key_c.shape[-1] ** -0.5).unsqueeze(-1)  # [users, heads, C, L, 1]
        rows = add_key(mixed, log_total, logit, value_c.unsqueeze(3)).permute(0, 2, 3, 1, 4).flatten(-2)
        return self._all_rows(block.finish(x.unsqueeze(1), rows), row_c.unsqueeze(2), real)

    def pairwise_rows(self, x: Tensor, real: Tensor, x_c: Tensor) -> Tensor:
        """Run every block on each pair's own sequence, history and candidate; arguments as in :meth:`shared_rows`."""
        history = x.unsqueeze(1).expand(-1, x_c.shape[1], -1, -1)
        e = torch.cat([history, x_c.unsqueeze(2)], dim=2)
        present = torch.cat([real, torch.ones_like(real[:, :1])], dim=1).unsqueeze(1)
        for block in self.blocks[:-1]:
            e = block(e, present, 0)
        own_only = self.config.output == "target"
        f: Tensor = self.blocks[-1](e, present, x.shape[1] if own_only else 0)
        return f.squeeze(2) if own_only else self._all_rows(f[:, :, :-1], f[:, :, -1:], real)

    def _all_rows(self, rows: Tensor, row_c: Tensor, real: Tensor) -> Tensor:
        """Zero the padded of rows [users, C, L, d] and put all beside the candidate's own [users, C, 1, d]."""
        return torch.cat([torch.where(real[:, None, :, None], rows, 0.0), row_c], dim=2).flatten(-2)

    def forward(self, *inputs: Tensor) -> Tensor:
        """Give probabilities [users, C] float32; inputs as in :meth:`logits`.

        ``torch.export`` names a starred argument as one: ``dynamic_shapes={"inputs": (shape of the first, ...)}``;
        the graph's own input names come from ``input_names``.
        """
        return torch.sigmoid(self.logits(*inputs))
