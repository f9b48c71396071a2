"""Text models of other families' conventions, as small ONNX files, and what they are to read.

A step is a number of columns; how bright they are says its class, in equal parts from black to white.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper, save

__all__ = ["ForeignReader"]

STEP_PX = 8


@dataclass(frozen=True)
class ForeignReader:
    """One convention.

    Attributes:
        classes: text of each; empty for the blank.
        size: height and width of its crops.
        ends: the blank ends the text.
        channels: of its input.
        steps_first: its output is [T, N, C], not [N, T, C].
        batch: of its input; None for any.
        mean: of each channel, as the file expects them normalised.
        std: likewise.
    """

    classes: tuple[str, ...]
    size: tuple[int, int]
    ends: bool = False
    channels: int = 3
    steps_first: bool = False
    batch: int | None = None
    mean: tuple[float, ...] = (127.5, 127.5, 127.5)
    std: tuple[float, ...] = (127.5, 127.5, 127.5)

    @property
    def levels(self) -> NDArray[np.uint8]:
        """Brightness of each class; that of the blank is black where the blank comes last."""
        levels = np.linspace(0, 255, len(self.classes)).round().astype(np.uint8)
        return levels[::-1] if self.classes[-1] == "" else levels

    def save(self, path: Path) -> Path:
        """Write the model."""
        channels, (height, width) = self.channels, self.size
        levels = self.levels.astype(np.float64)
        each = np.stack([(levels - self.mean[c]) / self.std[c] for c in range(channels)])
        centres = each.mean(axis=0)
        # The nearest centre, as logits: 2 x c - c^2.
        constants = {
            "slopes": (1000 * 2 * centres[None]).astype(np.float32),
            "offsets": (-1000 * centres**2).astype(np.float32),
            "channel": np.array([1, 2], np.int64),
            "last": np.array([2], np.int64),
        }
        cell: dict[str, Any] = {"kernel_shape": [height, STEP_PX], "strides": [height, STEP_PX]}
        nodes = [
            helper.make_node("AveragePool", ["images"], ["cells"], **cell),
            helper.make_node("ReduceMean", ["cells"], ["steps"], axes=[1, 2], keepdims=0),
            helper.make_node("Unsqueeze", ["steps", "last"], ["column"]),
            helper.make_node("MatMul", ["column", "slopes"], ["sloped"]),
            helper.make_node("Add", ["sloped", "offsets"], ["batches"]),
            helper.make_node("Transpose", ["batches"], ["logits"], perm=[1, 0, 2] if self.steps_first else [0, 1, 2]),
        ]
        size = self.batch or "N"
        images = helper.make_tensor_value_info("images", TensorProto.FLOAT, [size, channels, height, width])
        output = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [None, None, len(self.classes)])
        initialisers = [numpy_helper.from_array(array, name) for name, array in constants.items()]
        graph = helper.make_graph(nodes, "reader", [images], [output], initialisers)
        save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
        return path

    def draw(self, text: str, *, fill: bool = True) -> NDArray[np.uint8]:
        """A crop that says the text, uint8 [H, W, 3]: as wide as the model takes, or no wider than it has to be."""
        blank = self.classes.index("")
        numbers: list[int] = []
        for character in text:
            number = self.classes.index(character)
            if numbers and numbers[-1] == number and not self.ends:
                numbers.append(blank)
            numbers.append(number)
        most = self.size[1] // STEP_PX
        assert len(numbers) <= most
        if fill and self.ends:
            # What comes behind the end says nothing.
            numbers += [blank, *([blank + 1] * most)][: most - len(numbers)]
        elif fill:
            numbers += [blank] * (most - len(numbers))
        row = np.repeat(self.levels[numbers], STEP_PX)
        return np.ascontiguousarray(np.broadcast_to(row[None, :, None], (self.size[0], len(row), 3)))
