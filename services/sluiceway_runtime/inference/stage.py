"""What a stage implements to be reached through the Open Inference Protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from sluiceway_runtime.inference.tensors import ModelCard, Tensor
from sluiceway_runtime.priority import Priority
from sluiceway_runtime.server.calls import Caller

__all__ = ["Inferred", "InferenceStage", "Parameter"]

Parameter = bool | int | float | str


class Inferred(NamedTuple):
    """What a model gave.

    Attributes:
        tensors: all of its outputs, in their order.
        queue_ms: how long the elements waited, of all of them the longest.
        compute_ms: how long they were worked on, likewise.
    """

    tensors: Sequence[Tensor]
    queue_ms: float = 0.0
    compute_ms: float = 0.0


class InferenceStage(Protocol):
    """A stage, seen as a server of models.

    Attributes:
        name: of the server, as `ServerMetadata` tells it.
    """

    name: str

    def ready(self) -> bool:
        """Whether it takes work now."""
        ...

    def cards(self) -> Sequence[ModelCard]:
        """The models, the default first; empty while the server starts."""
        ...

    async def infer(
        self,
        card: ModelCard,
        inputs: Mapping[str, Tensor],
        parameters: Mapping[str, Parameter],
        priority: Priority,
        caller: Caller,
    ) -> Inferred:
        """Run a model.

        Args:
            card: one of `cards`.
            inputs: all of the card's inputs, of their datatypes and shapes. Where the card has [-1, 1], the shape may
                be [n]: then outputs of [-1, 1] are [n], too.
            parameters: some of the card's parameters.
            priority: of the request.
            caller: for whom, and by when.

        Raises:
            SluicewayError: the request as a whole failed; this protocol knows no failures of single elements.
        """
        ...
