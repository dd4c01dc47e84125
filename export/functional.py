"""A Keras 3 model on the torch backend as a module whose inputs have an order."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from artifacts.errors import UsageError
from models.backend import keras


class Functional(torch.nn.Module):
    """Calls a Keras model: ``forward(*inputs)`` in the order of the model's own.

    Attributes:
        model: The model, a torch module itself.
        inputs: Names of its inputs, in order.
    """

    def __init__(self, model: Any) -> None:
        """Keep the *model*."""
        super().__init__()
        self.model = model
        self.inputs = tuple(one.name for one in model.inputs)

    def forward(self, *inputs: Tensor) -> Any:
        """Run the model as in inference."""
        result = self.model(keras.tree.pack_sequence_as(self.model.input, list(inputs)), training=False)
        outputs = keras.tree.flatten(result)
        return outputs[0] if len(outputs) == 1 else tuple(outputs)


def load_functional(path: Path) -> Functional:
    """Read a ``.keras`` file.

    Raises:
        UsageError: If it is none, needs code of its own, or has no inputs by name.
    """
    try:
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(f"{path}: Keras cannot load it: {str(error).strip().splitlines()[0]}") from error
    if not isinstance(model, keras.Model) or not getattr(model, "inputs", None):
        raise UsageError(f"{path}: expected a functional Keras model, whose inputs have names")
    return Functional(model)
