"""The models of a stage, whichever way the protocol comes: found, described, run and counted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from sluiceway_runtime.errors import DeadlineExceeded, UnknownModel
from sluiceway_runtime.inference import convert
from sluiceway_runtime.inference import open_inference_pb2 as pb
from sluiceway_runtime.inference.stage import InferenceStage, Inferred, Parameter
from sluiceway_runtime.inference.tensors import ModelCard, Tensor
from sluiceway_runtime.priority import Priority

__all__ = ["EXTENSIONS", "NO_MODEL_CONTROL", "NO_STREAMS", "Models", "Run"]

Run = Callable[[ModelCard, Mapping[str, Tensor], Mapping[str, Parameter], Priority], Awaitable[Inferred]]

EXTENSIONS = ("classification", "model_configuration", "model_repository", "schedule_policy", "statistics")
NO_STREAMS = "streams of this protocol are not supported: call ModelInfer for each request"
NO_MODEL_CONTROL = "models are those of the server's configuration: they are neither loaded nor unloaded by clients"
# For no request has ever been here.
_NEVER_MS = 0


@dataclass(slots=True)
class _Counts:
    """What became of the requests for a model; times in seconds."""

    succeeded: int = 0
    failed: int = 0
    elements: int = 0
    success_s: float = 0.0
    fail_s: float = 0.0
    queue_s: float = 0.0
    compute_s: float = 0.0
    last_ms: int = _NEVER_MS


class Models:
    """The models of a stage."""

    def __init__(self, stage: InferenceStage) -> None:
        self._stage = stage
        self._counts: dict[tuple[str, str], _Counts] = {}

    def ready(self, name: str, version: str) -> bool:
        """Whether a model takes work; one that is not served does not."""
        return self._find(name, version) is not None and self._stage.ready()

    def card(self, name: str, version: str) -> ModelCard:
        """A model. Raises UnknownModel, with the words that Triton's clients look for."""
        card = self._find(name, version)
        if card is None:
            asked = f"{name[:100]} {version[:100]}".strip()
            known = ", ".join(f"{card.name} {card.version}" for card in self._stage.cards())
            raise UnknownModel(
                f"Request for unknown model: '{asked}' is not served", metadata={"model": name[:100], "models": known}
            )
        return card

    def index(self, *, ready_only: bool) -> pb.RepositoryIndexResponse:
        """The names of all models."""
        ready = self._stage.ready()
        response = pb.RepositoryIndexResponse()
        for card in self._stage.cards():
            if ready or not ready_only:
                response.models.add(
                    name=card.name,
                    version=card.version,
                    state="READY" if ready else "UNAVAILABLE",
                    reason="" if ready else "the server takes no work now",
                )
        return response

    def statistics(self, name: str, version: str) -> pb.ModelStatisticsResponse:
        """What became of the requests for a model; an empty name asks for all models. Raises UnknownModel."""
        cards = [self.card(name, version)] if name else self._stage.cards()
        response = pb.ModelStatisticsResponse()
        for card in cards:
            counts = self._counts.get((card.name, card.version), _Counts())
            message = response.model_stats.add(
                name=card.name,
                version=card.version,
                last_inference=counts.last_ms,
                inference_count=counts.elements,
                execution_count=counts.succeeded,
            )
            stats = message.inference_stats
            for target, count, seconds in (
                (stats.success, counts.succeeded, counts.success_s),
                (stats.fail, counts.failed, counts.fail_s),
                (stats.queue, counts.succeeded, counts.queue_s),
                (stats.compute_input, counts.succeeded, 0.0),
                (stats.compute_infer, counts.succeeded, counts.compute_s),
                (stats.compute_output, counts.succeeded, 0.0),
            ):
                target.count, target.ns = count, round(seconds * 1e9)
        return response

    async def infer(self, request: pb.ModelInferRequest, run: Run) -> pb.ModelInferResponse:
        """Run a model.

        Raises:
            UnknownModel, InvalidOption: the request does not fit.
            DeadlineExceeded: the request's own timeout is over.
        """
        card = self.card(request.model_name, request.model_version)
        counts = self._counts.setdefault((card.name, card.version), _Counts())
        began_s = time.monotonic()
        try:
            inputs = convert.inputs_of(request, card)
            entries = next(iter(inputs.values())).shape[0] if inputs else 0
            asked = convert.asked_of(request, card)
            wanted = convert.wanted_of(request, card)
            try:
                async with asyncio.timeout(asked.timeout_s):
                    inferred = await run(card, inputs, asked.parameters, asked.priority)
            except TimeoutError:
                raise DeadlineExceeded("the timeout of the request is over") from None
            response = convert.response_of(request, card, wanted, inferred.tensors)
        except BaseException:
            counts.failed += 1
            counts.fail_s += time.monotonic() - began_s
            raise
        counts.succeeded += 1
        counts.success_s += time.monotonic() - began_s
        counts.elements += entries
        counts.queue_s += inferred.queue_ms / 1000
        counts.compute_s += inferred.compute_ms / 1000
        counts.last_ms = round(time.time() * 1000)
        return response

    def _find(self, name: str, version: str) -> ModelCard | None:
        for card in self._stage.cards():
            if card.name == name and version in ("", card.version, card.own_version):
                return card
        return None
