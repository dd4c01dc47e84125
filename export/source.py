"""A source: a trained network that becomes a bundle, where it comes from, and how it is run for comparison."""

import importlib
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from artifacts.bundle import OPTIONAL_OUTPUTS, OUTPUT_NAMES, FeatureSpec, Role, input_names
from artifacts.contract import CROSS_FEATURES, MOST_INTERESTS
from artifacts.errors import UsageError
from features.vocabulary import Vocabulary

SIMILARITIES = ("inner_product", "cosine")

Arrays = dict[str, NDArray[Any]]
Shape = tuple[int | str | None, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """A trained network with all that its bundle says of it.

    Attributes:
        role: What it computes.
        module: ``forward(*inputs)`` in the order of ``artifacts.bundle.input_names``, on the CPU, in fp32; it gives the
            role's outputs in order, optional ones last. It is put into evaluation mode before use.
        spec: What it is told.
        vocabularies: By feature, for every feature of *spec*.
        trained_through: The last day it was trained on, ISO; ``""`` if its maker does not say.
        integers: ``"int32"`` or ``"int64"``, of its id and bucket inputs.
        dynamic_length: Whether it takes histories of any length; ``spec.history_length`` if not.
        similarity: How its vectors were compared in training: ``"inner_product"``, or ``"cosine"``, which is the same
            for vectors of length 1 alone.
        about: What its maker says of it in the contract; enters no digest.
        lists: Real lists, of a ranker: its inputs by name, N rows each, and ``label`` [N, C], 1 where a candidate came
            true, 0 where not, -1 where there is none. By them :mod:`export.narrow` judges. Empty if there are none.
        served: The same function at less cost, of which the graph is made if it is given; *module* stays what the gate
            holds the graph to, and what the model is known by.
    """

    role: Role
    module: torch.nn.Module
    spec: FeatureSpec
    vocabularies: Mapping[str, Vocabulary]
    trained_through: str = ""
    integers: str = "int32"
    dynamic_length: bool = False
    similarity: str = "inner_product"
    about: dict[str, Any] = field(default_factory=dict)
    lists: Arrays = field(default_factory=dict)
    served: torch.nn.Module | None = None

    def __post_init__(self) -> None:
        """Refuse what no bundle can hold.

        Raises:
            UsageError: Naming what was expected and what was found.
        """
        if twice := [name for name in self.spec.features if self.spec.features.count(name) > 1]:
            raise UsageError(f"{self.role} source: expected features of different names, found {twice[0]} twice")
        if missing := [name for name in self.spec.features if name not in self.vocabularies]:
            raise UsageError(f"{self.role} source: feature {missing[0]} has no vocabulary; give one for every feature")
        if strange := [name for name in self.spec.cross_features if name not in CROSS_FEATURES]:
            raise UsageError(f"{self.role} source: cross feature {strange[0]} is none of {', '.join(CROSS_FEATURES)}")
        if self.integers not in {"int32", "int64"}:
            raise UsageError(f"{self.role} source: integers: expected int32 or int64, found {self.integers}")
        if self.similarity not in SIMILARITIES:
            raise UsageError(
                f"{self.role} source: similarity: expected {' or '.join(SIMILARITIES)}, found {self.similarity}"
            )
        if self.trained_through and not _is_day(self.trained_through):
            raise UsageError(
                f"{self.role} source: trained_through: expected YYYY-MM-DD or nothing, found {self.trained_through}"
            )

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of its inputs, in order."""
        return input_names(self.role, self.spec)

    @property
    def length(self) -> int | str:
        """The axis of the behaviours: a size, or the name of a dynamic axis."""
        return "length" if self.dynamic_length else self.spec.history_length


def _is_day(text: str) -> bool:
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def input_shape(source: Source, name: str) -> tuple[int | str, ...]:
    """Shape of an input; a dynamic axis by its name."""
    if source.role is Role.ITEM:
        return ("items",)
    if name == "cross":
        return ("users", "candidates", len(source.spec.cross_features))
    if name == "gap" or name.startswith("history_"):
        return ("users", source.length)
    return ("users", "candidates") if name.startswith("candidate_") else ("users",)


def output_shape(source: Source, name: str) -> Shape:
    """Shape of an output; a dynamic axis by its name, None where the network chooses the size."""
    shapes: dict[str, Shape] = {
        "vector": ("items", None),
        "interests": ("users", None, None),
        "count": ("users",),
        "weights": ("users", None, source.length),
        "score": ("users", "candidates"),
    }
    return shapes[name]


def run_source(source: Source, inputs: Arrays) -> Arrays:
    """Run the network itself on *inputs*.

    Raises:
        UsageError: If it gives other outputs than its role has, or more interests than a night publishes.
    """
    source.module.eval()
    tensors = [torch.from_numpy(np.require(inputs[name], requirements="W")) for name in source.inputs]
    with torch.no_grad():
        result = source.module(*tensors)
    outputs = tuple(result) if isinstance(result, tuple | list) else (result,)
    required, optional = OUTPUT_NAMES[source.role], OPTIONAL_OUTPUTS[source.role]
    names = (*required, *optional)[: len(outputs)]
    if not len(required) <= len(outputs) <= len(required) + len(optional):
        raise UsageError(f"{source.role} source: expected the outputs {', '.join(required)}, found {len(outputs)}")
    for name, output in zip(names, outputs, strict=True):
        _require_kind(source, name, output)
    return {name: output.numpy() for name, output in zip(names, outputs, strict=True)}


def _require_kind(source: Source, name: str, output: object) -> None:
    if not isinstance(output, torch.Tensor):
        raise UsageError(f"{source.role} source, output {name}: expected a tensor, found {type(output).__name__}")
    kinds = (torch.int32, torch.int64) if name == "count" else (torch.float32,)
    if output.dtype not in kinds:
        raise UsageError(f"{source.role} source, output {name}: expected {kinds[0]}, found {output.dtype}")
    if output.ndim != (axes := len(output_shape(source, name))):
        raise UsageError(
            f"{source.role} source, output {name}: expected {axes} axes {output_shape(source, name)}, "
            f"found the shape {tuple(output.shape)}"
        )
    if name == "interests" and output.shape[1] > MOST_INTERESTS:
        raise UsageError(f"user source: expected at most {MOST_INTERESTS} interests a user, found {output.shape[1]}")


def sources_from_factory(target: str) -> list[Source]:
    """Call ``package.module:factory``, which gives one source or several.

    Raises:
        UsageError: If the module or the factory is not there, or gives something else.
    """
    made = called(target)
    sources = [made] if isinstance(made, Source) else made
    if not isinstance(sources, Sequence) or not all(isinstance(source, Source) for source in sources) or not sources:
        raise UsageError(f"{target}: expected it to return export.source.Source or a list of them, found {_told(made)}")
    return list(sources)


def called(target: str, folder: Path | None = None) -> object:
    """Call ``package.module:function``, which takes nothing, or *folder* where that is given and it takes one argument.

    Raises:
        UsageError: If the module or the function is not there.
    """
    module_name, colon, name = target.partition(":")
    if not (module_name and colon and name):
        raise UsageError(f"{target}: expected package.module:factory")
    factory = getattr(_import(target, module_name), name, None)
    if factory is None:
        raise UsageError(f"{target}: module {module_name} has no {name}")
    if not callable(factory):
        raise UsageError(f"{target}: expected a function without arguments, found a {type(factory).__name__}")
    given = [folder] if folder is not None and inspect.signature(factory).parameters else []
    return factory(*given)


def _import(target: str, module_name: str) -> object:
    if (here := str(Path.cwd())) not in sys.path:  # as `python -m` has it
        sys.path.insert(0, here)
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and (module_name == error.name or module_name.startswith(f"{error.name}.")):
            raise UsageError(f"{target}: no module {error.name}; is its folder on PYTHONPATH?") from error
        raise UsageError(f"{target}: module {module_name} needs {error.name}, which is not installed") from error


def _told(made: object) -> str:
    if isinstance(made, Sequence) and not isinstance(made, str):
        return f"a {type(made).__name__} of {sorted({type(one).__name__ for one in made}) or 'nothing'}"
    return f"a {type(made).__name__}"


def sources_from_checkpoint(folder: Path) -> list[Source]:
    """Take the sources of a checkpoint of ours: an item and a user tower of MIND, a ranker of BST.

    Raises:
        UsageError: If *folder* holds no checkpoint.
        CorruptError: If a file of it was changed.
    """
    from models.bst import Bst
    from models.checkpoint import build, load_checkpoint
    from models.folded import FoldedUserTower
    from models.mind import ItemTower, UserTower

    checkpoint = load_checkpoint(folder)
    network = build(checkpoint)
    modules: dict[Role, torch.nn.Module]
    served: dict[Role, torch.nn.Module] = {}
    if isinstance(network, Bst):
        modules = {Role.RANKER: network}
    else:
        modules = {Role.ITEM: ItemTower(network), Role.USER: UserTower(network, with_weights=True)}
        served = {Role.USER: FoldedUserTower(network)}
    return [
        Source(
            role=role,
            module=module,
            spec=checkpoint.spec,
            vocabularies=checkpoint.vocabularies,
            trained_through=checkpoint.trained_through,
            about={"kind": checkpoint.kind, **checkpoint.about},
            lists=checkpoint.lists,
            served=served.get(role),
        )
        for role, module in modules.items()
    ]


def _sources_from_spec(path: str) -> list[Source]:
    from export.spec import sources_from_spec

    return sources_from_spec(Path(path))


# The one door: a kind of model, by the name of its option on the command line, and what makes sources of it.
READERS: dict[str, Callable[[str], list[Source]]] = {
    "checkpoint": lambda folder: sources_from_checkpoint(Path(folder)),
    "factory": sources_from_factory,
    "spec": _sources_from_spec,
}


def axis_sizes(inputs: Arrays, source: Source) -> dict[str, int]:
    """Sizes of the dynamic axes of *inputs*, by name."""
    sizes: dict[str, int] = {}
    for name in source.inputs:
        for axis, size in zip(input_shape(source, name), inputs[name].shape, strict=True):
            if isinstance(axis, str):
                sizes[axis] = size
    return sizes
