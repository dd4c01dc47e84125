"""The exporter: every source through the gate, then all bundles into their folder at once, or none."""

import hashlib
import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import onnxruntime
import torch

from artifacts.bundle import (
    Bundle,
    FileRecord,
    Role,
    bundle_id_of,
    read_bundle,
    record_files,
    require_one_model,
    write_bundle,
)
from artifacts.canary import write_canary
from artifacts.digest import document_digest
from artifacts.errors import CorruptError, ParityError, UsageError
from artifacts.layout import BundleLayout
from artifacts.store import STAGING_PREFIX, exclusive, flush
from export.graph import Signature, to_onnx
from export.parity import canary_rows, check_parity, open_graph
from export.source import Source
from features.vocabulary import save_vocabulary

METRIC = "inner_product"
PRECISIONS = ("fp32", "int8", "fp16", "auto")
_LIBRARIES = ("torch", "onnx", "onnxscript", "numpy")


def export(sources: Sequence[Source], out: Path, *, precision: str = "fp32") -> list[Bundle]:
    """Make a bundle of each source: ``out/item``, ``out/user``, ``out/ranker``.

    All of them appear when all have passed the gate; if one fails, *out* is as it was. A bundle that is there already
    with the same content stays untouched; another one is replaced. A process that is killed between the two renames of
    a replacement leaves no bundle under that name, never a half one; export again.

    Args:
        sources: At most one of each role. An item and a user source given together are one model.
        out: Folder of the bundles.
        precision: Of a ranker's wide layers: ``fp32``; ``int8``, on a CPU twice as fast; ``fp16``, for a GPU; or
            ``auto``: int8 if real lists keep their order by it, and else fp32, with the reason in the contract. What
            is asked for by name is refused if they don't. See :mod:`export.narrow`.

    Returns:
        The bundles, in the order of *sources*.

    Raises:
        ParityError: If a graph fails the gate; the message names the case and how far off it is.
        UsageError: If the sources cannot go together, or *out* holds something else under a bundle's name.
    """
    if precision not in PRECISIONS:
        raise UsageError(f"--precision: expected {', '.join(PRECISIONS[:-1])} or {PRECISIONS[-1]}, found {precision}")
    _require_distinct(sources)
    for source in sources:
        _require_replaceable(out / source.role)
    with _staging(out) as staging:
        parts = [_write_content(source, staging / source.role, precision) for source in sources]
        records = [record_files(staging / source.role) for source in sources]
        towers = [place for place, source in enumerate(sources) if source.role is not Role.RANKER]
        bundles = []
        for place, source in enumerate(sources):
            model = towers if place in towers else [place]
            model_id = model_id_of([sources[other] for other in model], records[place])
            bundles.append(_write_contract(source, staging / source.role, *parts[place], records[place], model_id))
        require_one_model(bundles)
        for path in staging.rglob("*"):
            flush(path)
        with exclusive(out / ".lock"):
            _swap(bundles, out, staging)
    return [replace(bundle, folder=out / bundle.role) for bundle in bundles]


def model_id_of(sources: Sequence[Source], files: dict[str, FileRecord]) -> str:
    """Digest what the sources of one model learnt: weights, vocabularies and spec.

    Weights that two sources share enter once, so that one model's item and user bundle have the same id, also when
    they are exported one by one from modules that hold all of its weights.

    Args:
        sources: The parts of the model; all have one spec and the same vocabularies.
        files: Of the bundle of any of them.
    """
    weights = {
        (name, str(tensor.dtype), tuple(tensor.shape), _tensor_digest(tensor))
        for source in sources
        for name, tensor in source.module.state_dict().items()
    }
    layout, spec = BundleLayout(Path()), sources[0].spec
    vocabularies = {name: files[layout.vocabulary(name).as_posix()].sha256 for name in spec.features}
    return document_digest(
        {"weights": [list(entry) for entry in sorted(weights)], "vocabularies": vocabularies, "spec": spec.document()}
    )


def _tensor_digest(tensor: torch.Tensor) -> str:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return hashlib.sha256(flat.view(torch.uint8).numpy().data).hexdigest()


def _require_distinct(sources: Sequence[Source]) -> None:
    if not sources:
        raise UsageError("nothing to export: expected a checkpoint or a factory, found no source")
    roles = [source.role for source in sources]
    if twice := [role for role in Role if roles.count(role) > 1]:
        raise UsageError(f"expected one {twice[0]} source, found {roles.count(twice[0])}; export them into two folders")
    towers = {source.role: source for source in sources if source.role is not Role.RANKER}
    if len(towers) < 2:
        return
    item, user = towers[Role.ITEM], towers[Role.USER]
    for what, one, other in (
        ("spec", item.spec, user.spec),
        ("trained_through", item.trained_through, user.trained_through),
    ):
        if one != other:
            raise UsageError(f"item and user source are one model, but their {what} is {one} and {other}")
    for name in item.spec.features:
        if not item.vocabularies[name].values.equals(user.vocabularies[name].values):
            raise UsageError(f"item and user source are one model, but their vocabularies of {name} differ")


def _require_replaceable(folder: Path) -> None:
    if folder.exists() and not BundleLayout(folder).contract.is_file():
        raise UsageError(f"{folder} exists and is no bundle; choose another folder or remove it")


@contextmanager
def _staging(out: Path) -> Iterator[Path]:
    """Yield a folder inside *out* that is gone afterwards, and *out* with it if it was made for nothing."""
    made = [folder for folder in (out, *out.parents) if not folder.exists()]
    staging = out / f"{STAGING_PREFIX}{uuid.uuid4().hex}"
    try:
        staging.mkdir(parents=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise UsageError(f"{out}: expected a folder for bundles, found a file") from error
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        for folder in made:
            with suppress(OSError):  # not empty: it holds what was made
                folder.rmdir()


def _write_content(source: Source, folder: Path, precision: str) -> tuple[Signature, dict[str, Any]]:
    """Write graph, vocabularies and canary rows; give the graph's contract, and what the gate found."""
    layout = BundleLayout(folder)
    folder.mkdir()
    signature = to_onnx(source, layout.graph)
    told = {"precision": "fp32", "parity": check_parity(source, layout.graph)}
    if source.role is Role.RANKER and precision != "fp32":
        told |= _narrowed(source, layout.graph, precision)
    inputs = canary_rows(source)
    write_canary(layout.canary, {**inputs, **open_graph(layout.graph)(inputs)})
    for name in source.spec.features:
        save_vocabulary(source.vocabularies[name], layout.vocabulary(name))
    return signature, told


def _narrowed(source: Source, graph: Path, asked: str) -> dict[str, Any]:
    """Put *graph* into the precision that was asked for, and tell what that changed, or why it stays as it is."""
    from export.narrow import narrow

    precision = "int8" if asked == "auto" else asked
    try:
        return {"precision": precision, "narrow": narrow(source, graph, precision).document()}
    except ParityError as error:
        if asked != "auto":
            raise
        return {"narrow": {"refused": str(error)}}


def _write_contract(
    source: Source,
    folder: Path,
    signature: Signature,
    told: dict[str, Any],
    files: dict[str, FileRecord],
    model_id: str,
) -> Bundle:
    shape = signature.outputs[0].shape
    bundle = Bundle(
        folder=folder,
        role=source.role,
        model_id=model_id,
        bundle_id=bundle_id_of(files, source.spec),
        inputs=signature.inputs,
        outputs=signature.outputs,
        spec=source.spec,
        metric=METRIC,
        width=0 if source.role is Role.RANKER else int(shape[-1]),
        interests=int(shape[1]) if source.role is Role.USER else 0,
        trained_through=source.trained_through,
        files=files,
        about={
            "opset": signature.opset,
            "versions": {name: version(name) for name in _LIBRARIES} | {"onnxruntime": onnxruntime.__version__},
            **told,
            "model": source.about,
        },
    )
    write_bundle(bundle)
    return bundle


def _same(bundle: Bundle, other: Bundle) -> bool:
    """Whether two bundles hold the same model for the same use; what only describes the export may differ."""
    canary = BundleLayout(Path()).canary.as_posix()
    one, two = ({**each.document(), "about": {}} for each in (bundle, other))
    for document in (one, two):
        document["files"] = {name: record for name, record in document["files"].items() if name != canary}
    return one == two


def _swap(bundles: Sequence[Bundle], out: Path, staging: Path) -> None:
    """Give all staged bundles their names; what stood there before comes back if one of them fails."""
    undo: list[tuple[Path, Path]] = []
    try:
        for bundle in bundles:
            final = out / bundle.role
            if final.exists():
                with suppress(CorruptError):  # a broken one is replaced
                    if _same(bundle, read_bundle(final)):
                        continue
                aside = staging / f"replaced-{bundle.role}"
                final.rename(aside)
                undo.append((aside, final))
            bundle.folder.rename(final)
            undo.append((final, bundle.folder))
    except BaseException:
        for source, target in reversed(undo):
            source.rename(target)
        raise
    flush(out)
