"""``nightrec export``: from a trained model to verified bundles."""

from pathlib import Path
from typing import Annotated

import typer

from artifacts.errors import UsageError
from nightrec.terminal import answer, say, show


def export(
    *,
    out: Annotated[Path, typer.Option("--out", help="Folder for the bundles: item/ and user/, or ranker/.")],
    checkpoint: Annotated[
        str | None, typer.Option("--checkpoint", help="A checkpoint made by `nightrec fit`.", show_default=False)
    ] = None,
    factory: Annotated[
        str | None,
        typer.Option("--factory", help="package.module:function that gives the model's sources.", show_default=False),
    ] = None,
    spec: Annotated[
        str | None,
        typer.Option("--spec", help="A TOML file that describes a model of your own.", show_default=False),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")] = False,
) -> None:
    """Export a model; a bundle is made only if ONNX Runtime does what the model does."""
    options = {"checkpoint": checkpoint, "factory": factory, "spec": spec}
    given = {name: target for name, target in options.items() if target is not None}
    if len(given) != 1:
        raise UsageError("give one of --checkpoint, --factory and --spec")
    from export.source import READERS
    from export.write import export as export_sources

    (name, target) = next(iter(given.items()))
    bundles = export_sources(READERS[name](target), out)
    rows = [(str(b.role), str(b.folder), b.model_id[:12], b.bundle_id[:12], b.trained_through) for b in bundles]
    show("Bundles", ("role", "folder", "model", "bundle", "trained through"), rows)
    say("Each does what its source does, on every case of the parity matrix.")
    if json:
        answer(
            {
                "bundles": [
                    {"role": str(b.role), "folder": str(b.folder), "model_id": b.model_id, "bundle_id": b.bundle_id}
                    for b in bundles
                ]
            }
        )
