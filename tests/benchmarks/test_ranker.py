"""The plain ranker that ours is measured against computes the same."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch

from artifacts.bundle import FeatureSpec, Role, input_names
from benchmarks.ranker import WholeBlocks, as_pairs
from features.vocabulary import fit_vocabulary
from models.bst import Bst, BstConfig

SPEC = FeatureSpec(("item_id",), ("country",), 5, (3600,), ("retrieval_score",))
CONFIG = BstConfig(width=12, gap_width=4, heads=2, ffn_width=10, profile_width=2, mlp=(9, 8, 7), seed=4)
VOCABULARIES = {
    "item_id": fit_vocabulary("item_id", pa.array(range(20))),
    "country": fit_vocabulary("country", pa.array(["de", "fr"])),
}
USERS, CANDIDATES = 4, 3


def drawn() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    padded = np.arange(5) >= np.array([0, 1, 3, 5])[:, None]
    arrays = [
        np.where(padded, 0, rng.integers(1, 22, (USERS, 5))),
        np.where(padded, 0, rng.integers(1, 3, (USERS, 5))),
        rng.integers(1, 4, USERS),
        rng.integers(1, 22, (USERS, CANDIDATES)),
        rng.standard_normal((USERS, CANDIDATES, 1), dtype=np.float32),
    ]
    return dict(zip(input_names(Role.RANKER, SPEC), arrays, strict=True))


@pytest.mark.parametrize("output", ["target", "all"])
def test_the_plain_form_scores_as_ours_list_by_list_and_pair_by_pair(output) -> None:
    config = replace(CONFIG, output=output)
    ours, plain = (kind(config, SPEC, VOCABULARIES).eval() for kind in (Bst, WholeBlocks))
    with torch.no_grad():
        for weight in ours.parameters():
            weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(8)) * 0.3)
    plain.load_state_dict(ours.state_dict())
    lists, pairs = drawn(), as_pairs(drawn())

    with torch.no_grad():
        expected = ours(*(torch.from_numpy(array) for array in lists.values()))
        found = plain(*(torch.from_numpy(array) for array in lists.values()))
        singly = plain(*(torch.from_numpy(array) for array in pairs.values()))

    assert expected.std() > 0.01
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(singly.reshape(USERS, CANDIDATES), expected, rtol=0, atol=1e-5)
