"""Keras on the torch backend: the one place that imports it."""

import os

from artifacts.errors import UsageError

__all__ = ["keras"]

_given = os.environ.get("KERAS_BACKEND")
os.environ["KERAS_BACKEND"] = "torch"
try:
    import keras
finally:  # Keras has read it; a process that is started from this one need not inherit our choice
    if _given is None:
        del os.environ["KERAS_BACKEND"]
    else:
        os.environ["KERAS_BACKEND"] = _given

if keras.backend.backend() != "torch":
    raise UsageError(
        f"expected Keras on the torch backend, found it imported on {keras.backend.backend()}; "
        "set KERAS_BACKEND=torch, or import models.fit before keras"
    )
