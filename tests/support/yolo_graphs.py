"""A detector of one convolution, for tests that need one to behave in a certain way."""

from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

__all__ = ["bright_blocks"]


def bright_blocks(path: Path, *, scale: float = 1.0) -> Path:
    """Write a detector that finds each block of 32 x 32 pixels, as confident as it is bright.

    Args:
        path: where to.
        scale: what the weights are multiplied by, and the results divided by afterwards: f16 ends at 65504.
    """
    weights = np.zeros((5, 3, 32, 32), np.float32)
    weights[4] = 1 / (3 * 32 * 32)
    weights[2:4] = 1e-6  # boxes hardly depend on the picture
    offset = np.array([16, 16, 30, 30, 0], np.float32)
    nodes = [
        helper.make_node("Conv", ["images", "weights"], ["sums"], strides=[32, 32]),
        helper.make_node("Mul", ["sums", "unscale"], ["means"]),
        helper.make_node("Add", ["means", "offset"], ["blocks"]),
        helper.make_node("Reshape", ["blocks", "flat"], ["output0"]),
    ]
    constants = {
        "weights": weights * np.float32(scale),
        "unscale": np.float32(1 / scale),
        "offset": offset[None, :, None, None],
        "flat": np.array([0, 5, -1]),
    }
    graph = helper.make_graph(
        nodes,
        "bright_blocks",
        [helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, ["batch", 3, "height", "width"])],
        [helper.make_tensor_value_info("output0", onnx.TensorProto.FLOAT, ["batch", 5, "blocks"])],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {"names": "{0: 'block'}", "task": "detect", "stride": "32", "imgsz": "[96, 96]"})
    path.write_bytes(model.SerializeToString())
    return path
