"""Detection through the Open Inference Protocol: parameters, shapes that are no boxes, failures."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sluiceway_detection.front.convert import Request
from sluiceway_detection.front.identity import Identity
from sluiceway_detection.front.inference import DetectionInference, options_of
from sluiceway_detection.worker.handler import DetectionFacts
from sluiceway_runtime.deadline import Deadline
from sluiceway_runtime.errors import InvalidImage, InvalidOption
from sluiceway_runtime.inference import Tensor
from sluiceway_runtime.inference import open_inference_pb2 as inference_pb
from sluiceway_runtime.inference.convert import inputs_of
from sluiceway_runtime.priority import Priority
from sluiceway_runtime.server.calls import Caller

from sluiceway.common.v1 import geometry_pb2 as geometry
from sluiceway.common.v1 import model_pb2
from sluiceway.detection.v1 import detection_pb2 as pb

CALLER = Caller("somebody", Deadline.after(60), "the-request")


class Stage:
    """The service and its servicer; finds one region of each kind."""

    pool = None
    identity = Identity("finder", "3", "a" * 64)
    group = "g"
    facts = DetectionFacts("onnx", "f32", "cpu", ("x", "y"), (640,), ())

    def __init__(self) -> None:
        self.cancelled = 0

    def ready(self) -> bool:
        return True

    async def answer(self, request: Request, request_id: str, deadline: Deadline) -> pb.DetectResponse:
        assert (deadline, request_id) == CALLER[1:]
        if request.image == b"bad":
            raise InvalidImage("not an image")
        if request.image == b"slow":
            try:
                await asyncio.Event().wait()
            finally:
                self.cancelled += 1
        points = [geometry.Point(x=1, y=8), geometry.Point(x=4, y=2), geometry.Point(x=3, y=9)]
        turned = geometry.RotatedBox(center=geometry.Point(x=10, y=20), width=6, height=2, angle_degrees=90)
        shapes = [
            geometry.Geometry(box=geometry.Box(x0=1, y0=2, x1=3, y1=4)),
            geometry.Geometry(polygon=geometry.Polygon(points=points)),
            geometry.Geometry(rotated_box=turned),
        ]
        assert request.message.priority == model_pb2.PRIORITY_BULK
        found = [pb.Detection(id=row, geometry=shape, class_name="x") for row, shape in enumerate(shapes)]
        timings = model_pb2.StageTimings(queue_ms=2, compute_ms=5)
        kept = found[:1] if request.image == b"few" else found
        return pb.DetectResponse(width=30, height=40, detections=kept, timings=timings)


async def infer(stage: Stage, *images: bytes, shape: tuple[int, ...] | None = None) -> dict[str, Tensor]:
    inference = DetectionInference(stage, stage, stage="detection")  # type: ignore[arg-type]
    (card,) = inference.cards()
    assert (card.version, card.own_version) == ("1", "3")
    inputs = {"image": Tensor("image", "BYTES", shape or (len(images),), images)}
    inferred = await inference.infer(card, inputs, {}, Priority.BULK, CALLER)
    for spec, tensor in zip(card.outputs, inferred.tensors, strict=True):
        assert (spec.name, spec.datatype) == (tensor.name, tensor.datatype)
        assert shape is None or spec.fits(tensor.shape)
    assert (inferred.queue_ms, inferred.compute_ms) == ((2, 5) if images else (0, 0))
    return {tensor.name: tensor for tensor in inferred.tensors}


async def test_other_shapes_come_as_the_upright_box_around_them() -> None:
    outputs = await infer(Stage(), b"one")
    assert outputs["boxes"].shape == (3, 4)
    box, polygon, turned = (memoryview(outputs["boxes"].raw).cast("f")[start : start + 4] for start in (0, 4, 8))
    assert list(box) == [1, 2, 3, 4]
    assert list(polygon) == [1, 2, 4, 9]
    assert list(turned) == pytest.approx([9, 17, 11, 23])


async def test_several_images_follow_each_other() -> None:
    outputs = await infer(Stage(), b"one", b"two")
    assert outputs["num_detections"] == Tensor.integers("num_detections", (2,), [3, 3])
    assert outputs["image_sizes"] == Tensor.integers("image_sizes", (2, 2), [30, 40, 30, 40])


async def test_images_of_a_batch_have_an_entry_each_filled_up_to_the_longest() -> None:
    outputs = await infer(Stage(), b"few", b"all", shape=(2, 1))
    assert outputs["num_detections"] == Tensor.integers("num_detections", (2, 1), [1, 3])
    assert outputs["image_sizes"] == Tensor.integers("image_sizes", (2, 2), [30, 40, 30, 40])
    boxes = memoryview(outputs["boxes"].raw).cast("f", (2, 3, 4)).tolist()
    assert boxes[0] == [[1, 2, 3, 4], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert boxes[1][1] == [1, 2, 4, 9]
    assert outputs["class_ids"] == Tensor.integers("class_ids", (2, 3), [0, -1, -1, 0, 0, 0])
    assert outputs["class_names"] == Tensor.texts("class_names", (2, 3), ["x", "", "", "x", "x", "x"])
    empty = await infer(Stage(), shape=(0, 1))
    assert {tensor.shape[0] for tensor in empty.values()} == {0}


async def test_the_first_failure_ends_the_request_and_the_other_images() -> None:
    stage = Stage()
    with pytest.raises(InvalidImage):
        await infer(stage, b"slow", b"bad")
    assert stage.cancelled == 1


def test_a_server_is_called_like_its_stage() -> None:
    stage: Any = Stage()
    names = [DetectionInference(stage, stage, stage=name).name for name in ("detection", "vehicles")]
    assert names == ["sluiceway-detection", "sluiceway-vehicles"]


def test_too_many_images() -> None:
    (card,) = DetectionInference(Stage(), Stage(), stage="vehicles").cards()  # type: ignore[arg-type]
    request = inference_pb.ModelInferRequest()
    images = request.inputs.add(name="image", datatype="BYTES", shape=[65])
    images.contents.bytes_contents.extend([b"one"] * 65)
    with pytest.raises(InvalidOption, match="at most 64"):
        inputs_of(request, card)
    images.shape[:] = [64]
    del images.contents.bytes_contents[64]
    assert len(inputs_of(request, card)["image"].elements) == 64


def test_parameters() -> None:
    options = options_of({"confidence": 0.5, "max_detections": 3, "classes": "x, y"})
    assert options == pb.DetectOptions(confidence=0.5, max_detections=3, classes=["x", "y"])


@pytest.mark.parametrize("parameters", [{"max_detections": "many"}, {"image_size": 2**31}, {"confidence": "high"}])
def test_parameters_of_another_type(parameters: dict[str, Any]) -> None:
    with pytest.raises(InvalidOption, match=next(iter(parameters))):
        options_of(parameters)


def test_an_error_does_not_repeat_all_that_was_sent() -> None:
    with pytest.raises(InvalidOption, match="image_size") as caught:
        options_of({"image_size": "x" * 2**20})
    assert len(str(caught.value)) < 500
