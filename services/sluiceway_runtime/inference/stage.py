"""What a stage implements to be reached through the Open Inference Protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import grpc.aio

from sluiceway_runtime.inference.tensors import ModelCard, Tensor

__all__ = ["InferenceStage", "Parameter"]

Parameter = bool | int | float | str


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
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> Sequence[Tensor]:
        """Run a model.

        Args:
            card: one of `cards`.
            inputs: all of the card's inputs, of their datatypes and shapes.
            parameters: some of the card's parameters.
            context: of the call; knows its deadline.

        Returns:
            All of the card's outputs, in their order.

        Raises:
            SluicewayError: the request as a whole failed; this protocol knows no failures of single elements.
        """
        ...
