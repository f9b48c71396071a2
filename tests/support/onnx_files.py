"""Small ONNX files for tests, written without the package `onnx`: the wire format of the messages that are needed."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

__all__ = ["Node", "save_classifier", "save_embedder", "save_onnx"]

IR_VERSION, OPSET = 8, 13
FLOAT = 1
ATTRIBUTE_INT, ATTRIBUTE_INTS = 2, 7
Array = NDArray[np.float32]


@dataclass(frozen=True)
class Node:
    """One operator: its type, inputs, output and attributes."""

    kind: str
    inputs: tuple[str, ...]
    output: str
    attributes: tuple[tuple[str, int | tuple[int, ...]], ...] = ()


def save_classifier(path: Path, weights: Array, bias: Array, size: tuple[int, int]) -> None:
    """Softmax of a linear function of the mean colour.

    Args:
        path: of the file.
        weights: float32 [3, C], of normalised channels in the order of the model.
        bias: float32 [C].
        size: height and width of the crops.
    """
    nodes = [
        Node("GlobalAveragePool", ("images",), "means"),
        Node("Flatten", ("means",), "colour"),
        Node("Gemm", ("colour", "weights", "bias"), "logits"),
        Node("Softmax", ("logits",), "probabilities", (("axis", 1),)),
    ]
    save_onnx(path, nodes, {"weights": weights, "bias": bias}, size, "probabilities", weights.shape[1])


def save_embedder(path: Path, weights: Array, size: tuple[int, int], cells: int) -> None:
    """A linear function of the mean colours of cells x cells squares; of any length.

    Args:
        path: of the file.
        weights: float32 [3 x cells x cells, D].
        size: height and width of the crops, multiples of `cells`.
        cells: in each direction.
    """
    cell = (size[0] // cells, size[1] // cells)
    zero = np.zeros(weights.shape[1], np.float32)
    nodes = [
        Node("AveragePool", ("images",), "squares", (("kernel_shape", cell), ("strides", cell))),
        Node("Flatten", ("squares",), "flat"),
        Node("Gemm", ("flat", "weights", "zero"), "vector"),
    ]
    save_onnx(path, nodes, {"weights": weights, "zero": zero}, size, "vector", weights.shape[1])


def save_onnx(
    path: Path, nodes: Sequence[Node], constants: dict[str, Array], size: tuple[int, int], output: str, values: int
) -> None:
    """Write a graph from `images`, float32 [N, 3, H, W] with any N, to one output [N, values]."""
    graph = b"".join(_message(1, _node(node)) for node in nodes) + _text(2, "graph")
    graph += b"".join(_message(5, _tensor(name, array)) for name, array in constants.items())
    graph += _message(11, _value("images", (0, 3, *size))) + _message(12, _value(output, (0, values)))
    model = _number(1, IR_VERSION) + _message(7, graph) + _message(8, _number(2, OPSET))
    path.write_bytes(model)


def _node(node: Node) -> bytes:
    content = b"".join(_text(1, name) for name in node.inputs) + _text(2, node.output) + _text(4, node.kind)
    for name, value in node.attributes:
        if isinstance(value, int):
            attribute = _text(1, name) + _number(3, value) + _number(20, ATTRIBUTE_INT)
        else:
            attribute = _text(1, name) + b"".join(_number(8, item) for item in value) + _number(20, ATTRIBUTE_INTS)
        content += _message(5, attribute)
    return content


def _tensor(name: str, array: Array) -> bytes:
    dims = b"".join(_number(1, dim) for dim in array.shape)
    return dims + _number(2, FLOAT) + _text(8, name) + _message(9, array.astype("<f4").tobytes())


def _value(name: str, shape: Sequence[int]) -> bytes:
    """An input or output; 0 stands for any number."""
    dims = b"".join(_message(1, _number(1, dim) if dim else _text(2, "N")) for dim in shape)
    tensor = _number(1, FLOAT) + _message(2, dims)
    return _text(1, name) + _message(2, _message(1, tensor))


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _text(field: int, value: str) -> bytes:
    return _message(field, value.encode())


def _message(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    low, high = value & 0x7F, value >> 7
    return struct.pack("B", low | 0x80) + _varint(high) if high else struct.pack("B", low)
