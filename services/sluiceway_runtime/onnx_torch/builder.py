"""Builds a `torch.fx.GraphModule` one call at a time, computing at once whatever does not depend on the input.

Every value is known or flows. A known one is a tensor on the host: weights, and all arithmetic on shapes, because the
shape of a value that flows is known too (found by running the same call on torch's `meta` device, which computes
shapes alone). So one description of an operator serves three ends: folding, shape inference, and the module itself.
What is left in the module has neither shapes nor scalars on the device, and nothing in it waits for the device.
"""

from __future__ import annotations

import keyword
import operator
import re
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import fx, nn

__all__ = ["Builder", "Value"]

_META = torch.device("meta")


class Value:
    """A tensor of the graph.

    Attributes:
        tensor: its content on the host if it is known, else one of the same shape and type on the meta device.
        node: what computes it; None if it is known.
    """

    __slots__ = ("node", "tensor")

    def __init__(self, tensor: torch.Tensor, node: fx.Node | None = None) -> None:
        self.tensor = tensor
        self.node = node

    def __repr__(self) -> str:
        return f"Value({'known' if self.known else 'flows'}, {list(self.shape)}, {self.tensor.dtype})"

    @property
    def known(self) -> bool:
        """Whether it does not depend on the input."""
        return self.node is None

    @property
    def shape(self) -> tuple[int, ...]:
        """Always known."""
        return tuple(self.tensor.shape)

    @property
    def rank(self) -> int:
        """Number of dimensions."""
        return int(self.tensor.dim())

    def axis(self, axis: int) -> int:
        """A possibly negative axis as a position."""
        return axis % self.rank if self.rank else 0

    def integers(self) -> tuple[int, ...]:
        """Its content. Only of a known value: see `Builder.integers`."""
        return tuple(int(item) for item in self.tensor.reshape(-1).tolist())


class Builder:
    """Collects the calls of a module.

    Attributes:
        batch: the first dimension that the file was written for, where that is fixed, and the one that is wanted
            instead; None where they are the same.
    """

    def __init__(self, batch: tuple[int, int] | None = None) -> None:
        self.batch = batch
        self._graph = fx.Graph()
        self._root = nn.Module()
        # By identity: the same weights may be used in several places. The tensor is kept, so that no other gets its id.
        self._attributes: dict[int, tuple[fx.Node, torch.Tensor]] = {}
        self._names: dict[int, tuple[str, torch.Tensor]] = {}

    def input(self, name: str, shape: Sequence[int], dtype: torch.dtype) -> Value:
        """Add an input of the module."""
        node = self._graph.placeholder(_identifier(name))
        node.meta["dtype"] = dtype
        return Value(torch.empty(tuple(shape), dtype=dtype, device=_META), node)

    def name(self, value: Value, name: str) -> None:
        """Remember what the file calls a known value; the module then has it under this name."""
        if value.known:
            self._names.setdefault(id(value.tensor), (name, value.tensor))

    def call(self, function: Callable[..., Any], *arguments: Any, **options: Any) -> Value:
        """Call a function now if all its inputs are known, else have the module call it.

        Args:
            function: of torch, or one at the top level of a module; what it does is decided by shapes alone.
            arguments: values, alone or in tuples and lists, and plain Python numbers.
            options: likewise.

        Returns:
            What the function gives, a tensor.
        """
        result, node = self._call(function, arguments, options)
        return Value(result) if node is None else _flowing(result, node)

    def call_many(self, function: Callable[..., Any], *arguments: Any, **options: Any) -> tuple[Value, ...]:
        """As `call`, of a function that gives several tensors."""
        results, node = self._call(function, arguments, options)
        if node is None:
            return tuple(Value(result) for result in results)
        return tuple(
            _flowing(result, self._graph.call_function(operator.getitem, (node, position)))
            for position, result in enumerate(results)
        )

    def _call(
        self, function: Callable[..., Any], arguments: tuple[Any, ...], options: dict[str, Any]
    ) -> tuple[Any, fx.Node | None]:
        """The result and None, or what it looks like and the node that will compute it."""
        with torch.no_grad():
            if all(value.known for value in _values((arguments, options))):
                return function(*_map(arguments, _content), **_map(options, _content)), None
            shadow = function(*_map(arguments, _shadow), **_map(options, _shadow))
        return shadow, self._graph.call_function(function, _map(arguments, self._node), _map(options, self._node))

    def operands(self, left: Value, right: Value) -> tuple[Any, Any]:
        """Two inputs of an element-wise operation, a known scalar as a Python number.

        So it is no load from memory, and takes on the precision of what it meets.
        """
        return self._scalar(left, right), self._scalar(right, left)

    def integers(self, value: Value | None) -> tuple[int, ...] | None:
        """The content of an input that has to be known while the module is built; None if it is left out.

        Raises:
            ValueError: it depends on the input of the module.
        """
        if value is None:
            return None
        if not value.known:
            raise ValueError("a shape, axis or position depends on the content of the input, not on its shape alone")
        return value.integers()

    def finish(self, outputs: Sequence[Value]) -> fx.GraphModule:
        """The module that computes these, as one tensor or as a tuple."""
        nodes = tuple(self._node(value) for value in outputs)
        self._graph.output(nodes[0] if len(nodes) == 1 else nodes)
        self._graph.eliminate_dead_code()
        self._graph.lint()
        module = fx.GraphModule(self._root, self._graph, class_name="OnnxModule")
        module.delete_all_unused_submodules()
        return module.eval()

    def _scalar(self, value: Value, other: Value) -> Any:
        if value.known and not other.known and value.tensor.numel() == 1 and value.rank <= other.rank:
            return value.tensor.item()
        return value

    def _node(self, value: Value) -> fx.Node:
        if value.node is not None:
            return value.node
        if (found := self._attributes.get(id(value.tensor))) is not None:
            return found[0]
        name, _ = self._names.get(id(value.tensor), (f"folded_{len(self._attributes)}", value.tensor))
        name = _identifier(name)
        while hasattr(self._root, name):
            name += "_"
        # A copy: tensors that onnx made share memory that cannot be written, and folded ones may be views.
        tensor = value.tensor.detach().clone(memory_format=torch.contiguous_format)
        if tensor.is_floating_point():
            self._root.register_parameter(name, nn.Parameter(tensor, requires_grad=False))
        else:
            self._root.register_buffer(name, tensor)
        node = self._graph.get_attr(name)
        self._attributes[id(value.tensor)] = (node, value.tensor)
        return node


def _flowing(shadow: torch.Tensor, node: fx.Node) -> Value:
    node.meta["dtype"] = shadow.dtype  # for `in_precision`
    return Value(shadow, node)


def _identifier(name: str) -> str:
    cleaned = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_")
    # A prefix where the name alone is none, a word of Python, or would hide a method of the module.
    taken = keyword.iskeyword(cleaned) or hasattr(fx.GraphModule, cleaned)
    return cleaned if cleaned.isidentifier() and not taken else f"onnx_{cleaned}"


def _map(item: Any, change: Callable[[Value], Any]) -> Any:
    if isinstance(item, Value):
        return change(item)
    if isinstance(item, dict):
        return {key: _map(value, change) for key, value in item.items()}
    if isinstance(item, tuple | list):
        return type(item)(_map(part, change) for part in item)
    return item


def _values(item: Any) -> list[Value]:
    found: list[Value] = []
    _map(item, found.append)
    return found


def _content(value: Value) -> torch.Tensor:
    return value.tensor


def _shadow(value: Value) -> torch.Tensor:
    return value.tensor if not value.known else value.tensor.to(_META)
