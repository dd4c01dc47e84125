"""MIND learns from users' days, each asked in its morning."""

import numpy as np

from models.candidates import Night
from models.checkpoint import build
from models.evaluate import mind_scores, retrieval_quality
from models.examples import next_day
from models.fit import FitOptions, fit_mind, mind_examples
from models.mind import MindConfig

DAY = 86_400_000_000
MIND = MindConfig(width=16, interests=2, hidden=(16,), start_rows=16, normalise=True, temperature=0.1)
OPTIONS = FitOptions(epochs=20, patience=20, batch=32, learning_rate=0.02, asks="day", targets=2, verbose=False)


def test_days_teach_the_taste(sequences, spec, vocabularies, split):
    """Of held-out days the eight best items are those of the user's own taste."""
    told = {"spec": spec, "vocabularies": vocabularies, "split": split, "config": MIND, "options": OPTIONS}
    score = mind_scores(sequences, build(fit_mind(sequences, **told)))
    examples = next_day(sequences, split.valid, zone="UTC")
    night = Night(candidates=12, exclude_seen="none")
    assert retrieval_quality(sequences, examples, score, night=night, ks=(8,)).hit_rate[8] > 0.95


def test_training_asks_anew_and_validation_the_same(sequences, split):
    """Every epoch of training draws other items of the days before validation's, which are asked alike each time."""

    def asks(training):
        asked = mind_examples(sequences, split, OPTIONS, training=training)
        return lambda epoch: asked(epoch).take(np.arange(len(asked(epoch))))

    train, valid = asks(True), asks(False)
    assert not np.array_equal(train(0).targets, train(1).targets)
    assert np.array_equal(train(1).targets, train(1).targets)
    assert np.array_equal(valid(0).targets, valid(1).targets)
    for asked, window in ((train(0), split.train), (valid(0), split.valid)):
        assert len(asked) > 10
        assert (asked.now_us % DAY == 0).all()
        assert ((asked.now_us >= window.start_us) & (asked.now_us < window.end_us)).all()
