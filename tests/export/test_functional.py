"""Keras files that cannot be exported are refused in words."""

from pathlib import Path

import pytest

from artifacts.errors import UsageError
from export.functional import load_functional
from models.backend import keras


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "user.keras"
    path.write_text("no model")

    with pytest.raises(UsageError, match=r"user\.keras: Keras cannot load it: "):
        load_functional(path)


def test_a_model_with_code_of_its_own_is_refused(tmp_path: Path) -> None:
    """A Lambda layer carries Python's bytes, which would run here."""
    path = tmp_path / "user.keras"
    given = keras.Input((3,), name="history")
    keras.Model(given, keras.layers.Lambda(lambda x: x * 2)(given)).save(path)

    with pytest.raises(UsageError, match=r"user\.keras: Keras cannot load it: .*[Ll]ambda"):
        load_functional(path)


def test_a_model_whose_inputs_have_no_names_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "user.keras"
    with pytest.warns(UserWarning, match="not yet been built"):  # never called: nothing says what it is given
        keras.Sequential([keras.layers.Dense(2)]).save(path)

    with pytest.raises(UsageError, match="expected a functional Keras model, whose inputs have names"):
        load_functional(path)
