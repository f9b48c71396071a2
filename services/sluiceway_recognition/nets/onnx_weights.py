"""From the initialisers of an exported ONNX file to the parameters of a network, checked layer by layer.

Both sides are brought to the same form: a list of layers in the order in which they are computed, each with its kind,
its shapes and its geometry. Exported files name their tensors by the order in which training made them, so names say
nothing; order, kinds and shapes together do. Every weight of the file has to be used.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from sluiceway_runtime.errors import StartupError
from torch import Tensor, nn

from sluiceway_recognition.nets.layers import LearnableAffine
from sluiceway_recognition.nets.recognisers import NETS, TextNet, UnknownNetwork

__all__ = ["load_net", "onnx_layers"]

# Smaller arrays in a file are constants of the arithmetic (an axis, the 0.5 of a GELU), not weights.
_LEAST_WEIGHTS = 7
_AFFINE = "learnable_affine"
# W of a crop for finding the order of layers; any would do.
_PROBE_WIDTH = 64


class _MismatchError(Exception):
    """File and network are not the same."""


@dataclass(slots=True)
class OnnxLayer:
    """One layer of the file, normalisation folded in.

    Attributes:
        kind: "conv", "linear", "norm" or "affine".
        weight: as torch lays it out.
        bias: float [channels].
        geometry: of a convolution: strides and groups; else empty.
        output: name of its value, while it may still take a bias.
    """

    kind: str
    weight: NDArray[np.float64]
    bias: NDArray[np.float64]
    geometry: tuple[int, ...] = ()
    output: str = field(default="", repr=False)


def load_net(path: Path) -> tuple[str, TextNet]:
    """Find out which network a file holds, and load it.

    Args:
        path: a PP-OCR recogniser as ONNX.

    Returns:
        The network's name and the network, float32, in evaluation mode.

    Raises:
        UnknownNetwork: the file holds none of the networks that are known here.
        StartupError: it is no ONNX file.
    """
    try:
        model = onnx.load(path)
    except Exception as error:  # protobuf and file errors share no base class
        raise StartupError(f"{path} cannot be read as ONNX: {type(error).__name__}") from error
    faults = []
    try:
        layers = onnx_layers(model)
    except _MismatchError as error:
        raise UnknownNetwork(f"{path}: {error}") from error
    for name, build in NETS.items():
        try:
            return name, _fill(build, layers)
        except _MismatchError as error:
            faults.append(f"{name}: {error}")
    raise UnknownNetwork(f"{path} holds none of the networks that torch computes here ({'; '.join(faults)})")


def onnx_layers(model: onnx.ModelProto) -> list[OnnxLayer]:
    """The layers of a file in the order of its graph."""
    return _Reader(model).read()


class _Reader:
    def __init__(self, model: onnx.ModelProto) -> None:
        self._nodes = model.graph.node
        self._arrays = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
        for node in self._nodes:
            if node.op_type == "Constant":
                value = next((item.t for item in node.attribute if item.name == "value"), None)
                if value is not None:
                    self._arrays[node.output[0]] = numpy_helper.to_array(value)
        self._aliases: dict[str, str] = {}
        self._used: set[str] = set()
        self._layers: list[OnnxLayer] = []

    def read(self) -> list[OnnxLayer]:
        readers: dict[str, Callable[[Any, list[str]], None]] = {
            "Conv": self._conv,
            "MatMul": self._matmul,
            "BatchNormalization": self._batch_norm,
            "Add": self._add,
            "Mul": self._mul,
        }
        for node in self._nodes:
            inputs = [self._resolve(name) for name in node.input]
            if node.op_type in ("Identity", "Squeeze", "Unsqueeze") and inputs[0]:
                # Values under another name or shape; a folded normalisation may stand behind them.
                self._aliases[node.output[0]] = inputs[0]
            elif node.op_type in readers:
                readers[node.op_type](node, inputs)
        left = [
            name
            for name, array in self._arrays.items()
            if array.dtype.kind == "f" and array.size >= _LEAST_WEIGHTS and name not in self._used
        ]
        if left:
            raise _MismatchError(f"{len(left)} weights of the file fit no layer, {left[0]} first")
        return self._layers

    def _resolve(self, name: str) -> str:
        while name in self._aliases:
            name = self._aliases[name]
        return name

    def _take(self, name: str) -> NDArray[np.float64]:
        self._used.add(name)
        taken: NDArray[np.float64] = self._arrays[name].astype(np.float64)
        return taken

    def _conv(self, node: Any, inputs: list[str]) -> None:
        attributes = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
        weight = self._take(inputs[1])
        bias = self._take(inputs[2]) if len(inputs) > 2 else np.zeros(weight.shape[0])
        geometry = (*attributes.get("strides", (1, 1)), attributes.get("group", 1))
        self._layers.append(OnnxLayer("conv", weight, bias, geometry, node.output[0]))

    def _matmul(self, node: Any, inputs: list[str]) -> None:
        if inputs[1] in self._arrays:
            weight = self._take(inputs[1]).T
            self._layers.append(OnnxLayer("linear", weight, np.zeros(weight.shape[0]), (), node.output[0]))

    def _batch_norm(self, node: Any, inputs: list[str]) -> None:
        layer = self._layers[-1]
        if layer.output != inputs[0]:
            raise _MismatchError(f"the normalisation {node.output[0]} does not follow a convolution")
        gamma, beta, mean, variance = (self._take(name) for name in inputs[1:5])
        epsilon = next((item.f for item in node.attribute if item.name == "epsilon"), 1e-5)
        scale = gamma / np.sqrt(variance + epsilon)
        layer.weight *= scale.reshape(-1, *[1] * (layer.weight.ndim - 1))
        layer.bias = (layer.bias - mean) * scale + beta
        layer.output = node.output[0]

    def _add(self, node: Any, inputs: list[str]) -> None:
        value, constant = self._split(inputs)
        if constant is None or not self._layers or self._layers[-1].output != value:
            return
        layer, array = self._layers[-1], self._arrays[constant]
        if _AFFINE in constant or array.size == layer.bias.size:
            layer.bias = layer.bias + self._take(constant).reshape(-1)
            layer.output = node.output[0]

    def _mul(self, node: Any, inputs: list[str]) -> None:
        value, constant = self._split(inputs)
        if constant is None:
            return
        if _AFFINE in constant:
            factor = self._take(constant)
            layer = self._layers[-1]
            if layer.output == value:
                # Before the activation: the convolution takes it up, and the offset that follows.
                layer.weight = layer.weight * factor
                layer.bias = layer.bias * factor
                layer.output = node.output[0]
            else:
                self._layers.append(OnnxLayer("affine", factor, np.zeros(1), (), node.output[0]))
        elif self._arrays[constant].ndim == 1 and self._arrays[constant].size >= _LEAST_WEIGHTS:
            weight = self._take(constant)
            self._layers.append(OnnxLayer("norm", weight, np.zeros(weight.size), (), node.output[0]))

    def _split(self, inputs: list[str]) -> tuple[str, str | None]:
        """The computed and the constant operand; None without exactly one constant."""
        constants = [name for name in inputs if name in self._arrays]
        values = [name for name in inputs if name not in self._arrays]
        return (values[0], constants[0]) if len(constants) == len(values) == 1 else ("", None)


def _fill(build: Callable[[int], TextNet], layers: list[OnnxLayer]) -> TextNet:
    if not layers or layers[-1].kind != "linear":
        raise _MismatchError("the file does not end in a linear layer")
    net = build(int(layers[-1].bias.size))
    net.eval()
    modules = _in_order(net)
    if len(modules) != len(layers):
        raise _MismatchError(f"{len(layers)} layers in the file, {len(modules)} in the network")
    with torch.no_grad():
        for position, ((name, module), layer) in enumerate(zip(modules, layers, strict=True)):
            expected = _signature(module)
            found = (layer.kind, layer.weight.shape, layer.bias.shape, layer.geometry)
            if expected != found:
                raise _MismatchError(f"layer {position} ({name}) is {found}, not {expected}")
            module.weight.copy_(torch.from_numpy(layer.weight))
            module.bias.copy_(torch.from_numpy(layer.bias))
    return net


def _signature(module: Any) -> tuple[str, tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    kinds = {nn.Linear: "linear", nn.LayerNorm: "norm", LearnableAffine: "affine"}
    kind = kinds.get(type(module), "conv")
    geometry = (*module.stride, module.groups) if kind == "conv" else ()
    return kind, tuple(module.weight.shape), tuple(module.bias.shape), geometry


def _in_order(net: TextNet) -> list[tuple[str, Any]]:
    """The layers with parameters in the order in which the network computes them."""
    names = {module: name for name, module in net.named_modules()}
    leaves = [
        module for module in net.modules() if isinstance(module, nn.Conv2d | nn.Linear | nn.LayerNorm | LearnableAffine)
    ]
    seen: list[Any] = []

    def note(module: nn.Module, _: tuple[Tensor, ...], __: Tensor) -> None:
        seen.append(module)

    hooks = [module.register_forward_hook(note) for module in leaves]
    try:
        with torch.inference_mode():
            net(torch.zeros(1, 3, 48, _PROBE_WIDTH))
    finally:
        for hook in hooks:
            hook.remove()
    assert len(seen) == len(leaves), "a layer is computed twice, or not at all"
    return [(names[module], module) for module in seen]
