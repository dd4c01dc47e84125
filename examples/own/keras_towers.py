"""Two towers as functional Keras 3 models, saved as ``.keras`` files.

``KERAS_BACKEND=torch python -m examples.own.keras_towers FOLDER`` writes them beside the lists that
``examples.own.two_tower`` left in FOLDER. Histories may have any length.
"""

import json
import sys
from pathlib import Path
from typing import Any

import keras
from keras import layers, ops

WIDTH, FIRST = 16, 2


def towers(items: int, countries: int) -> tuple[Any, Any]:
    """Build both models; the table of the items is one layer."""
    table = layers.Embedding(items, WIDTH, name="items")
    sku = keras.Input((), dtype="int32", name="sku")
    item = keras.Model(sku, layers.UnitNormalization(name="direction")(table(sku)), name="item")

    history = keras.Input((None,), dtype="int32", name="history")
    country = keras.Input((), dtype="int32", name="country")
    real = ops.expand_dims(ops.cast(ops.not_equal(history, 0), "float32"), -1)
    # GlobalAveragePooling1D with a mask gives NaN for an empty history: here it is divided by at least 1.
    mean = ops.sum(table(history) * real, axis=1) / ops.maximum(ops.sum(real, axis=1), 1)
    mixed = layers.Dense(32, activation="relu")(mean + layers.Embedding(countries, WIDTH)(country))
    vector = layers.UnitNormalization()(layers.Dense(WIDTH)(mixed))
    return item, keras.Model({"history": history, "country": country}, vector, name="user")


def write(folder: Path) -> None:
    """Write both files."""
    keras.utils.set_random_seed(3)
    known = json.loads((folder / "known.json").read_text())
    item, user = towers(FIRST + len(known["sku"]), FIRST + len(known["country"]))
    item.save(folder / "item.keras")
    user.save(folder / "user.keras")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
