"""One node of an ONNX graph, with its attributes as plain Python values, and the table of operators."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import onnx

from sluiceway_runtime.errors import StartupError

if TYPE_CHECKING:
    from sluiceway_runtime.onnx_torch.builder import Builder, Value

__all__ = ["OPERATORS", "Handler", "Operation", "operator"]

Handler = Callable[..., "Value | Sequence[Value]"]
"""Takes the builder, the operation, and its inputs (None where an optional one is left out); gives its outputs."""

OPERATORS: dict[str, Handler] = {}
"""By the name that the standard gives them. Filled by the modules in `operators`."""


def operator(*names: str) -> Callable[[Handler], Handler]:
    """Register what a function builds."""

    def register(handler: Handler) -> Handler:
        for name in names:
            assert name not in OPERATORS, f"{name} is registered twice"
            OPERATORS[name] = handler
        return handler

    return register


class Operation:
    """A node.

    Attributes:
        kind: name of the operator.
        opset: version of the standard that the file follows; operators change their meaning with it.
        outputs: how many results somebody may use; a name is empty where nobody does.
    """

    def __init__(self, node: onnx.NodeProto, opset: int) -> None:
        self.kind: str = node.op_type
        self.opset = opset
        self.outputs: tuple[str, ...] = tuple(node.output)
        self._name: str = node.name
        self._attributes = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
        self._read: set[str] = set()

    def __str__(self) -> str:
        place = repr(self._name) if self._name else f"that gives {self.outputs[0]!r}"
        return f"node {place} ({self.kind}, opset {self.opset})"

    def build(self, builder: Builder, inputs: Sequence[Value | None]) -> Sequence[Value]:
        """Add what this operation computes to a module.

        Raises:
            StartupError: the operator is not known, an attribute means nothing to it, or its inputs do not fit.
        """
        handler = OPERATORS.get(self.kind)
        if handler is None:
            raise self.fault(f"operator {self.kind} is not supported")
        try:
            results = handler(builder, self, *inputs)
        except StartupError:
            raise
        except Exception as error:  # torch raises what it likes where shapes do not fit
            message = str(error).strip() or type(error).__name__
            raise self.fault(f"cannot be built: {message.splitlines()[0]}") from error
        self._refuse_unread()
        return results if isinstance(results, Sequence) else (results,)

    def ignore(self, *names: str) -> None:
        """Pass over attributes that change nothing here."""
        self._read.update(names)

    def fault(self, what: str) -> StartupError:
        """What is wrong with this operation, to be raised."""
        return StartupError(f"ONNX {self}: {what}")

    def has(self, name: str) -> bool:
        """Whether the attribute is given."""
        return self.get(name) is not None

    def get(self, name: str) -> Any:
        """An attribute as onnx gives it; None where it is missing."""
        self._read.add(name)
        return self._attributes.get(name)

    def integer(self, name: str, default: int) -> int:
        """An integer attribute."""
        value = self.get(name)
        return default if value is None else int(value)

    def flag(self, name: str, *, default: bool = False) -> bool:
        """An integer attribute that means yes or no."""
        value = self.get(name)
        return default if value is None else bool(value)

    def number(self, name: str, default: float) -> float:
        """A float attribute."""
        value = self.get(name)
        return default if value is None else float(value)

    def text(self, name: str, default: str) -> str:
        """A string attribute."""
        value = self.get(name)
        return value.decode() if isinstance(value, bytes) else default if value is None else str(value)

    def integers(self, name: str) -> tuple[int, ...] | None:
        """A list of integers; None where it is missing."""
        value = self.get(name)
        return None if value is None else tuple(int(item) for item in value)

    def _refuse_unread(self) -> None:
        """An attribute that no handler has looked at may change the result: then it must say what it says if left out.

        Raises:
            StartupError: it does not.
        """
        for name in sorted(set(self._attributes) - self._read):
            if self._attributes[name] != _default(self.kind, self.opset, name):
                raise self.fault(f"attribute {name} is not supported")


def _default(kind: str, opset: int, name: str) -> Any:
    """What an attribute is where it is left out; None if that is nothing."""
    try:
        attributes = onnx.defs.get_schema(kind, opset).attributes
    except onnx.defs.SchemaError:  # this operator was not there yet
        return None
    default = attributes[name].default_value if name in attributes else None
    return onnx.helper.get_attribute_value(default) if default is not None and default.name else None
