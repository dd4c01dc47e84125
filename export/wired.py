"""A network that knows nothing of the contract, behind the contract's names: our rows become its own."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from artifacts.bundle import FeatureSpec, Role, feature_of, input_names
from export.rows import Rows


class Wired(torch.nn.Module):
    """Takes the inputs of a role in the contract's order, and gives the role's outputs.

    Of the network *inside* these are taken for a result: an item's vector [items, d]; a user's one vector [users, d],
    or interests [users, K, d], all of them active unless their count comes second; scores [users, candidates], or one
    for each pair where it is *pairwise*.

    Attributes:
        role: What it computes.
        inside: The network: ``inside(*inputs)`` with int64 ids and buckets, float32 cross features.
        names: The contract's inputs, in order.
        taken: Those of them that the network takes, in the order of its own.
        tables: By feature, the network's row for each of ours; a feature whose rows are ours is not in it.
        pairwise: Whether a ranker takes one user and one candidate in each row.
        oldest_first: Whether its histories begin with padding and the oldest behaviour; ours with the newest one.
    """

    def __init__(
        self,
        inside: torch.nn.Module,
        role: Role,
        spec: FeatureSpec,
        rows: Mapping[str, Rows],
        *,
        taken: Sequence[str],
        pairwise: bool = False,
        oldest_first: bool = False,
    ) -> None:
        """Keep *inside*; *rows* are by feature, for every feature of *spec*."""
        super().__init__()
        self.inside = inside
        self.role = role
        self.names = input_names(role, spec)
        self.taken = tuple(taken)
        self.pairwise = pairwise
        self.oldest_first = oldest_first
        self.tables = {name: torch.from_numpy(one.theirs) for name, one in rows.items() if not one.alike}
        for name, table in self.tables.items():  # so that they are part of the state, and of a graph
            self.register_buffer(f"rows of {name}".replace(".", "_"), table)

    def table_of(self, name: str) -> Tensor | None:
        """The network's row for each of ours, for an input that holds rows; None if they are ours, or it holds none."""
        feature = feature_of(self.role, name)
        return None if feature is None else self.tables.get(feature)

    def turned(self, name: str) -> bool:
        """Whether an input is a list of behaviours that the network has in the other order."""
        return self.oldest_first and self.role is not Role.ITEM and (name == "gap" or name.startswith("history_"))

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Run the network on *inputs*, in the order of ``names``."""
        given = dict(zip(self.names, inputs, strict=True))
        theirs = [self._theirs(name, given[name]) for name in self.taken]
        if not self.pairwise:
            return self._outputs(self.inside(*theirs))
        users, candidates = given["candidate_item_id"].shape
        pairs = [_pairs(name, value, candidates) for name, value in zip(self.taken, theirs, strict=True)]
        scores: Tensor = self.inside(*pairs).reshape(users, candidates)
        return scores

    def _theirs(self, name: str, value: Tensor) -> Tensor:
        if value.is_floating_point():
            return value
        table = self.table_of(name)
        rows = value.long() if table is None else table[value.long()]
        return rows.flip(1) if self.turned(name) else rows

    def _outputs(self, result: Tensor | tuple[Tensor, Tensor]) -> Tensor | tuple[Tensor, Tensor]:
        if self.role is not Role.USER:
            return result
        interests, *count = (result,) if isinstance(result, Tensor) else result
        if interests.ndim == 2:
            interests = interests.unsqueeze(1)
        users, most = interests.shape[:2]
        return interests, count[0] if count else torch.full((users,), most, dtype=torch.int32)


def _pairs(name: str, value: Tensor, candidates: int) -> Tensor:
    """Give a user's and a candidate's values a row for each pair."""
    if name.startswith("candidate_") or name == "cross":
        return value.flatten(0, 1)
    return value.unsqueeze(1).expand(-1, candidates, *value.shape[1:]).flatten(0, 1)
