"""Networks that users bring as files: programs of torch.export, and ONNX graphs."""

# torch is an extra: without it mypy knows no base class. mypy reads the next line.
# mypy: allow-subclassing-any

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from sluiceway_runtime.errors import StartupError
from torch import Tensor, nn

from sluiceway_recognition.nets.exported import load_program, program_output
from sluiceway_recognition.nets.reading import Activation

__all__ = ["ExportedNet", "OnnxNet"]

# What may stand between the last activation and the output without changing values.
_SHAPE_ONLY = {"view", "reshape", "permute", "transpose", "squeeze", "unsqueeze", "flatten", "clone", "to", "_to_copy"}
_SHAPE_ONLY |= {"contiguous", "alias", "detach", "_unsafe_view", "expand", "select"}
_SHAPE_ONLY_ONNX = {"Reshape", "Squeeze", "Unsqueeze", "Transpose", "Cast", "Flatten", "Identity"}
_INPUT = "one input of [N, 3, H, W] or [N, 1, H, W]"
_ACTIVATIONS: dict[str, Activation] = {
    "softmax": "probabilities",
    "_softmax": "probabilities",
    "sigmoid": "probabilities",
    "log_softmax": "logarithms",
    "_log_softmax": "logarithms",
    "Softmax": "probabilities",
    "Sigmoid": "probabilities",
    "LogSoftmax": "logarithms",
}


class _Picked(nn.Module):
    """A module with several outputs, of which one is wanted."""

    def __init__(self, module: nn.Module, key: str | int) -> None:
        super().__init__()
        self.module = module
        self._key = key

    def forward(self, images: Tensor) -> Tensor:
        output: Tensor = self.module(images)[self._key]
        return output


class ExportedNet:
    """A program of torch.export; see `sources.Network`. Its weights keep their type: 16 bits come by autocast."""

    batch: int | None
    width: int | None

    def __init__(self, path: Path, output: str | None) -> None:
        self._program, self.metadata = load_program(path)
        inputs = self._program.graph_signature.user_inputs
        placeholders = {node.name: node for node in self._program.graph_module.graph.nodes if node.op == "placeholder"}
        shape: Any = placeholders[inputs[0]].meta["val"].shape if len(inputs) == 1 else ()
        if len(shape) != 4 or shape[1] not in (1, 3):
            raise StartupError(f"{path}: the model must have {_INPUT}, not {[str(s) for s in shape]}")
        self.channels = int(shape[1])
        self._path = path
        self._height = shape[2] if isinstance(shape[2], int) else None
        self.batch = shape[0] if isinstance(shape[0], int) else None
        self.width = shape[3] if isinstance(shape[3], int) else None
        self._key = self._wanted(output)
        self.activation = _ends_in(program_output(self._program, self._index()))
        self._placed: dict[torch.device, Any] = {}

    def module(
        self,
        sizes: tuple[int, int, int, int],
        device: torch.device,
        dtype: torch.dtype,  # noqa: ARG002 - of the interface
    ) -> Any:
        """The one module of a device."""
        if self._height not in (None, sizes[2]):
            raise StartupError(f"{self._path}: the model wants crops of height {self._height}; set `height` to that")
        if device not in self._placed:
            program = self._program
            if device.type != "cpu":
                from torch.export.passes import move_to_device_pass  # noqa: PLC0415 - only there

                program = move_to_device_pass(program, device)
            module = program.module()
            self._placed[device] = module if self._key is None else _Picked(module, self._key)
        return self._placed[device]

    def autocast(self, dtype: torch.dtype) -> torch.dtype | None:
        """The type itself."""
        return dtype

    def _wanted(self, output: str | None) -> str | int | None:
        """How to pick the output: by key or position; None where there is nothing to pick."""
        spec = self._program.module_call_graph[0].signature.out_spec
        names: list[Any] = []
        if spec.type is dict:
            names = list(spec.context)
        elif spec.type in (tuple, list):
            names = list(range(spec.num_children))
        if not names:
            if output is not None:
                raise StartupError(f"{self._path}: the model has one output without a name; leave out `output`")
            return None
        known = {str(name): name for name in names}
        if output is None and len(names) > 1:
            raise StartupError(
                f"{self._path}: the model has several outputs ({', '.join(known)}); name one with `output`"
            )
        key = str(names[0]) if output is None else output
        if key not in known:
            raise StartupError(f"{self._path}: the model has no output {key}; it has {', '.join(known)}")
        found: str | int = known[key]
        return found

    def _index(self) -> int:
        spec = self._program.module_call_graph[0].signature.out_spec
        if self._key is None:
            return 0
        return list(spec.context).index(self._key) if spec.type is dict else int(self._key)


def _ends_in(node: Any) -> Activation:
    while True:
        # `aten.softmax.int` -> `softmax`
        parts = str(node.target).split(".")
        name = parts[1] if len(parts) > 1 else parts[0]
        if name not in _SHAPE_ONLY or not node.all_input_nodes:
            return _ACTIVATIONS.get(name, "none")
        node = node.all_input_nodes[0]


class OnnxNet:
    """An ONNX graph of the user's; see `sources.Network`. Each shape has a module of its own, all share the weights."""

    batch: int | None
    width: int | None

    def __init__(self, path: Path, output: str | None) -> None:
        # Only for such models: the built-in ones come converted.
        import onnx  # noqa: PLC0415

        self._path = path
        try:
            model = onnx.load(path)
        except Exception as error:  # protobuf and file errors share no base class
            raise StartupError(f"{path} cannot be read as ONNX: {type(error).__name__}") from error
        graph = model.graph
        constants = {item.name for item in graph.initializer}
        inputs = [item for item in graph.input if item.name not in constants]
        dims = [dim.dim_value or None for dim in inputs[0].type.tensor_type.shape.dim] if len(inputs) == 1 else []
        if len(dims) != 4 or dims[1] not in (1, 3, None):
            raise StartupError(f"{path}: the model must have {_INPUT}, not {dims}")
        self.channels = dims[1] or 3
        # A file for a batch of one is loaded for others too.
        self.batch = None
        self._height, self.width = dims[2], dims[3]
        self._input = inputs[0].name
        self._outputs = [item.name for item in graph.output]
        if output is None and len(self._outputs) > 1:
            names = ", ".join(self._outputs)
            raise StartupError(f"{path}: the model has several outputs ({names}); name one with `output`")
        self._output = self._outputs[0] if output is None else output
        if self._output not in self._outputs:
            raise StartupError(f"{path}: the model has no output {self._output}; it has {', '.join(self._outputs)}")
        self.metadata = {item.key: item.value for item in model.metadata_props}
        self.activation = _onnx_ends_in(graph, self._output)
        self._first: dict[torch.device, Any] = {}

    def module(self, sizes: tuple[int, int, int, int], device: torch.device, dtype: torch.dtype) -> Any:
        """The module for one size."""
        from sluiceway_runtime.onnx_torch import in_precision, load, share_weights  # noqa: PLC0415 - see above

        if self._height not in (None, sizes[2]):
            raise StartupError(f"{self._path}: the model wants crops of height {self._height}; set `height` to that")
        module = in_precision(load(self._path, {self._input: sizes}), dtype).to(device)
        first = self._first.setdefault(device, module)
        if first is not module:
            share_weights(module, first)
        if len(self._outputs) == 1:
            return module
        return _Picked(module, self._outputs.index(self._output))

    def autocast(self, dtype: torch.dtype) -> torch.dtype | None:  # noqa: ARG002 - of the interface
        """None: its modules are brought to the type where that is right."""
        return None


def _onnx_ends_in(graph: Any, output: str) -> Activation:
    makers = {name: node for node in graph.node for name in node.output}
    node = makers.get(output)
    while node is not None and node.op_type in _SHAPE_ONLY_ONNX:
        node = makers.get(node.input[0])
    return "none" if node is None else _ACTIVATIONS.get(node.op_type, "none")
