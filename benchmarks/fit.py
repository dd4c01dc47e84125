"""Fitting MIND beside a plain torch loop of the same network, batches and negatives: what Keras and our care cost.

``python -m benchmarks.fit`` prints ``fit_vs_plain_torch`` as JSON: examples a second of a whole epoch of ``fit_mind``
over those of a loop as one writes it by hand, which neither keeps sums in a fixed order nor measures anything.
"""

import json
from datetime import date

import numpy as np
import pyarrow as pa
import torch

from artifacts.bundle import FeatureSpec, Role, input_names
from benchmarks.ratio import in_turn
from features.encode import item_features
from features.sequences import Sequences
from features.vocabulary import fit_vocabulary
from models.examples import split_by_time
from models.fit import FitOptions, event_counts, fit_mind, mind_batches
from models.losses import sampled_softmax, score_targets
from models.mind import Mind, MindConfig
from models.trainers import hide_ids, sampler_of

ITEMS, USERS, EVENTS, DAYS = 20_000, 600, 40, 20
DAY_US = 86_400_000_000
ROUNDS = 5
SPEC = FeatureSpec(item_features=("item_id", "shelf"), history_length=20)
CONFIG, OPTIONS = MindConfig(), FitOptions(epochs=1, verbose=False)
SPLIT = split_by_time(train_until=date(1970, 1, DAYS), validate_until=date(1970, 1, DAYS), zone="UTC")


def made() -> tuple[Sequences, dict[str, object]]:
    """A shop whose items are popular as one over their rank, and each user's events of 20 days."""
    random = np.random.default_rng(1)
    ids, shelves = pa.array(np.arange(ITEMS)), pa.array(np.arange(ITEMS) % 50)
    vocabularies = {"item_id": fit_vocabulary("item_id", ids), "shelf": fit_vocabulary("shelf", shelves)}
    catalogue = pa.table(
        {
            "item_id": ids,
            "feature_item_id": vocabularies["item_id"].encode(ids),
            "feature_shelf": vocabularies["shelf"].encode(shelves),
            "eligible": np.ones(ITEMS, dtype=bool),
        }
    )
    shares = 1 / np.arange(1, ITEMS + 1)
    times = np.sort(random.integers(0, DAYS * DAY_US, (USERS, EVENTS)), axis=1)
    sequences = Sequences(
        user_ids=pa.array(np.arange(USERS)),
        starts=np.arange(USERS + 1) * EVENTS,
        items=random.choice(ITEMS, USERS * EVENTS, p=shares / shares.sum()).astype(np.int32),
        times_us=times.ravel(),
        catalogue=catalogue,
        profiles={},
        counts={},
    )
    return sequences, {"spec": SPEC, "vocabularies": vocabularies}


def plain(sequences: Sequences, vocabularies: dict[str, object]) -> None:
    """One epoch, as one writes it in torch by hand."""
    batches = mind_batches(sequences, SPLIT, spec=SPEC, options=OPTIONS)
    mind, sampler = Mind(CONFIG, SPEC, vocabularies), sampler_of(event_counts(sequences, SPLIT), OPTIONS.draws)
    catalogue = [torch.from_numpy(rows.copy()) for rows in item_features(sequences.catalogue, SPEC).values()]
    optimizer = torch.optim.Adam(mind.parameters(), OPTIONS.learning_rate, eps=1e-7, foreach=True)
    how = {"attention": CONFIG.attention, "power": CONFIG.power}
    for number in range(len(batches)):
        inputs, wanted, weighed = batches[number]
        told = [torch.from_numpy(inputs[name]) for name in input_names(Role.USER, SPEC)]
        targets, weights = torch.from_numpy(wanted), torch.from_numpy(weighed)
        interests, count, _ = mind.interests(*hide_ids(told, CONFIG.unknown_rate))
        drawn = sampler.draw()
        asked = torch.cat([targets.flatten(), drawn])
        vectors = mind.item_vectors(*hide_ids([rows[asked] for rows in catalogue], CONFIG.unknown_rate))
        positives = vectors[: targets.numel()].reshape(*targets.shape, -1)
        loss = sampled_softmax(
            *score_targets(interests, count, positives, vectors[targets.numel() :], **how),
            weights,
            hits=targets[:, :, None] == drawn,
            log_q=sampler.log_inclusion(targets),
            candidate_log_q=sampler.log_inclusion(drawn),
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def main() -> None:
    """Print the figure."""
    torch.set_num_threads(OPTIONS.threads)
    sequences, told = made()
    examples = mind_batches(sequences, SPLIT, spec=SPEC, options=OPTIONS).examples
    ratio = in_turn(
        lambda: fit_mind(sequences, **told, split=SPLIT, config=CONFIG, options=OPTIONS),
        lambda: plain(sequences, told["vocabularies"]),
        rounds=ROUNDS,
    )
    about = {"items": ITEMS, "examples": examples, "batch": OPTIONS.batch, "draws": OPTIONS.draws}
    print(json.dumps({"fit_vs_plain_torch": ratio.document(**about)}, indent=2))


if __name__ == "__main__":
    main()
