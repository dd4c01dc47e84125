"""The checkpoint: a trained network as a folder of plain data, with nothing pickled in it."""

import zipfile
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from artifacts.bundle import FeatureSpec
from artifacts.digest import document_digest, file_digest
from artifacts.documents import read_json, require_format, write_json
from artifacts.errors import CorruptError, UsageError
from artifacts.store import staged_folder
from features.vocabulary import Vocabulary, load_vocabularies, save_vocabulary
from models.bst import Bst, BstConfig
from models.layout import CheckpointLayout
from models.mind import Mind, MindConfig

FORMAT = 1
Config = MindConfig | BstConfig
_CONFIGS: dict[str, type[Config]] = {"mind": MindConfig, "bst": BstConfig}


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A trained network as plain data.

    Attributes:
        kind: ``"mind"`` or ``"bst"``.
        config: The network's sizes and choices.
        spec: What the network is told.
        vocabularies: By feature, for all of the spec's features.
        weights: The network's state, by name.
        trained_through: The last day of training events, ISO, in the surface's zone.
        about: How it was trained, and with what result: what changes no prediction.
        lists: Real lists, of a ranker: inputs by name, N rows each, and ``label`` [N, C]: 1 came true, 0 did not, -1 is
            no candidate. Empty where fitting kept none.
    """

    kind: str
    config: Config
    spec: FeatureSpec
    vocabularies: dict[str, Vocabulary]
    weights: dict[str, npt.NDArray[Any]]
    trained_through: str
    about: dict[str, Any] = field(default_factory=dict)
    lists: dict[str, npt.NDArray[Any]] = field(default_factory=dict)


def checkpoint_of(
    module: Mind | Bst,
    *,
    config: Config,
    spec: FeatureSpec,
    vocabularies: dict[str, Vocabulary],
    trained_through: str,
    about: dict[str, Any],
    lists: dict[str, npt.NDArray[Any]] | None = None,
) -> Checkpoint:
    """Take a network's state as a checkpoint; the arrays are copies."""
    weights = {name: tensor.detach().cpu().numpy().copy() for name, tensor in module.state_dict().items()}
    used = {name: vocabularies[name] for name in spec.features}
    return Checkpoint(_kind_of(config), config, spec, used, weights, trained_through, about, lists or {})


def save_checkpoint(checkpoint: Checkpoint, folder: Path) -> None:
    """Write *checkpoint* into *folder*, whole or not at all; equal checkpoints give equal bytes.

    Raises:
        ConflictError: If *folder* exists.
    """
    date.fromisoformat(checkpoint.trained_through)
    with staged_folder(folder) as staging:
        layout = CheckpointLayout(staging)
        for path, arrays in ((layout.weights, checkpoint.weights), (layout.lists, checkpoint.lists)):
            if arrays or path == layout.weights:
                with path.open("wb") as file:
                    np.savez(file, allow_pickle=False, **dict(sorted(arrays.items())))
        layout.vocabularies.mkdir()
        for name in checkpoint.spec.features:
            save_vocabulary(checkpoint.vocabularies[name], layout.vocabularies / f"{name}.arrow")
        document = {**_document(checkpoint), "files": _digests(layout)}
        write_json(layout.model, {**document, "digest": document_digest(document)})


def load_checkpoint(folder: Path) -> Checkpoint:
    """Read and verify what :func:`save_checkpoint` wrote.

    Raises:
        UsageError: If *folder* holds no checkpoint.
        CorruptError: If a file is missing, unlisted, changed, or not what ``model.json`` says.
    """
    layout = CheckpointLayout(folder)
    if not layout.model.exists():
        raise UsageError(f"{folder}: expected a checkpoint, found no {layout.model.name}; make one by `nightrec fit`")
    document = read_json(layout.model)
    require_format(layout.model, document.get("format"), FORMAT)
    if document.pop("digest", None) != document_digest(document):
        raise CorruptError(f"{layout.model}: its digest is not that of its content; was it edited? fit the model anew")
    del document["format"]
    _verify(layout, document.pop("files", None))
    try:
        spec = FeatureSpec.from_document(document["spec"])
        config = _config_of(document["kind"], document["config"])
        trained_through = date.fromisoformat(document["trained_through"]).isoformat()
        about = dict(document["about"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CorruptError(f"{layout.model}: expected a checkpoint's fields, found another document ({error!r})") from (
            error
        )
    vocabularies = load_vocabularies(layout.vocabularies, spec.features)
    weights = _read_arrays(layout.weights)
    lists = _read_arrays(layout.lists) if layout.lists.exists() else {}
    return Checkpoint(document["kind"], config, spec, vocabularies, weights, trained_through, about, lists)


def build(checkpoint: Checkpoint) -> Mind | Bst:
    """Make the network that *checkpoint* describes, with its weights, ready to predict.

    Raises:
        CorruptError: If the weights are not this network's: the message names the first that differs.
    """
    network = Mind if isinstance(checkpoint.config, MindConfig) else Bst
    with torch.random.fork_rng(devices=[]):  # building draws first weights; the caller's random state is not ours
        module: Mind | Bst = network(checkpoint.config, checkpoint.spec, checkpoint.vocabularies)  # type: ignore[arg-type]
    expected = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    found = {name: array.shape for name, array in checkpoint.weights.items()}
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            raise CorruptError(
                f"checkpoint's weights: {name} is {found.get(name, 'missing')}, "
                f"but the network of its config has {expected.get(name, 'none')}; it is of another version, or mixed "
                "from two: fit it anew"
            )
    module.load_state_dict({name: torch.from_numpy(array) for name, array in checkpoint.weights.items()})
    return module.eval()


def _kind_of(config: Config) -> str:
    return next(kind for kind, config_type in _CONFIGS.items() if isinstance(config, config_type))


def _document(checkpoint: Checkpoint) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "kind": checkpoint.kind,
        "config": _plain(asdict(checkpoint.config)),
        "spec": checkpoint.spec.document(),
        "trained_through": checkpoint.trained_through,
        "about": checkpoint.about,
    }


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """JSON has no infinity, and a label-aware power may be one."""
    return {key: "inf" if value == float("inf") else value for key, value in values.items()}


def _config_of(kind: str, values: dict[str, Any]) -> Config:
    numbers = {key: float("inf") if value == "inf" else value for key, value in values.items()}
    fields: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in numbers.items()}
    return _CONFIGS[kind](**fields)


def _digests(layout: CheckpointLayout) -> dict[str, str]:
    files = sorted(path for path in layout.folder.rglob("*") if path.is_file() and path != layout.model)
    return {path.relative_to(layout.folder).as_posix(): file_digest(path) for path in files}


def _verify(layout: CheckpointLayout, listed: object) -> None:
    if not isinstance(listed, dict):
        raise CorruptError(f"{layout.model}: expected the digests of the other files under `files`, found none")
    found = _digests(layout)
    for name in sorted(listed.keys() | found.keys()):
        if listed.get(name) != found.get(name):
            raise CorruptError(
                f"{layout.folder / name}: expected sha256 {listed.get(name, '(not listed)')}, "
                f"found {found.get(name, 'no such file')}; fit the model anew or restore the folder"
            )


def _read_arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise CorruptError(f"{path}: expected arrays, found something else ({error})") from error
