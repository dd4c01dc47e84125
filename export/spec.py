"""What a team says of its own models: one TOML file of a few lines, from which sources are made."""

import inspect
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from artifacts.bundle import FeatureSpec, Role, input_names
from artifacts.errors import UsageError
from artifacts.fields import WORD, listing, mapping, only, text, whole
from export.finished import FinishedFile
from export.rows import Rows, read_rows
from export.source import Source, called
from export.wired import Wired

_LISTS = ("item_features", "profile_features", "gap_edges", "cross_features")
_SWITCHES = ("dynamic_length", "oldest_first", "pairwise")
_KEYS = (*map(str, Role), *_LISTS, "history_length", "trained_through", "similarity", *_SWITCHES)
_TABLES = ("vocabularies", "inputs")


@dataclass(frozen=True, slots=True, eq=False)
class _Network:
    """A network of any kind, and the names of its own inputs, in order; none where they have no names."""

    kind: str
    module: torch.nn.Module
    inputs: tuple[str, ...] = ()


def sources_from_spec(path: Path) -> list[Source]:
    """Make a source of each network that the TOML file *path* names; docs/bring-your-own.md explains every key.

    Raises:
        UsageError: If the file says what no model can be; the message names the file and the key.
        InputError: If a vocabulary cannot be read.
    """
    try:
        said = tomllib.loads(path.read_text("utf-8"))
        only(said, *_KEYS, *_TABLES)
        spec = _spec(said)
        vocabularies = mapping(said, "vocabularies") if "vocabularies" in said else {}
        rows = {name: _rows(name, vocabularies, path.parent) for name in spec.features}
        roles = [role for role in Role if role in said]
        if not roles:
            raise ValueError(f"expected a network for one of {', '.join(Role)}, found none")
        return [_source(role, said, spec, rows, path.parent) for role in roles]
    except OSError as error:
        raise UsageError(f"{path}: expected a TOML file that describes a model ({error.strerror})") from error
    except ValueError as error:  # tomllib's and ours
        raise UsageError(f"{path}: {error}") from error


def _spec(said: Mapping[str, Any]) -> FeatureSpec:
    lists: dict[str, Any] = {key: tuple(listing(said, key)) for key in _LISTS if key in said}
    items = lists.get("item_features", ())
    if items[:1] != ("item_id",):
        raise ValueError(f"item_features: expected item_id first, found {', '.join(map(str, items)) or 'nothing'}")
    if "history_length" in said:
        lists["history_length"] = whole(said, "history_length", least=1)
    return FeatureSpec(**lists)


def _rows(name: str, vocabularies: Mapping[str, Any], folder: Path) -> Rows:
    if name not in vocabularies:
        raise ValueError(f"vocabularies: expected a file for every feature, found none for {name}")
    try:
        return read_rows(name, vocabularies[name], folder)
    except ValueError as error:
        raise ValueError(f"vocabularies, {name}: {error}") from error


def _source(role: Role, said: Mapping[str, Any], spec: FeatureSpec, rows: Mapping[str, Rows], folder: Path) -> Source:
    target = text(said, role)
    network = _network(target, folder)
    names = mapping(mapping(said, "inputs"), role) if role in said.get("inputs", {}) else {}
    taken = _taken(role, spec, network.inputs, names)
    pairwise = role is Role.RANKER and _switch(said, "pairwise")
    if pairwise and isinstance(network.module, FinishedFile):
        raise ValueError(
            f"pairwise: {target} takes one pair in each row, expected scores [users, candidates] of a file"
        )
    return Source(
        role=role,
        module=Wired(
            network.module,
            role,
            spec,
            rows,
            taken=taken,
            pairwise=pairwise,
            oldest_first=_switch(said, "oldest_first"),
        ),
        spec=spec,
        vocabularies={name: one.vocabulary for name, one in rows.items()},
        trained_through=text(said, "trained_through", WORD) if "trained_through" in said else "",
        dynamic_length=_switch(said, "dynamic_length"),
        similarity=text(said, "similarity") if "similarity" in said else "inner_product",
        about={"kind": network.kind},
    )


def _switch(said: Mapping[str, Any], key: str) -> bool:
    value: object = said.get(key, False)
    if value not in {True, False}:
        raise ValueError(f"{key}: expected true or false, found {value!r}")
    return value is True


def _taken(role: Role, spec: FeatureSpec, inputs: Sequence[str], names: Mapping[str, Any]) -> tuple[str, ...]:
    """Name the contract's input for each of the network's own, in its order."""
    ours = input_names(role, spec)
    if not inputs or not (names or set(inputs) <= set(ours)):  # by place
        if inputs and len(inputs) != len(ours):
            raise ValueError(
                f"{role}: expected the inputs {', '.join(ours)}, found {', '.join(inputs)}; "
                f"say in a table [inputs.{role}] which is which"
            )
        return ours
    if strange := sorted(names.keys() - set(inputs)):
        raise ValueError(f"inputs.{role}: expected names out of {', '.join(inputs)}, found {strange[0]}")
    taken = tuple(names.get(name, name) for name in inputs)
    if wrong := [f"{name} = {one!r}" for name, one in zip(inputs, taken, strict=True) if one not in ours]:
        raise ValueError(f"inputs.{role}: expected one of {', '.join(ours)}, found {wrong[0]}")
    return taken


def _network(target: str, folder: Path) -> _Network:
    """Load a network: FILE.onnx, FILE.keras, or package.module:function."""
    if target.endswith(".onnx"):
        file = FinishedFile(folder / target)
        return _Network("onnx", file, tuple(value.name for value in file.inputs))
    if target.endswith(".keras"):
        from export.functional import load_functional

        model = load_functional(folder / target)
        return _Network("keras", model, model.inputs)
    made = called(target, folder)
    if not isinstance(made, torch.nn.Module):
        raise UsageError(f"{target}: expected it to return a torch module, found a {type(made).__name__}")
    parameters = inspect.signature(made.forward).parameters.values()
    named = all(one.kind is one.POSITIONAL_OR_KEYWORD for one in parameters)
    return _Network("torch", made, tuple(one.name for one in parameters) if named else ())
