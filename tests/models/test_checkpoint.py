import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from artifacts.errors import ConflictError, CorruptError, UsageError
from models.bst import Bst, BstConfig
from models.checkpoint import build, checkpoint_of, load_checkpoint, save_checkpoint
from models.mind import Mind, MindConfig


@pytest.fixture
def checkpoint(spec, vocabularies):
    config = MindConfig(width=8, interests=2, hidden=(8,), start_rows=16, power=math.inf)
    module = Mind(config, spec, vocabularies)
    return checkpoint_of(
        module,
        config=config,
        spec=spec,
        vocabularies=vocabularies,
        trained_through="2026-11-24",
        about={"val_loss": 1.5},
    )


def test_what_is_saved_is_what_is_loaded(checkpoint, tmp_path):
    """A checkpoint survives the disk: config, spec, vocabularies, every bit of the weights."""
    save_checkpoint(checkpoint, tmp_path / "mind")
    loaded = load_checkpoint(tmp_path / "mind")
    assert (loaded.kind, loaded.config, loaded.spec) == ("mind", checkpoint.config, checkpoint.spec)
    assert (loaded.trained_through, loaded.about) == ("2026-11-24", {"val_loss": 1.5})
    assert loaded.weights.keys() == checkpoint.weights.keys()
    for name, array in checkpoint.weights.items():
        assert array.dtype == loaded.weights[name].dtype
        np.testing.assert_array_equal(array, loaded.weights[name])
    for name, vocabulary in checkpoint.vocabularies.items():
        assert loaded.vocabularies[name].values.equals(vocabulary.values)


def test_real_lists_are_kept_beside_the_weights(checkpoint, tmp_path):
    """What a ranker is judged by comes back as it was; a checkpoint without has no file for it."""
    lists = {"history_item_id": np.array([[2, 0]], np.int32), "label": np.array([[1, -1]], np.int8)}
    save_checkpoint(replace(checkpoint, lists=lists), tmp_path / "with")
    loaded = load_checkpoint(tmp_path / "with").lists
    assert loaded.keys() == lists.keys()
    for name, array in lists.items():
        assert array.dtype == loaded[name].dtype
        np.testing.assert_array_equal(array, loaded[name])
    save_checkpoint(checkpoint, tmp_path / "without")
    assert load_checkpoint(tmp_path / "without").lists == {}
    assert not (tmp_path / "without" / "lists.npz").exists()


def test_a_built_network_predicts_what_the_saved_one_did(spec, vocabularies, tmp_path):
    """Both kinds come back as networks in evaluation mode with the same weights, and building draws nothing."""
    config = BstConfig(width=16, gap_width=4, heads=2, mlp=(8,), seed=3)
    bst = Bst(config, spec, vocabularies)
    saved = checkpoint_of(
        bst, config=config, spec=spec, vocabularies=vocabularies, trained_through="2026-11-24", about={}
    )
    save_checkpoint(saved, tmp_path / "bst")
    before = torch.random.get_rng_state()
    built = build(load_checkpoint(tmp_path / "bst"))
    assert torch.equal(before, torch.random.get_rng_state())
    assert not built.training
    history = [torch.randint(0, 4, (2, spec.history_length)) for _ in range(3)]
    rest = [torch.tensor([2, 3]), torch.tensor([[2, 3], [4, 5]]), torch.tensor([[1, 2], [3, 1]]), torch.randn(2, 2, 4)]
    assert torch.equal(built(*history, *rest), bst.eval()(*history, *rest))


def test_equal_checkpoints_have_equal_bytes(checkpoint, tmp_path):
    """No clock and no order of entries enters a checkpoint's files."""
    save_checkpoint(checkpoint, tmp_path / "one")
    backwards = dict(reversed(checkpoint.weights.items()))
    save_checkpoint(replace(checkpoint, weights=backwards), tmp_path / "two")
    names = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file())
    assert [str(name) for name in names] == [
        "model.json",
        "vocabularies/country.arrow",
        "vocabularies/item_id.arrow",
        "vocabularies/shelf.arrow",
        "weights.npz",
    ]
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_nothing_in_a_checkpoint_is_pickled(checkpoint, tmp_path):
    """Weights that would need pickle are refused, and those written are read without it."""
    objects = {"object": np.array([{}], dtype=object)}
    with pytest.raises(ValueError, match="allow_pickle"):
        save_checkpoint(replace(checkpoint, weights=objects), tmp_path / "pickled")
    assert not (tmp_path / "pickled").exists()


def test_a_checkpoint_is_never_rewritten(checkpoint, tmp_path):
    """A folder that exists is left as it is."""
    save_checkpoint(checkpoint, tmp_path / "mind")
    with pytest.raises(ConflictError, match="mind"):
        save_checkpoint(checkpoint, tmp_path / "mind")


@pytest.mark.parametrize("name", ["weights.npz", "vocabularies/shelf.arrow"])
@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_a_damaged_file_is_named(checkpoint, tmp_path, name, damage):
    """A flipped bit, a cut or missing file is found before it is used."""
    save_checkpoint(checkpoint, tmp_path / "mind")
    path = tmp_path / "mind" / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    if damage == "remove":
        path.unlink()
    else:
        path.write_bytes(data if damage == "flip" else data[:-1])
    with pytest.raises(CorruptError, match=path.name):
        load_checkpoint(tmp_path / "mind")


def test_a_file_that_is_not_listed_is_named(checkpoint, tmp_path):
    """Nothing may lie in a checkpoint that its list does not know."""
    save_checkpoint(checkpoint, tmp_path / "mind")
    (tmp_path / "mind" / "extra.bin").write_bytes(b"x")
    with pytest.raises(CorruptError, match=r"extra\.bin.*not listed"):
        load_checkpoint(tmp_path / "mind")


@pytest.mark.parametrize("key", ["kind", "config", "spec", "trained_through", "files", "format", "digest"])
def test_a_changed_document_is_refused(checkpoint, tmp_path, key):
    """Every field of model.json is needed."""
    save_checkpoint(checkpoint, tmp_path / "mind")
    path = tmp_path / "mind" / "model.json"
    document = json.loads(path.read_text("utf-8"))
    del document[key]
    path.write_text(json.dumps(document), "utf-8")
    with pytest.raises(CorruptError, match=r"model\.json"):
        load_checkpoint(tmp_path / "mind")


def test_one_changed_letter_of_the_document_is_refused(checkpoint, tmp_path):
    """The document has a digest of its own: another last day is not believed."""
    save_checkpoint(checkpoint, tmp_path / "mind")
    path = tmp_path / "mind" / "model.json"
    path.write_text(path.read_text("utf-8").replace("2026-11-24", "2026-11-23"), "utf-8")
    with pytest.raises(CorruptError, match=r"model\.json"):
        load_checkpoint(tmp_path / "mind")


def test_a_folder_without_a_checkpoint_is_a_usage_error(tmp_path):
    """The message says what makes one."""
    with pytest.raises(UsageError, match="nightrec fit"):
        load_checkpoint(tmp_path)


def test_weights_of_another_network_are_refused(checkpoint):
    """Weights must be those of the config's network: the message names one and both shapes."""
    wide = replace(checkpoint, config=replace(checkpoint.config, width=16))
    with pytest.raises(CorruptError, match=r"head\.0\.0\.weight is \(8, 24\).*\(8, 32\)"):
        build(wide)
