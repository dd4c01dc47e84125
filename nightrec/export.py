"""``nightrec export``: from a trained model to verified bundles."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from artifacts.errors import UsageError
from nightrec.bundles import export_networks, tell_bundles
from nightrec.night import ConfigPath, Json, configured
from nightrec.terminal import answer, say


def export(
    *,
    config: ConfigPath,
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
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder for its bundles: item/ and user/, or ranker/.", show_default=False),
    ] = None,
    precision: Annotated[
        str,
        typer.Option(
            "--precision", help="Of the ranker: fp32, int8, fp16 (GPU), or auto: int8 if lists keep their order."
        ),
    ] = "fp32",
    json: Json = False,
) -> None:
    """Export a model, or else both networks of the config; bundles are made only if ONNX Runtime does what it does."""
    options = {"checkpoint": checkpoint, "factory": factory, "spec": spec}
    given = {name: target for name, target in options.items() if target is not None}
    if len(given) > 1:
        raise UsageError("give one of --checkpoint, --factory and --spec")
    if out is not None and not given:
        raise UsageError("--out: give one of --checkpoint, --factory and --spec with it; [bundles] is for the config's")
    if out is None and given:
        raise UsageError(f"--{next(iter(given))}: give --out too, the folder for its bundles")
    if out is None:
        bundles = export_networks(configured(config), precision=precision)
    else:
        from export.source import READERS
        from export.write import export as export_sources

        ((name, target),) = given.items()
        bundles = export_sources(READERS[name](target), out, precision=precision)
    told = tell_bundles(bundles)
    for bundle in bundles:
        if said := _told_of_precision(bundle.about):
            say(f"{bundle.role}: {said}")
        if idle := bundle.about["parity"]["idle_inputs"]:
            say(f"{bundle.role}: nothing depends on {', '.join(idle)}; is that meant?")
    if json:
        answer({"bundles": told})


def _told_of_precision(about: Mapping[str, Any]) -> str:
    """Say what int8 or fp16 changed, or why it was not taken; nothing where nobody asked."""
    if not (found := about.get("narrow")):
        return ""
    if why := found.get("refused"):
        return f"stays in fp32: {why}"
    precision = about["precision"]
    return (
        f"{precision} in {found['layers']} wide layers: of the best 10 of {found['lists']} real lists "
        f"{found['overlap_of_10']:.2%} stay, and AUC is {found[f'auc_{precision}']:.4f}, "
        f"in fp32 {found['auc_fp32']:.4f}"
    )
