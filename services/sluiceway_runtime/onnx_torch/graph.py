"""From an ONNX file to a module, for inputs of given shapes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import onnx
import onnx.inliner
import torch
from torch import fx, nn

from sluiceway_runtime.errors import StartupError
from sluiceway_runtime.onnx_torch import operators  # noqa: F401 - fills the table
from sluiceway_runtime.onnx_torch.builder import Builder, Value
from sluiceway_runtime.onnx_torch.operation import Operation
from sluiceway_runtime.onnx_torch.operators.elementwise import element_type
from sluiceway_runtime.onnx_torch.operators.tensors import tensor_of

__all__ = ["load", "share_weights"]

_STANDARD = ("", "ai.onnx")
# Operators change their meaning with the version of the standard. ONNX's own node tests were passed up to this one.
NEWEST_OPSET = 28


def load(path: Path, static: Mapping[str, tuple[int, ...]]) -> fx.GraphModule:
    """Read an ONNX graph as a torch module with every shape fixed.

    The weights are the module's parameters, under the names that the file gives them; nothing is fused. Its `forward`
    takes the inputs and gives the outputs in the order of the file, a tuple if there are several. It holds no tensor of
    a shape and nothing that waits for the device, so it can be captured in a CUDA graph, exported and compiled.

    Args:
        path: an ONNX file of the standard's own operators.
        static: the shape of each input. A file for a fixed batch may be loaded for another one, if the outputs then
            have that batch too; whoever does so compares the results with those of single inputs.

    Returns:
        The module: float32 (or what the file has), on the CPU, in evaluation mode, no gradients.

    Raises:
        StartupError: unreadable; an operator that is not known, named with its node; shapes that do not fit; or a
            graph whose shapes depend on the content of its inputs.
    """
    model = _read(path)
    opset = next((entry.version for entry in model.opset_import if entry.domain in _STANDARD), 1)
    if opset > NEWEST_OPSET:
        raise StartupError(f"{path.name}: opset {opset} is not supported; the newest that is known is {NEWEST_OPSET}")
    constants = {item.name: item for item in model.graph.initializer}
    inputs = [item for item in model.graph.input if item.name not in constants]
    batch = _check_inputs(path.name, inputs, static)
    builder = Builder(batch)
    values: dict[str, Value | StartupError] = {}
    try:
        for item in inputs:
            dtype = element_type(item.type.tensor_type.elem_type, _fault_of(item.name))
            values[item.name] = builder.input(item.name, static[item.name], dtype)
        for name, proto in constants.items():
            values[name] = constant = Value(tensor_of(proto, StartupError))
            builder.name(constant, name)
        for node in model.graph.node:
            _build(builder, Operation(node, opset), node, values)
        outputs = [_found(item.name, values, StartupError) for item in model.graph.output]
    except StartupError as error:
        raise StartupError(f"{path.name}: {error}") from error
    if batch is not None and any(output.shape[:1] != batch[1:] for output in outputs):
        shapes = ", ".join(str(list(output.shape)) for output in outputs)
        raise StartupError(f"{path.name}: was exported for a batch of {batch[0]}, and of {batch[1]} it makes {shapes}")
    return builder.finish(outputs)


def share_weights(module: nn.Module, source: nn.Module) -> None:
    """Let a module use the weights of another one of the same file that are equal, instead of its own.

    What depends on the shape of the input (the grid of a detector, say) stays its own.

    Args:
        module: changed in place; on the same device and in the same precision as `source`.
        source: unchanged.
    """
    own = dict(module.named_parameters())
    for name, parameter in source.named_parameters():
        mine = own.get(name)
        same = mine is not None and mine.shape == parameter.shape and mine.dtype == parameter.dtype
        if same and torch.equal(mine, parameter):
            owner, _, attribute = name.rpartition(".")
            setattr(module.get_submodule(owner), attribute, parameter)


def _read(path: Path) -> onnx.ModelProto:
    try:
        model = onnx.load(path)
        return onnx.inliner.inline_local_functions(model) if model.functions else model
    except Exception as error:  # protobuf, file and external-data errors share no base class
        raise StartupError(f"{path.name} cannot be read as ONNX: {str(error).strip().splitlines()[0]}") from error


def _check_inputs(name: str, inputs: list[Any], static: Mapping[str, tuple[int, ...]]) -> tuple[int, int] | None:
    """Hold the wanted shapes against the file's.

    Returns:
        The batch that the file was written for and the one wanted, if they differ.
    """
    known = [item.name for item in inputs]
    if sorted(known) != sorted(static):
        raise StartupError(f"{name}: has the inputs {', '.join(known)}; shapes are given for {', '.join(static)}")
    batches: set[tuple[int, int]] = set()
    for item in inputs:
        dims = item.type.tensor_type.shape.dim
        wanted = static[item.name]
        fixed = [dim.dim_value if dim.HasField("dim_value") else None for dim in dims]
        if len(fixed) != len(wanted) or any(a not in (None, b) for a, b in zip(fixed[1:], wanted[1:], strict=True)):
            shown = "x".join("?" if dim is None else str(dim) for dim in fixed)
            raise StartupError(f"{name}: input {item.name} is {shown}, not {'x'.join(map(str, wanted))}")
        if fixed and fixed[0] not in (None, wanted[0]):
            batches.add((fixed[0], wanted[0]))
    if len(batches) > 1:
        raise StartupError(f"{name}: its inputs would need different batches")
    return batches.pop() if batches else None


def _fault_of(input_name: str) -> Callable[[str], StartupError]:
    return lambda what: StartupError(f"input {input_name}: {what}")


def _build(
    builder: Builder, operation: Operation, node: onnx.NodeProto, values: dict[str, Value | StartupError]
) -> None:
    if node.domain not in _STANDARD:
        raise operation.fault(f"operator {node.op_type} of domain {node.domain} is not supported")
    inputs = [_found(name, values, operation.fault) if name else None for name in node.input]
    results = operation.build(builder, inputs)
    for position, name in enumerate(node.output):
        if name and position < len(results):
            values[name] = results[position]
            builder.name(results[position], name)
        elif name:
            # Many files name outputs that nobody uses. Whoever uses one is told.
            values[name] = operation.fault(f"output {position + 1} is not supported")


def _found(name: str, values: Mapping[str, Value | StartupError], fault: Callable[[str], StartupError]) -> Value:
    """A value by its name.

    Raises:
        StartupError: there is none, or its operator gives fewer outputs.
    """
    value = values.get(name)
    if value is None:
        raise fault(f"{name!r} comes from nowhere")
    if isinstance(value, StartupError):
        raise value
    return value
