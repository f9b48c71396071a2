"""Every head through the Open Inference Protocol, and how failures of single crops become one of the request."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import pytest
from sluiceway_recognition.front.convert import Request
from sluiceway_recognition.front.inference import RecognitionInference
from sluiceway_recognition.types import CropSpec, Head, ModelFacts
from sluiceway_runtime.deadline import Deadline
from sluiceway_runtime.errors import InvalidImage, InvalidOption
from sluiceway_runtime.inference import Tensor
from sluiceway_runtime.priority import Priority
from sluiceway_runtime.server.calls import Caller

from sluiceway.common.v1 import error_pb2, value_pb2
from sluiceway.recognition.v1 import recognition_pb2 as pb

CALLER = Caller("somebody", Deadline.after(60), "the-request")


def facts(head: Head, *, embedding_size: int = 0, labels: tuple[str, ...] = ()) -> ModelFacts:
    return ModelFacts(head.value, "7", "f" * 64, head, CropSpec(48, 320), (), labels, embedding_size, "user", "", "cpu")


class Stage:
    """The service and its servicer: answers one crop a message, the last one first."""

    def __init__(self, model: ModelFacts, answers: list[pb.Recognition]) -> None:
        self.pool = None
        self.models = {model.name: model}
        self.group = "g"
        self.answers = answers
        self.requests: list[Request] = []
        self.closed = False

    def ready(self) -> bool:
        return True

    async def answer(self, request: Request, request_id: str, deadline: Deadline) -> AsyncGenerator[bytes, None]:
        assert (deadline, request_id) == CALLER[1:]
        self.requests.append(request)
        try:
            for index in reversed(range(len(request.crops))):
                answer = pb.Recognition(crop_id=index)
                answer.MergeFrom(self.answers[index])
                yield pb.RecognizeResponse(recognitions=[answer]).SerializeToString()
        finally:
            self.closed = True


async def infer(stage: Stage, count: int, *, batched: bool = False, **parameters: Any) -> dict[str, Tensor]:
    inference = RecognitionInference(stage, stage, stage="plates", max_crops=64)  # type: ignore[arg-type]
    assert inference.name == "sluiceway-plates"
    (card,) = inference.cards()
    assert (card.version, card.own_version) == ("1", "7")
    shape = (count, 1) if batched else (count,)
    crops = Tensor("crop", "BYTES", shape, tuple(bytes([index]) for index in range(count)))
    inferred = await inference.infer(card, {"crop": crops}, parameters, Priority.BULK, CALLER)
    assert [request.priority for request in stage.requests] == [3]
    for spec, tensor in zip(card.outputs, inferred.tensors, strict=True):
        assert (spec.name, spec.datatype) == (tensor.name, tensor.datatype)
        assert spec.fits(tensor.shape)
    return {tensor.name: tensor for tensor in inferred.tensors}


async def test_texts_come_in_the_order_of_the_crops() -> None:
    stage = Stage(
        facts(Head.TEXT), [pb.Recognition(text=value_pb2.Text(text=text, confidence=0.5)) for text in ("é", "")]
    )
    outputs = await infer(stage, 2)
    assert outputs["text"].elements == ("é".encode(), b"")
    assert outputs["confidence"].shape == (2,)
    assert [crop.data for crop in stage.requests[0].crops] == [b"\x00", b"\x01"]
    assert stage.requests[0].options.model == "text"


async def test_texts_have_the_shape_of_their_crops() -> None:
    stage = Stage(facts(Head.TEXT), [pb.Recognition(text=value_pb2.Text(text="a", confidence=0.5))] * 2)
    outputs = await infer(stage, 2, batched=True)
    assert outputs["text"] == Tensor.texts("text", (2, 1), ["a", "a"])
    assert outputs["confidence"] == Tensor.floats("confidence", (2, 1), [0.5, 0.5])


async def test_classes() -> None:
    labels = [
        value_pb2.Label(class_id=index, class_name=name, confidence=0.5) for index, name in ((3, "cat"), (1, "dog"))
    ]
    answer = pb.Recognition(classification=value_pb2.Classification(labels=labels))
    stage = Stage(facts(Head.CLASSIFY, labels=("a", "dog", "b", "cat")), [answer, answer, answer])
    outputs = await infer(stage, 3, top_k=2)
    assert stage.requests[0].options.top_k == 2
    assert outputs["class_names"].shape == (3, 2)
    assert outputs["class_names"].elements == (b"cat", b"dog") * 3
    assert outputs["class_ids"] == Tensor.integers("class_ids", (3, 2), [3, 1] * 3)


@pytest.mark.parametrize("size", [0, 3])
async def test_embeddings_also_where_their_length_was_not_known_before(size: int) -> None:
    stage = Stage(
        facts(Head.EMBED, embedding_size=size), [pb.Recognition(embedding=value_pb2.Embedding(values=[0.0, 1.0, 0.0]))]
    )
    assert (await infer(stage, 1))["embedding"] == Tensor.floats("embedding", (1, 3), [0, 1, 0])


@pytest.mark.parametrize("head", list(Head))
async def test_no_crops_is_a_normal_request(head: Head) -> None:
    outputs = await infer(Stage(facts(head), []), 0)
    assert {tensor.shape[0] for tensor in outputs.values()} == {0}


async def test_the_error_of_a_crop_is_that_of_the_request() -> None:
    broken = pb.Recognition(error=error_pb2.Error(code=3, reason="INVALID_IMAGE", message="not an image"))
    stage = Stage(facts(Head.TEXT), [pb.Recognition(text=value_pb2.Text(text="a")), broken])
    with pytest.raises(InvalidImage, match="not an image"):
        await infer(stage, 2)
    assert stage.closed


@pytest.mark.parametrize("value", ["two", -1, 1.5])
async def test_a_parameter_of_another_type_is_refused(value: object) -> None:
    with pytest.raises(InvalidOption, match="top_k"):
        await infer(Stage(facts(Head.CLASSIFY), []), 0, top_k=value)
