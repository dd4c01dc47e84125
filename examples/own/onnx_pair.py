"""Two towers as finished ONNX files, as another project's exporter makes them: its own names, opset and input types.

``python -m examples.own.onnx_pair FOLDER`` exports the model that ``examples.own.two_tower`` left in FOLDER.
"""

import sys
from pathlib import Path

import torch

from examples.own.two_tower import LENGTH, item_tower, user_tower


def write(folder: Path) -> None:
    """Write ``item_tower.onnx`` and ``user_tower.onnx``."""
    batch = torch.export.Dim("batch_size")
    one, many = (3,), (3, LENGTH)
    for name, tower, inputs in (
        ("item_tower", item_tower(folder), {"x_sku": one, "x_cat": one}),
        ("user_tower", user_tower(folder), {"x_skus": many, "x_cats": many, "x_country": one}),
    ):
        torch.onnx.export(
            tower.eval(),
            tuple(torch.ones(shape, dtype=torch.int64) for shape in inputs.values()),  # one tensor twice is one input
            str(folder / f"{name}.onnx"),
            input_names=list(inputs),
            output_names=["tower_out"],
            dynamic_shapes=[{0: batch}] * len(inputs),
            dynamo=True,
            external_data=False,
            verbose=False,
        )


if __name__ == "__main__":
    write(Path(sys.argv[1]))
