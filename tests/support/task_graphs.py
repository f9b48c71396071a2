"""Detectors that find the same in every picture, of every task, as small ONNX files of the forms that are exported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper, save

__all__ = ["classic", "save_detector"]


def save_detector(
    path: Path, outputs: Mapping[str, NDArray[np.float32]], metadata: Mapping[str, object], *, side: int
) -> Path:
    """Write a model of pictures of side x side whose outputs are these, whatever it sees.

    Args:
        path: where to.
        outputs: by name, without their batch.
        metadata: as an exporter writes it.
        side: of its input, pixels.
    """
    zero = numpy_helper.from_array(np.zeros((1, 1, 1, 1), np.float32), "zero")
    nodes = [
        helper.make_node("GlobalAveragePool", ["images"], ["means"]),
        helper.make_node("ReduceMean", ["means"], ["mean"], axes=[1, 2, 3], keepdims=1),
        helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
    ]
    constants, values = [zero], []
    for name, array in outputs.items():
        shape = numpy_helper.from_array(np.array([1] * (array.ndim + 1)), f"{name}_shape")
        constants += [numpy_helper.from_array(array[None].astype(np.float32), f"{name}_value"), shape]
        nodes += [
            helper.make_node("Reshape", ["nothing", f"{name}_shape"], [f"{name}_nothing"]),
            helper.make_node("Add", [f"{name}_value", f"{name}_nothing"], [name]),
        ]
        values.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, *array.shape]))
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, side, side])
    graph = helper.make_graph(nodes, "detector", [images], values, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {key: str(value) for key, value in metadata.items()})
    save(model, path)
    return path


def classic(rows: Sequence[Sequence[float]], classes: int) -> NDArray[np.float32]:
    """The output of a classic head: centre x, centre y, width, height, confidence, class, and what is beside them."""
    found = np.zeros((len(rows), len(rows[0]) - 2 + classes), np.float32)
    for at, row in enumerate(rows):
        found[at, :4], found[at, 4 + int(row[5])], found[at, 4 + classes :] = row[:4], row[4], row[6:]
    return found.T
