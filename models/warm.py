"""The warm start: a network begins with the weights of an earlier one, and with rows for the ids that are new."""

from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from artifacts.errors import UsageError
from features.hashing import id_hash
from features.vocabulary import FIRST, UNKNOWN, Vocabulary
from models.bst import Bst
from models.checkpoint import Checkpoint
from models.mind import Mind

Floats = npt.NDArray[np.float32]


def start_warm(module: Mind | Bst, start: Checkpoint, vocabularies: dict[str, Vocabulary]) -> None:
    """Give *module* the weights of *start*.

    A row of a table goes with its id, wherever the vocabulary has it now; ids that are gone take theirs with them, and
    new ones get a row drawn from the seed (:func:`fresh_rows`). MIND's start logits follow from raw ids, and stay.

    Raises:
        UsageError: If spec, config, names of weights or the type of an id differ; the message names the first.
    """
    require_same(module, start)
    spec = module.spec
    tables = {f"item_tables.{place}.weight": name for place, name in enumerate(spec.item_features)}
    tables |= {f"profile_tables.{place}.weight": name for place, name in enumerate(spec.profile_features)}
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            values = start.weights[name]
            if name in tables:
                before, after = start.vocabularies[tables[name]], vocabularies[tables[name]]
                values = grown(values, before, after, seed=module.config.seed, deviation=module.deviation)
            parameter.copy_(torch.from_numpy(values))


def grown(table: Floats, before: Vocabulary, after: Vocabulary, *, seed: int, deviation: float) -> Floats:
    """Give the rows of *table*, which are those of *before*, as *after* numbers them; rows 0 and 1 stay.

    Raises:
        UsageError: If the ids are of another type.
    """
    if before.values.type != after.values.type:
        raise UsageError(
            f"warm start: {after.name} is {before.values.type} in the checkpoint, but {after.values.type} here; "
            "cast the column, or fit anew"
        )
    rows = before.encode(after.values)
    new = rows == UNKNOWN
    known: Floats = table[rows]
    known[new] = fresh_rows(after.name, after.values.filter(pa.array(new)), table.shape[1], seed) * deviation
    return np.concatenate([table[:FIRST], known])


def fresh_rows(feature: str, ids: pa.Array, width: int, seed: int) -> Floats:
    """Draw a standard normal row for each of *ids*, [n, width]: from the seed, the feature's name and the id alone."""
    (named,) = id_hash(pa.array([feature])).tolist()
    drawn = [np.random.default_rng([seed, named, one]).standard_normal(width) for one in id_hash(ids).tolist()]
    return np.array(drawn, np.float32).reshape(len(ids), width)


def require_same(module: Mind | Bst, start: Checkpoint) -> None:
    """Refuse a checkpoint whose weights mean something else.

    Raises:
        UsageError: If the kind, the spec, the config or the names of the weights differ.
    """
    kind = "mind" if isinstance(module, Mind) else "bst"
    told: dict[str, tuple[Any, Any]] = {"kind": (start.kind, kind)}
    if start.kind == kind:
        both = ((start.spec, module.spec), (start.config, module.config))
        told |= {name: (value, asdict(now)[name]) for before, now in both for name, value in asdict(before).items()}
    for name, (before, now) in told.items():
        if before != now:
            raise UsageError(
                f"warm start: {name} is {before} in the checkpoint, but {now} here; make them equal, or fit anew"
            )
    here = module.state_dict().keys()
    if other := min(here ^ start.weights.keys(), default=None):
        where = "in the network, but not in the checkpoint" if other in here else "in the checkpoint alone"
        raise UsageError(f"warm start: the weight {other} is {where}, which is of another version; fit anew")
