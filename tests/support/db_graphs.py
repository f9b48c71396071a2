"""A DB model without weights to speak of, for tests that need one to behave in a certain way."""

from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

__all__ = ["dark_is_text"]


def dark_is_text(path: Path, *, scale: float = -8.0) -> Path:
    """Write a model whose map is the likelier text the darker a pixel and its neighbours are.

    Args:
        path: where to.
        scale: of the mean of a pixel's channels, as the network takes them, before the sigmoid.
    """
    weights = np.full((1, 3, 3, 3), scale / 27, np.float32)
    # Channels count differently, so that an order that is mixed up shows.
    weights *= np.array([0.5, 1.0, 1.5], np.float32)[None, :, None, None]
    nodes = [
        helper.make_node("Conv", ["x", "weights"], ["dark"], pads=[1, 1, 1, 1]),
        helper.make_node("Sigmoid", ["dark"], ["map"]),
    ]
    graph = helper.make_graph(
        nodes,
        "dark_is_text",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["batch", 3, "height", "width"])],
        [helper.make_tensor_value_info("map", onnx.TensorProto.FLOAT, ["batch", 1, "height", "width"])],
        [numpy_helper.from_array(weights, "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path
