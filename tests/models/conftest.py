"""A small world whose answer is known: every user keeps to one taste, and every item belongs to one."""

from datetime import date

import numpy as np
import pyarrow as pa
import pytest
import torch

from artifacts.bundle import FeatureSpec
from features.sequences import Sequences
from features.vocabulary import fit_vocabulary
from models.examples import split_by_time

DAY = 86_400_000_000
TASTES, OF_TASTE, USERS, EVENTS = 3, 8, 60, 10


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Networks this small lose more to waiting threads than they win."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def spec():
    return FeatureSpec(
        item_features=("item_id", "shelf"),
        profile_features=("country",),
        history_length=6,
        gap_edges=(3600, 86_400, 604_800),
        cross_features=("retrieval_score", "times_had", "days_since", "popularity"),
    )


@pytest.fixture(scope="session")
def vocabularies():
    return {
        "item_id": fit_vocabulary("item_id", pa.array(np.arange(100, 100 + TASTES * OF_TASTE))),
        "shelf": fit_vocabulary("shelf", pa.array(["high", "low"])),
        "country": fit_vocabulary("country", pa.array(["de", "fr"])),
    }


@pytest.fixture(scope="session")
def make_sequences(vocabularies):
    """Turn lists of (time in microseconds, catalogue row), one for each user, into sequences."""

    def make(behaviours):
        ids = pa.array(np.arange(100, 100 + TASTES * OF_TASTE))
        shelf = pa.array(["high", "low"] * (len(ids) // 2))
        catalogue = pa.table(
            {
                "item_id": ids,
                "feature_item_id": vocabularies["item_id"].encode(ids),
                "feature_shelf": vocabularies["shelf"].encode(shelf),
                "eligible": np.ones(len(ids), dtype=bool),
            }
        )
        ordered = [sorted(events) for events in behaviours]
        flat = [event for events in ordered for event in events]
        return Sequences(
            user_ids=pa.array(np.arange(len(ordered))),
            starts=np.concatenate([[0], np.cumsum([len(events) for events in ordered])]).astype(np.int64),
            items=np.array([item for _, item in flat], dtype=np.int32),
            times_us=np.array([time for time, _ in flat], dtype=np.int64),
            catalogue=catalogue,
            profiles={"country": (2 + np.arange(len(ordered)) % 2).astype(np.int32)},
            counts={},
        )

    return make


@pytest.fixture(scope="session")
def sequences(make_sequences):
    """60 users with 10 events on 20 days of January 1970; taste t owns the items t, t + 3, t + 6 ..."""
    random = np.random.default_rng(5)
    behaviours = []
    for user in range(USERS):
        times = np.sort(random.integers(0, 20 * DAY, EVENTS))
        items = user % TASTES + TASTES * random.integers(0, OF_TASTE, EVENTS)
        behaviours.append([(int(time), int(item)) for time, item in zip(times, items, strict=True)])
    return make_sequences(behaviours)


@pytest.fixture(scope="session")
def split():
    return split_by_time(train_until=date(1970, 1, 15), validate_until=date(1970, 1, 20), zone="UTC")
