"""A fit that was killed goes on where it was, and ends in the same numbers to the bit."""

from dataclasses import replace
from datetime import date

import numpy as np
import pytest

from artifacts.errors import CorruptError, UsageError
from models.bst import BstConfig
from models.candidates import Night
from models.course import Course, Keeper, State, load_state, save_state
from models.examples import split_by_time
from models.fit import FitOptions, fit_bst, fit_mind
from models.mind import MindConfig

MIND = MindConfig(width=8, interests=2, hidden=(8,), start_rows=16, normalise=False, power=2.0)
BST = BstConfig(width=16, gap_width=4, heads=2, ffn_width=8, mlp=(8,))
OPTIONS = FitOptions(epochs=6, patience=6, batch=32, learning_rate=0.02, targets=2, verbose=False, clipnorm=1.0)
DAYS = {"train_until": date(1970, 1, 15), "validate_until": date(1970, 1, 20), "zone": "UTC"}


class KilledError(Exception):
    """As if the process had been killed."""


@pytest.fixture(scope="module")
def fit(sequences, spec, vocabularies):
    """Fit one of the networks; BST learns from the candidates of a MIND of the first six days."""
    told = {"spec": spec, "vocabularies": vocabularies}
    split = split_by_time(**DAYS)
    first = split_by_time(train_until=date(1970, 1, 6), validate_until=date(1970, 1, 6), zone="UTC")
    earlier = fit_mind(sequences, **told, split=first, config=MIND, options=replace(OPTIONS, epochs=1))

    def fit_network(network, options, course):
        if network == "mind":
            return fit_mind(sequences, **told, split=split, config=MIND, options=options, course=course)
        how = {"retrieval": earlier, "night": Night(candidates=12, exclude_seen="none"), "config": BST}
        return fit_bst(sequences, **told, split=split, **how, options=options, course=course)

    return fit_network


def kill_after(epochs, monkeypatch):
    """Let every fit end as soon as the state of this many epochs is on disk."""
    kept = Keeper.on_epoch_end

    def keep_and_die(self, epoch, logs=None):
        kept(self, epoch, logs)
        if epoch + 1 == epochs:
            raise KilledError

    monkeypatch.setattr(Keeper, "on_epoch_end", keep_and_die)


def same(one, other):
    """Whether two checkpoints are equal to the bit, in what they tell of their training too."""
    arrays = one.weights.keys() == other.weights.keys() and all(
        np.array_equal(array, other.weights[name]) for name, array in one.weights.items()
    )
    return arrays and one.about == other.about


@pytest.mark.parametrize(
    ("network", "changed"),
    [
        ("mind", {}),
        ("bst", {"optimizer": "adagrad"}),  # dropout draws from torch's generator
        ("bst", {"ema_momentum": 0.9}),
        ("mind", {"patience": 0, "learning_rate": 0.3}),  # stops early: killed in the epoch after which it stops
    ],
)
def test_a_killed_fit_goes_on_and_ends_in_the_same_weights(fit, network, changed, tmp_path, monkeypatch):
    """Weights, optimizer, early stopping, drawn numbers and the order of the batches are what they were."""
    options = replace(OPTIONS, **changed)
    whole = fit(network, options, Course(log=tmp_path / "whole.csv"))
    done = min(3, whole.about["epochs"])
    course = Course(state=tmp_path / "state.npz", log=tmp_path / "log.csv", asked="this")
    with monkeypatch.context() as patch, pytest.raises(KilledError):
        kill_after(done, patch)
        fit(network, options, course)
    kept = load_state(course.state, "this")
    assert (kept.epochs, kept.stopped) == (done, changed.get("patience") == 0)

    assert same(fit(network, options, course), whole)

    assert (tmp_path / "log.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert not same(fit(network, replace(options, seed=2), Course()), whole)


def test_the_state_of_another_fit_is_not_gone_on_with(fit, tmp_path, monkeypatch, capfd):
    """What was fitted from something else is no beginning; what is the same says that it goes on."""
    course = Course(state=tmp_path / "state.npz", asked="this")
    with monkeypatch.context() as patch, pytest.raises(KilledError):
        kill_after(2, patch)
        fit("mind", OPTIONS, course)
    aloud = replace(OPTIONS, verbose=True)

    fit("mind", aloud, replace(course, asked="that", state=tmp_path / "state.npz"))
    assert "goes on" not in capfd.readouterr().err
    save_state(course.state, replace(load_state(course.state, "that"), epochs=5), "this")
    fit("mind", aloud, course)
    assert "nightrec: MIND: goes on after epoch 5 of 6\n" in capfd.readouterr().err


def test_the_state_of_another_versions_network_is_refused(fit, tmp_path, monkeypatch):
    """Weights of other shapes cannot be gone on with: one line names the file and says what to do."""
    course = Course(state=tmp_path / "state.npz", asked="this")
    with monkeypatch.context() as patch, pytest.raises(KilledError):
        kill_after(1, patch)
        fit("bst", OPTIONS, course)
    kept = load_state(course.state, "this")
    save_state(course.state, replace(kept, weights=[array[..., None] for array in kept.weights]), "this")

    with pytest.raises(
        UsageError, match=r"^.*state\.npz: expected an unfinished fit of this network.*remove it[^\n]*$"
    ):
        fit("bst", OPTIONS, course)


def test_a_state_comes_back_as_it_was_and_a_damaged_one_is_named(tmp_path):
    """Every number survives the disk; what is no state is refused with what to do."""
    path = tmp_path / "state.npz"
    arrays = [np.arange(3, dtype=np.float32), np.ones((2, 2), np.float32)]
    state = State(3, False, 4, {"loss": [0.5, 0.25, 0.125]}, {"best": 0.25, "wait": 1}, weights=arrays, random=[])
    assert load_state(path, "this") is None
    save_state(path, state, "this")

    found = load_state(path, "this")

    assert replace(found, weights=[]) == replace(state, weights=[])
    assert all(np.array_equal(*pair) for pair in zip(found.weights, arrays, strict=True))
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CorruptError, match=r"state\.npz: expected the state of an unfinished fit, .* begin anew"):
        load_state(path, "this")


def test_a_warm_start_that_has_seen_the_days_to_validate_on_is_refused(fit, tmp_path):
    """Its validation would be worth nothing; the message has both days."""
    fitted = fit("mind", replace(OPTIONS, epochs=1), Course())
    later = replace(fitted, trained_through="1970-01-16")

    with pytest.raises(UsageError, match=r"was trained through 1970-01-16, after the last day .* here, 1970-01-15"):
        fit("mind", OPTIONS, Course(start=later))

    again = fit("mind", replace(OPTIONS, epochs=1), Course(start=fitted))
    assert again.about["curves"]["loss"][0] < fitted.about["curves"]["loss"][0]
