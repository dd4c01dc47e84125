"""The bundle: what lies between training and the night. Read and verified here, without torch."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Self

from artifacts.contract import require_contract
from artifacts.digest import document_digest, file_digest
from artifacts.documents import read_sealed, write_sealed
from artifacts.errors import CorruptError, UsageError
from artifacts.layout import BundleLayout
from artifacts.store import files_on_disk

FORMAT = 1


class Role(StrEnum):
    """What a bundle's graph computes."""

    ITEM = "item"
    USER = "user"
    RANKER = "ranker"


@dataclass(frozen=True, slots=True)
class FeatureSpec:
    """What a model is told: the same words for training, export and the night.

    Attributes:
        item_features: Names of the features of an item, ``"item_id"`` first; each has a vocabulary.
        profile_features: Names of the features of a user; each has a vocabulary.
        history_length: L, the newest behaviours that are kept.
        gap_edges: Ascending edges, in seconds, of the buckets of the time since a behaviour.
        cross_features: Names out of ``CROSS_FEATURES``, in the order of the ranker's ``cross`` input.
    """

    item_features: tuple[str, ...]
    profile_features: tuple[str, ...] = ()
    history_length: int = 20
    gap_edges: tuple[int, ...] = ()
    cross_features: tuple[str, ...] = ()

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> Self:
        """Read what :meth:`document` gave."""
        lists = {key: tuple(value) for key, value in document.items() if key != "history_length"}
        return cls(**lists, history_length=document["history_length"])

    def document(self) -> dict[str, Any]:
        """What goes into JSON."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @property
    def features(self) -> tuple[str, ...]:
        """Every feature that has a vocabulary."""
        return self.item_features + self.profile_features


def input_names(role: Role, spec: FeatureSpec) -> tuple[str, ...]:
    """Name a graph's inputs in the order of its ``forward``.

    * item: ``NAME`` [items] for each item feature
    * user: ``history_NAME`` [users, L] for each item feature, ``profile_NAME`` [users]
    * ranker: ``history_NAME`` [users, L], ``gap`` [users, L], ``profile_NAME`` [users],
      ``candidate_NAME`` [users, C], and ``cross`` [users, C, f] where the spec has cross features
    """
    history = tuple(f"history_{name}" for name in spec.item_features)
    profile = tuple(f"profile_{name}" for name in spec.profile_features)
    if role is Role.ITEM:
        return spec.item_features
    if role is Role.USER:
        return history + profile
    candidate = tuple(f"candidate_{name}" for name in spec.item_features)
    return (*history, "gap", *profile, *candidate, *(("cross",) if spec.cross_features else ()))


def feature_of(role: Role, name: str) -> str | None:
    """Name the feature whose vocabulary rows an input of :func:`input_names` holds; None for ``gap`` and ``cross``."""
    if role is Role.ITEM:
        return name
    prefix, _, feature = name.partition("_")  # once: a feature may itself be called profile_kind
    return feature if prefix in {"history", "profile", "candidate"} else None


OUTPUT_NAMES = {Role.ITEM: ("vector",), Role.USER: ("interests", "count"), Role.RANKER: ("score",)}
OPTIONAL_OUTPUTS = {Role.ITEM: (), Role.USER: ("weights",), Role.RANKER: ()}


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input or output of the graph.

    Attributes:
        name: As in the graph.
        type: NumPy's name of the element type, such as ``"int32"``.
        shape: Sizes; a name (``"users"``, ``"items"``, ``"candidates"``, ``"length"``) where an axis is dynamic.
    """

    name: str
    type: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True, slots=True)
class FileRecord:
    """A file of the bundle: its bytes and their sha256."""

    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Bundle:
    """The contract in ``bundle.json``, and the folder it speaks of.

    Attributes:
        folder: Where the bundle lies.
        role: What the graph computes.
        model_id: Digest of trained weights, vocabularies and spec; shared by all bundles of one model.
        bundle_id: Digest of this folder's graph, vocabularies and spec.
        inputs: The graph's inputs, in order.
        outputs: The graph's outputs, in order.
        spec: What the model is told.
        metric: How vectors are compared; always ``"inner_product"`` so far.
        width: d, of item and user vectors; 0 for a ranker.
        interests: K, the most interests of a user; 0 for another role.
        trained_through: The last day that the model was trained on, ISO; ``""`` if its maker does not say.
        files: Path within the folder to the bytes it must have.
        about: Opset, library versions, parity figures, precision: what enters no digest.
    """

    folder: Path
    role: Role
    model_id: str
    bundle_id: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    spec: FeatureSpec
    metric: str
    width: int
    interests: int
    trained_through: str
    files: dict[str, FileRecord]
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def layout(self) -> BundleLayout:
        """Where the files lie."""
        return BundleLayout(self.folder)

    def document(self) -> dict[str, Any]:
        """What goes into ``bundle.json``, beside its format and its own digest."""
        document = asdict(self)
        del document["folder"]
        return {**document, "role": str(self.role), "spec": self.spec.document()}

    def digest_of(self, feature: str) -> str:
        """The sha256 of a feature's vocabulary."""
        return self.files[self.layout.vocabulary(feature).relative_to(self.folder).as_posix()].sha256


def record_files(folder: Path) -> dict[str, FileRecord]:
    """Measure every file of the bundle in *folder* but its contract."""
    return {
        path.relative_to(folder).as_posix(): FileRecord(path.stat().st_size, file_digest(path))
        for path in files_on_disk(folder)
        if path != BundleLayout(folder).contract
    }


def bundle_id_of(files: dict[str, FileRecord], spec: FeatureSpec) -> str:
    """Digest the graph (with external data), vocabularies and spec of a bundle; its canary rows do not enter."""
    canary = BundleLayout(Path()).canary.as_posix()
    digests = {name: record.sha256 for name, record in files.items() if name != canary}
    return document_digest({"files": digests, "spec": spec.document()})


def write_bundle(bundle: Bundle) -> None:
    """Write the contract into the bundle's folder, sealed with its own digest."""
    write_sealed(bundle.layout.contract, bundle.document(), version=FORMAT)


def read_bundle(folder: Path) -> Bundle:
    """Read and verify a bundle: every byte is checked before anything is loaded.

    Raises:
        UsageError: If *folder* holds no bundle.
        CorruptError: If the contract is unreadable or changed, or a file is missing, unlisted or changed.
    """
    layout = BundleLayout(folder)
    if not layout.contract.exists():
        raise UsageError(f"{folder}: expected a bundle, found no {layout.contract.name}; make one by `nightrec export`")
    document = read_sealed(layout.contract, version=FORMAT, remedy="export it anew")
    bundle = _parse(folder, document)
    _verify(bundle)
    return bundle


def _parse(folder: Path, document: dict[str, Any]) -> Bundle:
    path = BundleLayout(folder).contract
    try:
        require_contract(document)
        document["role"] = Role(document["role"])
        document["spec"] = FeatureSpec.from_document(document["spec"])
        document["files"] = {name: FileRecord(**record) for name, record in document["files"].items()}
        for side in ("inputs", "outputs"):
            document[side] = tuple(Tensor(t["name"], t["type"], tuple(t["shape"])) for t in document[side])
        bundle = Bundle(folder=folder, **document)
        _require_own(bundle)
    except ValueError as error:
        raise CorruptError(f"{path}: expected a bundle's contract; {error}; export it anew") from error
    return bundle


def _require_own(bundle: Bundle) -> None:
    """Refuse a contract without the tensors and files that its role and spec must have."""
    expected, found = input_names(bundle.role, bundle.spec), [tensor.name for tensor in bundle.inputs]
    if sorted(expected) != sorted(found):
        raise ValueError(f"inputs: expected {', '.join(expected)}, found {', '.join(found)}")
    if missing := set(OUTPUT_NAMES[bundle.role]) - {tensor.name for tensor in bundle.outputs}:
        raise ValueError(f"outputs: expected one called {min(missing)}")
    layout = bundle.layout
    for path in (layout.graph, layout.canary, *(layout.vocabulary(name) for name in bundle.spec.features)):
        if path.relative_to(bundle.folder).as_posix() not in bundle.files:
            raise ValueError(f"files: expected {path.relative_to(bundle.folder).as_posix()} among them")


def _verify(bundle: Bundle) -> None:
    _require_listed(bundle)
    contract = bundle.layout.contract.name
    for name, record in sorted(bundle.files.items()):
        path = bundle.folder / name
        if not path.is_file():
            raise CorruptError(f"{path}: listed in {contract}, but missing")
        if (size := path.stat().st_size) != record.size:
            asked, why = f"{record.size} bytes", "was it cut short, or one of the two swapped?"
            raise CorruptError(f"{path}: expected {asked} by {contract}, found {size}; {why}")
        if (digest := file_digest(path)) != record.sha256:
            asked, why = f"sha256 {record.sha256}", "was it changed, or one of the two swapped?"
            raise CorruptError(f"{path}: expected {asked} by {contract}, found {digest}; {why}")
    if (expected := bundle_id_of(bundle.files, bundle.spec)) != bundle.bundle_id:
        raise CorruptError(f"{bundle.layout.contract}: bundle_id is {bundle.bundle_id}, but its files give {expected}")


def _require_listed(bundle: Bundle) -> None:
    """Refuse a file that the contract does not list, and a link, which leads out of what it lists."""
    contract = bundle.layout.contract
    for path in files_on_disk(bundle.folder):
        if path.is_symlink():
            raise CorruptError(f"{path}: a symbolic link, which leads out of what is verified; copy the file itself")
        if path != contract and path.relative_to(bundle.folder).as_posix() not in bundle.files:
            raise CorruptError(f"{path}: not listed in {contract.name}; remove it or export anew")


def require_one_model(bundles: Sequence[Bundle]) -> None:
    """Refuse to mix what does not belong together.

    The item and the user bundle must share model, width and metric; every bundle must share the vocabularies of the
    features that it has in common with another, and the order of its item features. Gap edges are not compared: only
    the ranker is fed gap buckets, so the tables are made with the ranker's edges.

    Raises:
        UsageError: If two bundles differ; the message names both and what differs.
    """
    towers = [bundle for bundle in bundles if bundle.role is not Role.RANKER]
    for other in towers[1:]:
        for name in ("model_id", "width", "metric"):
            _require_same(name, towers[0], getattr(towers[0], name), other, getattr(other, name))
    for other in bundles[1:]:
        first = bundles[0]
        _require_same("item features", first, first.spec.item_features, other, other.spec.item_features)
        for feature in sorted(set(first.spec.features) & set(other.spec.features)):
            _require_same(f"vocabulary of {feature}", first, first.digest_of(feature), other, other.digest_of(feature))


def _require_same(what: str, one: Bundle, value: object, other: Bundle, found: object) -> None:
    if value != found:
        raise UsageError(
            f"{one.role} bundle {one.folder} and {other.role} bundle {other.folder} do not belong together: "
            f"{what} is {value} in the one and {found} in the other; export both from one model"
        )
