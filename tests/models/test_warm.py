"""A warm start: rows go with their ids, new ids get rows of their own, and other networks are refused."""

import hashlib
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch

from artifacts.errors import UsageError
from features.vocabulary import Vocabulary, fit_vocabulary
from models.bst import Bst, BstConfig
from models.checkpoint import checkpoint_of
from models.mind import Mind, MindConfig
from models.warm import fresh_rows, grown, start_warm

MIND = MindConfig(width=8, interests=2, hidden=(8,), start_rows=16)
BST = BstConfig(width=16, gap_width=4, heads=2, ffn_width=8, mlp=(8,))


def words(values):
    return Vocabulary("item_id", pa.array(values))


def test_rows_go_with_their_ids_and_gone_ones_go():
    """Of the ids 10, 20, 30 the second goes and 15 and 40 come; with a deviation of 0 their rows are zero."""
    table = np.array([[0, 0], [1, 1], [10, 11], [20, 21], [30, 31]], np.float32)

    found = grown(table, words([10, 20, 30]), words([10, 15, 30, 40]), seed=1, deviation=0.0)

    np.testing.assert_array_equal(found, [[0, 0], [1, 1], [10, 11], [0, 0], [30, 31], [0, 0]])
    assert found.dtype == np.float32


def test_a_fresh_row_follows_from_seed_feature_and_id_alone():
    """Which other ids are new, and in which order, changes no draw; seed, feature and id each change it."""
    md5 = {text: int.from_bytes(hashlib.md5(text.encode()).digest()[:8], "little") for text in ("item_id", "15")}
    by_hand = np.random.default_rng([7, md5["item_id"], md5["15"]]).standard_normal(3).astype(np.float32)

    alone = fresh_rows("item_id", pa.array([15]), 3, 7)
    among = fresh_rows("item_id", pa.array([3, 99, 15]), 3, 7)

    np.testing.assert_array_equal(alone, [by_hand])
    np.testing.assert_array_equal(among[2], by_hand)
    others = [fresh_rows("item_id", pa.array([15]), 3, 8), fresh_rows("shelf", pa.array([15]), 3, 7), among[:1]]
    assert not any(np.array_equal(other, alone) for other in others)
    many = fresh_rows("item_id", pa.array(np.arange(2_000)), 4, 1)
    assert abs(many.mean()) < 0.05
    assert many.std() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("network", [Mind, Bst])
def test_a_network_begins_with_the_vectors_of_known_ids(network, spec, vocabularies):
    """With a grown vocabulary each known id is embedded as before, each other weight is equal, a new id differs."""
    config = MIND if network is Mind else BST
    old = network(config, spec, vocabularies)
    with torch.no_grad():  # as if it had been trained: nothing is what a new network would begin with
        for parameter in old.parameters():
            parameter.add_(0.25)
    start = checkpoint_of(
        old, config=config, spec=spec, vocabularies=vocabularies, trained_through="1970-01-01", about={}
    )
    ids = [50, *range(100, 110), *range(111, 124), 777]  # 110 is gone
    after = vocabularies | {"item_id": fit_vocabulary("item_id", pa.array(ids))}
    new = network(config, spec, after)

    start_warm(new, start, after)

    before, now = old.item_tables[0].weight, new.item_tables[0].weight
    known = pa.array([one for one in ids if 100 <= one < 124])
    places = [torch.from_numpy(words_.encode(known)) for words_ in (vocabularies["item_id"], after["item_id"])]
    assert torch.equal(before[places[0]], now[places[1]])
    assert torch.equal(before[:2], now[:2])
    fresh = now[torch.from_numpy(after["item_id"].encode(pa.array([50, 777])))]
    assert fresh.std().item() == pytest.approx(old.deviation, rel=0.6)
    tables = {"item_tables.0.weight"}
    others = {name: parameter for name, parameter in new.named_parameters() if name not in tables}
    assert all(torch.equal(parameter, old.get_parameter(name)) for name, parameter in others.items())


def test_what_differs_is_said_in_one_line(spec, vocabularies):
    """Kind, spec, config, a weight of one side alone and the type of an id: each by its name."""
    mind = Mind(MIND, spec, vocabularies)

    def start(network, config, told=spec):
        made = {"config": config, "spec": told, "vocabularies": vocabularies, "trained_through": "1970-01-01"}
        return checkpoint_of(network(config, told, vocabularies), **made, about={})

    for other, said in (
        (start(Bst, BST), "kind is bst in the checkpoint, but mind here"),
        (start(Mind, MIND, replace(spec, history_length=7)), "history_length is 7 in the checkpoint, but 6 here"),
        (start(Mind, replace(MIND, interests=3)), "interests is 3 in the checkpoint, but 2 here"),
    ):
        with pytest.raises(UsageError, match=f"^warm start: {said}; make them equal, or fit anew$"):
            start_warm(mind, other, vocabularies)
    ranker, earlier = Bst(BST, spec, vocabularies), start(Bst, BST)
    fewer = {name: array for name, array in earlier.weights.items() if name != "head.wide"}
    for weights, said in (
        (fewer, "head.wide is in the network, but not in the checkpoint"),
        ({**earlier.weights, "head.scale": np.ones(())}, "head.scale is in the checkpoint alone"),
    ):
        with pytest.raises(UsageError, match=f"^warm start: the weight {said}, which is of another version; fit anew$"):
            start_warm(ranker, replace(earlier, weights=weights), vocabularies)
    text = vocabularies | {"item_id": fit_vocabulary("item_id", pa.array(["a"]))}
    with pytest.raises(UsageError, match="warm start: item_id is int64 in the checkpoint, but string here; cast"):
        start_warm(Mind(MIND, spec, text), start(Mind, MIND), text)
