"""What BST is compared with, beside sums written out in NumPy."""

import numpy as np
import pyarrow as pa
import torch

from artifacts.bundle import FeatureSpec
from benchmarks.quality.rankers import Pooled
from features.vocabulary import fit_vocabulary
from models.bst import BstConfig

SPEC = FeatureSpec(("item_id",), (), history_length=5, gap_edges=(3600,), cross_features=("retrieval_score",))


def test_din_weighs_each_behaviour_by_it_the_candidate_and_their_product() -> None:
    config = BstConfig(width=6, gap_width=2, heads=2, mlp=(4,), seed=3)
    din = Pooled("attention", config, SPEC, {"item_id": fit_vocabulary("item_id", pa.array(range(9)))})
    random = np.random.default_rng(4)
    x, x_c = random.normal(size=(3, 5, 6)).astype(np.float32), random.normal(size=(3, 2, 6)).astype(np.float32)
    real = np.array([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [0, 0, 0, 0, 0]], bool)
    first, bend, last = din.weigh
    with torch.no_grad():
        found = din.pooled(*(torch.from_numpy(array) for array in (x, real, x_c))).numpy()
        slope = float(bend.weight)
        inner, outer = first.weight.numpy(), last.weight.numpy()[0]
        for user in range(3):
            for place in range(2):
                expected = np.zeros(6)
                for behaviour in x[user][real[user]]:
                    seen = inner @ np.concatenate([behaviour, x_c[user, place], behaviour * x_c[user, place]])
                    seen += first.bias.numpy()
                    weight = outer @ np.where(seen > 0, seen, slope * seen) + last.bias.item()
                    expected += weight * behaviour
                np.testing.assert_allclose(found[user, place], expected, atol=1e-5)
