"""The approximate index beside exact search, on a shop small enough to count by hand."""

from dataclasses import replace

import numpy as np
import pytest

from batch.indexed import appended
from batch.ivf import IndexOptions, train
from batch.retrieve import Index
from benchmarks.quality import approximate, learned, protocol
from models.fit import FitOptions
from models.mind import Mind, MindConfig

SETTING = learned.Setting(MindConfig(width=8, hidden=(8,), normalise=True), FitOptions(epochs=1), popular_weight=1.0)


def test_exact_search_gives_what_scoring_everything_gives(part: protocol.Part) -> None:
    network = Mind(SETTING.config, part.spec, part.vocabularies)
    index = approximate.index_of(part, network, SETTING)
    found = approximate.lists_of(part, network, index, nprobe=index.ivf.nlist)
    one_night = replace(part.questions, now_us=np.full(len(part.questions), part.cut_us))
    scores = learned.scorer_of(part, network, SETTING)(one_night)
    expected = np.argsort(-scores, axis=1, kind="stable")
    assert found["all"][:, :6].tolist() == expected.tolist()
    kept = [[row for row in order if row not in had] for order, had in zip(expected, part.asked.had, strict=True)]
    assert [[row for row in rows if row >= 0] for rows in found["new"].tolist()] == kept


def test_what_lies_in_lists_that_are_not_searched_is_missed(part: protocol.Part) -> None:
    """Items at six corners, a list for each: of one list a search finds one item, unless it has to be widened."""
    network = Mind(SETTING.config, part.spec, part.vocabularies)
    corners = np.hstack([np.eye(6, 8, dtype=np.float32), np.zeros((6, len(appended(8, 1.0))), np.float32)])
    ivf = train(np.repeat(corners, 40, axis=0), IndexOptions(lists=6), threads=1)
    ivf.reset()
    ivf.add(corners)
    index = Index(ivf, np.arange(6, dtype=np.int32), corners, 1, 1, append=appended(8, 1.0))
    _, counts = approximate.interests_of(part, network, part.questions)
    assert counts.tolist() == [1, 1]  # of three behaviours and of two
    narrow = approximate.lists_of(part, network, index, nprobe=1)["all"]
    exact = approximate.lists_of(part, network, index, nprobe=6)["all"]
    assert (narrow[:, 0] >= 0).all()
    assert (exact >= 0).sum() == 12


def test_a_catalogue_of_one_list_loses_nothing(part: protocol.Part) -> None:
    network = Mind(SETTING.config, part.spec, part.vocabularies)
    rows = approximate.measured(part, network, SETTING)
    assert rows["exact"] == rows["ivf"] == rows["ivf_98"]
    assert rows["ivf"]["lists"] == 1.0
    assert rows["ivf"]["all.hr@50"] == pytest.approx(1.0)  # six items fit into fifty places
