"""Our own networks, from checkpoint to bundle."""

from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

from artifacts.bundle import FeatureSpec, Role, read_bundle, require_one_model
from artifacts.canary import read_canary
from artifacts.errors import CorruptError, ParityError
from export.source import run_source, sources_from_checkpoint
from export.write import export
from models.bst import Bst, BstConfig
from models.checkpoint import checkpoint_of, save_checkpoint
from models.mind import Mind, MindConfig

SPEC = FeatureSpec(
    item_features=("item_id", "category"),
    profile_features=("gender",),
    history_length=8,
    gap_edges=(60, 3600),
    cross_features=("retrieval_score", "popularity"),
)


def save(small: ModuleType, folder: Path, config: MindConfig | BstConfig) -> Path:
    network = Mind if isinstance(config, MindConfig) else Bst
    module = network(config, SPEC, small.VOCABULARIES)  # type: ignore[arg-type]
    checkpoint = checkpoint_of(
        module,
        config=config,
        spec=SPEC,
        vocabularies=small.VOCABULARIES,
        trained_through="2026-01-31",
        about={"epochs": 3},
    )
    save_checkpoint(checkpoint, folder)
    return folder


@pytest.mark.parametrize(
    "config",
    [
        MindConfig(width=16, hidden=(16,)),
        MindConfig(width=16, interests=1, hidden=()),
        MindConfig(width=16, interests=9, hidden=(16,), rounds=1, normalise=True),
    ],
    ids=["default", "one interest", "more interests than items"],
)
def test_mind(small: ModuleType, tmp_path: Path, config: MindConfig) -> None:
    """A MIND checkpoint becomes an item and a user bundle of one model, which compute what the network does."""
    sources = sources_from_checkpoint(save(small, tmp_path / "mind", config))
    bundles = export(sources, tmp_path / "bundles")
    assert [bundle.role for bundle in bundles] == [Role.ITEM, Role.USER]
    require_one_model(bundles)
    assert bundles[0].model_id == bundles[1].model_id
    assert [(b.width, b.interests, b.trained_through) for b in bundles] == [
        (16, 0, "2026-01-31"),
        (16, config.interests, "2026-01-31"),
    ]
    assert bundles[1].about["model"] == {"kind": "mind", "epochs": 3}
    assert bundles[1].outputs[2].shape == ("users", config.interests, 8)
    for source, bundle in zip(sources, bundles, strict=True):
        canary = read_canary(read_bundle(bundle.folder).layout.canary)
        for name, array in run_source(source, canary).items():
            assert np.allclose(array, canary[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "config",
    [
        BstConfig(width=16, gap_width=4, heads=2, mlp=(16, 8)),
        BstConfig(width=16, gap_width=4, heads=2, mlp=(16, 8), blocks=2, residual=False),
        BstConfig(width=16, gap_width=4, heads=2, mlp=(16, 8), output="all"),
    ],
    ids=["default", "two blocks", "all rows"],
)
def test_bst(small: ModuleType, tmp_path: Path, config: BstConfig) -> None:
    """A BST checkpoint becomes a ranker bundle that scores any number of candidates as the network does."""
    source = sources_from_checkpoint(save(small, tmp_path / "bst", config))[0]
    bundle = export([source], tmp_path / "bundles")[0]
    assert (bundle.role, bundle.width, bundle.interests) == (Role.RANKER, 0, 0)
    canary = read_canary(read_bundle(bundle.folder).layout.canary)
    found = run_source(source, canary)["score"]
    assert np.allclose(found, canary["score"], rtol=1e-4, atol=1e-5)
    session = ort.InferenceSession(str(bundle.layout.graph))
    first = {t.name: canary[t.name][:, :3] if "candidates" in t.shape else canary[t.name] for t in bundle.inputs}
    assert np.allclose(session.run(["score"], first)[0], found[:, :3], rtol=1e-4, atol=1e-5)


def test_default_widths_keep_their_bits(small: ModuleType, tmp_path: Path) -> None:
    """At the widths we ship, a row keeps its bits at any position and in a batch of any size."""
    towers = sources_from_checkpoint(save(small, tmp_path / "mind", MindConfig()))
    ranker = sources_from_checkpoint(save(small, tmp_path / "bst", BstConfig()))
    for bundle in export([*towers, *ranker], tmp_path / "bundles"):
        assert bundle.about["parity"]["bits_depend_on"] == []


def test_the_graph_of_users_is_the_folded_one(small: ModuleType, tmp_path: Path) -> None:
    """No matrix as wide as the shared map is left in it, and the model is known by what was trained."""
    item, user = sources_from_checkpoint(save(small, tmp_path / "mind", MindConfig(width=16, hidden=(24,))))
    folded = export([item, user], tmp_path / "folded")
    plain = export([item, replace(user, served=None)], tmp_path / "plain")
    assert [bundle.model_id for bundle in folded] == [bundle.model_id for bundle in plain]
    assert folded[0].bundle_id == plain[0].bundle_id
    assert folded[1].bundle_id != plain[1].bundle_id
    shapes = [
        [tuple(weight.dims) for weight in onnx.load(bundle.layout.graph).graph.initializer]
        for bundle in (plain[1], folded[1])
    ]
    assert [(16, 16) in found for found in shapes] == [True, False]
    # The gender's part of H is in its table, which has the rows of padding, unknown, f and m.
    assert [(4, 24) in found for found in shapes] == [False, True]


def test_the_gate_holds_the_graph_to_the_network_that_was_trained(small: ModuleType, tmp_path: Path) -> None:
    """A cheaper form that computes something else makes no bundle."""
    _, user = sources_from_checkpoint(save(small, tmp_path / "mind", MindConfig(width=16, hidden=(16,))))
    assert user.served is not None
    with torch.no_grad():
        user.served.get_buffer("capsule").mul_(1.01)
    with pytest.raises(ParityError, match=r"interests.*: the source gives"):
        export([user], tmp_path / "bundles")
    assert not (tmp_path / "bundles").exists()


def test_changed_checkpoint(small: ModuleType, tmp_path: Path) -> None:
    """A checkpoint of which a byte was changed gives no source."""
    folder = save(small, tmp_path / "mind", MindConfig(width=16, hidden=(16,)))
    weights = folder / "weights.npz"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    with pytest.raises(CorruptError, match=r"weights\.npz"):
        sources_from_checkpoint(folder)
