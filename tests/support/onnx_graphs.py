"""Small ONNX graphs made by hand, and their results by ONNX Runtime, as the reference of what they mean."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper

__all__ = ["graph_of", "reference"]


def graph_of(
    path: Path,
    nodes: Sequence[tuple[Any, ...]],
    inputs: Mapping[str, np.ndarray],
    constants: Mapping[str, np.ndarray] | None = None,
    *,
    opset: int = 17,
    outputs: Sequence[str] = ("y",),
    dynamic: bool = False,
) -> Path:
    """Write a graph.

    Args:
        path: where to.
        nodes: (operator, its inputs, its outputs, attributes).
        inputs: an example of each, which says its type and shape.
        constants: initialisers.
        opset: version of the standard.
        outputs: names.
        dynamic: leave the sizes of the inputs open.
    """
    values = [
        helper.make_tensor_value_info(
            name,
            helper.np_dtype_to_tensor_dtype(array.dtype),
            [f"{name}_{axis}" for axis in range(array.ndim)] if dynamic else array.shape,
        )
        for name, array in inputs.items()
    ]
    made = [
        helper.make_node(kind, list(names), list(results), name=f"the_{kind}", **attributes)
        for kind, names, results, attributes in nodes
    ]
    graph = helper.make_graph(
        made,
        "graph",
        values,
        [onnx.ValueInfoProto(name=name) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in (constants or {}).items()],
    )
    # The format that every release of ONNX Runtime since opset 12 reads.
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


def reference(path: Path, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """What ONNX Runtime computes, one thread, nothing rewritten."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return list(session.run(None, dict(inputs)))
