"""A bundle whose weights lie beside its graph, as they do over 2 GB."""

from pathlib import Path

import onnx

from artifacts.layout import BundleLayout
from tests.faults.models import keep, sealed_anew


def give_external_data(folder: Path, location: str = "model.onnx.data") -> None:
    """Move the first table of the graph in *folder* to *location*, a path from there, and seal the contract anew."""
    keep(folder)
    graph = BundleLayout(folder).graph
    model = onnx.load(graph)
    tensor = model.graph.initializer[0]
    weights = tensor.raw_data
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", str(len(weights)))):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    graph.write_bytes(model.SerializeToString())
    if not location.startswith("/proc"):
        (folder / location).write_bytes(weights)
    sealed_anew(folder)
