"""The bundles that the config names, made of the networks that it trains."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from artifacts.errors import UsageError
from nightrec.terminal import progress, say, show

if TYPE_CHECKING:
    from artifacts.bundle import Bundle
    from nightrec.config import Config


def folder_of_bundles(config: "Config") -> Path:
    """Give the folder under which the bundles of the config stand, each named by its role.

    Raises:
        UsageError: If the config names no bundles, or others than an export makes.
    """
    if config.bundles is None:
        raise UsageError('--export needs a table [bundles], such as item = "bundles/item" and user = "bundles/user"')
    places = config.bundles.model_dump(exclude_none=True)
    folder = Path(config.bundles.item).parent
    for role, place in places.items():
        if Path(place) != folder / role:
            raise UsageError(
                f"[bundles] {role}: expected {folder / role}, found {place}; "
                "name the bundles so, or export each with --checkpoint and --out"
            )
    return folder


def export_networks(config: "Config", *, precision: str = "fp32") -> "list[Bundle]":
    """Export what `nightrec fit` made to where the night looks for it; without a ranker in the config, MIND alone.

    *precision* is the ranker's, as in :func:`export.write.export`.

    Raises:
        UsageError: If a network is not fitted, or the config names other bundles.
        ParityError: If a graph fails the gate.
    """
    from export.source import sources_from_checkpoint
    from export.write import export

    out = folder_of_bundles(config)
    if config.train is None:
        raise UsageError("`nightrec fit` makes the networks, by a table [train], which the config has not")
    names = ["mind", "bst"] if config.bundles and config.bundles.ranker else ["mind"]
    checkpoints = [Path(config.train.folder) / name for name in names]
    with progress("export"):
        return [
            bundle
            for checkpoint in checkpoints
            for bundle in export(sources_from_checkpoint(checkpoint), out, precision=precision)
        ]


def tell_bundles(bundles: "Sequence[Bundle]") -> list[dict[str, str]]:
    """Show people the bundles that were made; give what machines are told of them."""
    rows = [(str(b.role), str(b.folder), b.model_id[:12], b.bundle_id[:12], b.trained_through) for b in bundles]
    show("Bundles", ("role", "folder", "model", "bundle", "trained through"), rows)
    say("Each does what its source does, on every case of the parity matrix.")
    return [
        {"role": str(b.role), "folder": str(b.folder), "model_id": b.model_id, "bundle_id": b.bundle_id}
        for b in bundles
    ]
