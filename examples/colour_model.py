"""Makes `colour.onnx`, a tiny classifier that tells the colour of a region. Run it once: `python colour_model.py`.

A classifier of yours comes from training, mostly through `torch.onnx.export`. This one is made by hand, so that the
example in vehicles.toml needs no torch: each pixel votes for the named colours that it is near to, and the answer is
the share of the votes. It has what every classifier for `kind = "classify"` needs: one input [N, 3, H, W], here in RGB
and brought to 0..1 by `mean` and `std`, and one output [N, classes].

The package `onnx` would write the file as well. An ONNX file is a protobuf message, and this network is small enough to
write its fields down.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterable
from pathlib import Path

# Each colour from 0 to 1, and what a vote for it is worth: windows, tyres and the street are on every picture.
COLOURS_RGB = {
    "black": (0.12, 0.12, 0.12, 0.3),
    "grey": (0.5, 0.5, 0.5, 0.4),
    "white": (0.9, 0.9, 0.9, 0.7),
    "red": (0.7, 0.1, 0.1, 1.0),
    "green": (0.1, 0.5, 0.2, 1.0),
    "blue": (0.1, 0.3, 0.5, 1.0),
    "yellow": (0.9, 0.8, 0.1, 1.0),
}
SHARPNESS = 20.0
SIDE_PX = 48


def colour_model() -> bytes:
    """The file: Conv, Softmax, the mean of each channel, Flatten, Mul, Log."""
    # The squared distance of a pixel x to a colour c is |x|2 - 2cx + |c|2. |x|2 is the same for all colours, so that a
    # convolution of one pixel gives the votes.
    weights = [2 * SHARPNESS * part for colour in COLOURS_RGB.values() for part in colour[:3]]
    bias = [-SHARPNESS * sum(part * part for part in colour[:3]) for colour in COLOURS_RGB.values()]
    worth = [colour[3] for colour in COLOURS_RGB.values()]
    nodes = [
        _node("Conv", ["image", "weights", "bias"], "near"),
        _node("Softmax", ["near"], "votes", axis=1),
        _node("GlobalAveragePool", ["votes"], "shares"),
        _node("Flatten", ["shares"], "flat"),
        _node("Mul", ["flat", "worth"], "counted"),
        # Unless a classifier ends in a softmax, the server takes it. Of logarithms that gives the shares.
        _node("Log", ["counted"], "logits"),
    ]
    count = len(COLOURS_RGB)
    graph = b"".join(_bytes(1, node) for node in nodes) + _bytes(2, b"colour")
    graph += _bytes(5, _tensor("weights", (count, 3, 1, 1), weights)) + _bytes(5, _tensor("bias", (count,), bias))
    graph += _bytes(5, _tensor("worth", (count,), worth))
    graph += _bytes(11, _value("image", (3, SIDE_PX, SIDE_PX))) + _bytes(12, _value("logits", (count,)))
    ir_version, opset = 8, 13
    return _number(1, ir_version) + _bytes(7, graph) + _bytes(8, _number(2, opset))


def _node(kind: str, inputs: Iterable[str], output: str, axis: int | None = None) -> bytes:
    content = (
        b"".join(_bytes(1, name.encode()) for name in inputs) + _bytes(2, output.encode()) + _bytes(4, kind.encode())
    )
    if axis is not None:
        whole_number = 2
        content += _bytes(5, _bytes(1, b"axis") + _number(3, axis) + _number(20, whole_number))
    return content


def _tensor(name: str, shape: Iterable[int], values: list[float]) -> bytes:
    float32 = 1
    dimensions = b"".join(_number(1, size) for size in shape)
    return (
        dimensions
        + _number(2, float32)
        + _bytes(8, name.encode())
        + _bytes(9, struct.pack(f"<{len(values)}f", *values))
    )


def _value(name: str, shape: Iterable[int]) -> bytes:
    """An input or output: any number of what has this shape."""
    float32 = 1
    dimensions = _bytes(1, _bytes(2, b"N")) + b"".join(_bytes(1, _number(1, size)) for size in shape)
    return _bytes(1, name.encode()) + _bytes(2, _bytes(1, _number(1, float32) + _bytes(2, dimensions)))


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    encoded = b""
    while value > 0x7F:
        encoded += bytes([value & 0x7F | 0x80])
        value >>= 7
    return encoded + bytes([value])


if __name__ == "__main__":
    path = Path(sys.argv[1] if len(sys.argv) > 1 else "colour.onnx")
    path.write_bytes(colour_model())
    print(f"{path}: {', '.join(COLOURS_RGB)}")
