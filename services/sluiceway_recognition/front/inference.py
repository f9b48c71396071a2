"""Recognition through the Open Inference Protocol: crops as image files in; text, classes or vectors out."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Protocol

from sluiceway_runtime.errors import InvalidOption
from sluiceway_runtime.images.signatures import ACCEPTED
from sluiceway_runtime.inference import Inferred, ModelCard, Parameter, Tensor, TensorSpec
from sluiceway_runtime.priority import Priority
from sluiceway_runtime.server.calls import Caller
from sluiceway_runtime.server.convert import error_from_proto, priority_to_proto

from sluiceway.recognition.v1 import recognition_pb2 as pb
from sluiceway_recognition.front.convert import EncodedCrop, Request, top_k_of
from sluiceway_recognition.front.servicer import RecognitionServicer, RecognitionStage
from sluiceway_recognition.types import Head, ModelFacts

__all__ = ["RecognitionInference"]

INPUTS = (TensorSpec("crop", "BYTES", (-1, 1)),)
# A stage serves one at a time.
VERSION = "1"


class Service(RecognitionStage, Protocol):
    """What is needed of the service."""

    def ready(self) -> bool:
        """Whether a worker can take crops."""
        ...


class RecognitionInference:
    """Implements `sluiceway_runtime.inference.InferenceStage` over the stage's own servicer."""

    def __init__(self, service: Service, servicer: RecognitionServicer, *, stage: str, max_crops: int) -> None:
        self.name = f"sluiceway-{stage}"
        self._service = service
        self._servicer = servicer
        self._max_crops = max_crops

    def ready(self) -> bool:
        """Whether it takes work now."""
        return self._service.ready()

    def cards(self) -> Sequence[ModelCard]:
        """The models, the default first."""
        return tuple(_card(facts, self._max_crops) for facts in self._service.models.values())

    async def infer(
        self,
        card: ModelCard,
        inputs: Mapping[str, Tensor],
        parameters: Mapping[str, Parameter],
        priority: Priority,
        caller: Caller,
    ) -> Inferred:
        """Recognise every crop; the first failure is that of the request. See `InferenceStage`."""
        crops = inputs["crop"].elements
        options = pb.RecognizeOptions(model=card.name)
        if "top_k" in parameters:
            try:
                options.top_k = parameters["top_k"]  # type: ignore[assignment]  # checked by protobuf
            except (TypeError, ValueError):
                raise InvalidOption("parameters: top_k must be an integer", metadata={"option": "top_k"}) from None
            top_k_of(options)
        request = Request(
            options, priority_to_proto(priority), [EncodedCrop(index, crop) for index, crop in enumerate(crops)]
        )
        answers: dict[int, pb.Recognition] = {}
        queue_ms = compute_ms = 0.0
        answer = self._servicer.answer(request, caller.request_id, caller.deadline)
        async with contextlib.aclosing(answer) as responses:
            async for response in responses:
                message = pb.RecognizeResponse.FromString(response)
                queue_ms = max(queue_ms, message.timings.queue_ms)
                compute_ms = max(compute_ms, message.timings.compute_ms)
                for recognition in message.recognitions:
                    if recognition.HasField("error"):
                        raise error_from_proto(recognition.error)
                    answers[recognition.crop_id] = recognition
        ordered = [answers[index] for index in range(len(crops))]
        tensors = _outputs(self._service.models[card.name], ordered, inputs["crop"].shape)
        return Inferred(tensors, queue_ms, compute_ms)


def _card(facts: ModelFacts, max_crops: int) -> ModelCard:
    properties = [
        ("crop", f"files: {ACCEPTED}, one region each, upright"),
        ("height", str(facts.crop_spec.height)),
        ("max_width", str(facts.crop_spec.max_width)),
        ("version", facts.version),
        ("weights_sha256", facts.weights_sha256),
    ]
    parameters: tuple[str, ...] = ()
    outputs: tuple[TensorSpec, ...]
    match facts.head:
        case Head.TEXT:
            outputs = (TensorSpec("text", "BYTES", (-1, 1)), TensorSpec("confidence", "FP32", (-1, 1)))
        case Head.CLASSIFY:
            outputs = (
                TensorSpec("class_names", "BYTES", (-1, -1)),
                TensorSpec("class_ids", "INT32", (-1, -1)),
                TensorSpec("probabilities", "FP32", (-1, -1)),
            )
            parameters = ("top_k",)
            properties.append(("labels", ",".join(facts.labels)))
        case Head.EMBED:
            # Not known of user code before its first answer.
            outputs = (TensorSpec("embedding", "FP32", (-1, facts.embedding_size or -1)),)
    return ModelCard(
        name=facts.name,
        version=VERSION,
        own_version=facts.version,
        platform=f"sluiceway_{facts.backend}",
        inputs=INPUTS,
        outputs=outputs,
        max_elements=max_crops,
        max_batch=max_crops,
        parameters=parameters,
        properties=tuple(properties),
    )


def _outputs(facts: ModelFacts, answers: Sequence[pb.Recognition], shape: tuple[int, ...]) -> Sequence[Tensor]:
    """The outputs; those with one element for each crop have the shape that the crops came in."""
    count = len(answers)
    match facts.head:
        case Head.TEXT:
            texts = [answer.text.text for answer in answers]
            confidences = [answer.text.confidence for answer in answers]
            return (
                Tensor.texts("text", shape, texts, confidences),
                Tensor.floats("confidence", shape, confidences, [text.encode() for text in texts]),
            )
        case Head.CLASSIFY:
            labels = [label for answer in answers for label in answer.classification.labels]
            each = (count, len(labels) // count if count else 0)
            names = [label.class_name for label in labels]
            called = [name.encode() for name in names]
            return (
                Tensor.texts("class_names", each, names, [label.confidence for label in labels]),
                Tensor.integers("class_ids", each, [label.class_id for label in labels], called),
                Tensor.floats("probabilities", each, [label.confidence for label in labels], called),
            )
        case Head.EMBED:
            values = [value for answer in answers for value in answer.embedding.values]
            return (Tensor.floats("embedding", (count, len(values) // count if count else 0), values),)
