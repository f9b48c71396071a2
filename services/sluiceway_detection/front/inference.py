"""Detection through the Open Inference Protocol: image files in, boxes out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Protocol

from sluiceway_runtime.errors import InvalidOption
from sluiceway_runtime.images.signatures import ACCEPTED
from sluiceway_runtime.inference import Inferred, ModelCard, Parameter, Tensor, TensorSpec
from sluiceway_runtime.priority import Priority
from sluiceway_runtime.server.calls import Caller
from sluiceway_runtime.server.convert import priority_to_proto
from sluiceway_runtime.together import nursery

from sluiceway.detection.v1 import detection_pb2 as pb
from sluiceway_detection.front.convert import Request
from sluiceway_detection.front.servicer import DetectionServicer, DetectionStage

__all__ = ["DetectionInference"]

INPUTS = (TensorSpec("image", "BYTES", (-1, 1)),)
# One entry for each image, as long as that of the image with most detections: `num_detections` says how many count.
OUTPUTS = (
    TensorSpec("num_detections", "INT32", (-1, 1)),
    TensorSpec("image_sizes", "INT32", (-1, 2)),
    TensorSpec("boxes", "FP32", (-1, -1, 4)),
    TensorSpec("confidences", "FP32", (-1, -1)),
    TensorSpec("class_ids", "INT32", (-1, -1)),
    TensorSpec("class_names", "BYTES", (-1, -1)),
)
PARAMETERS = ("confidence", "iou", "classes", "max_detections", "image_size", "scale")
# Where an image has fewer detections than another of its request.
NOTHING = pb.Detection(class_id=-1)
Shape = tuple[int, ...]
# A stage serves one at a time.
VERSION = "1"
# More than these belong into several requests: each is an item of the queue of its own.
MAX_IMAGES = 64


class Service(DetectionStage, Protocol):
    """What is needed of the service."""

    def ready(self) -> bool:
        """Whether a worker can take images."""
        ...


class DetectionInference:
    """Implements `sluiceway_runtime.inference.InferenceStage` over the stage's own servicer."""

    def __init__(self, service: Service, servicer: DetectionServicer, *, stage: str) -> None:
        self.name = f"sluiceway-{stage}"
        self._service = service
        self._servicer = servicer

    def ready(self) -> bool:
        """Whether it takes work now."""
        return self._service.ready()

    def cards(self) -> Sequence[ModelCard]:
        """The one model; none while the server starts."""
        facts, identity = self._service.facts, self._service.identity
        if facts is None or identity is None:
            return ()
        return (
            ModelCard(
                name=identity.name,
                version=VERSION,
                own_version=identity.version,
                platform=f"sluiceway_{facts.backend}",
                inputs=INPUTS,
                outputs=OUTPUTS,
                max_elements=MAX_IMAGES,
                max_batch=MAX_IMAGES,
                parameters=PARAMETERS,
                properties=(
                    ("classes", ",".join(facts.classes)),
                    ("image", f"files: {ACCEPTED}"),
                    ("boxes", "x0 y0 x1 y1 in pixels of the original image, origin top left"),
                    ("image_sizes", "width height in pixels, after EXIF orientation"),
                    ("version", identity.version),
                    ("weights_sha256", identity.weights_sha256),
                ),
            ),
        )

    async def infer(
        self,
        card: ModelCard,
        inputs: Mapping[str, Tensor],
        parameters: Mapping[str, Parameter],
        priority: Priority,
        caller: Caller,
    ) -> Inferred:
        """Detect in every image at once; the first failure is that of the request. See `InferenceStage`."""
        del card
        given = inputs["image"]
        request = pb.DetectRequest(options=options_of(parameters), priority=priority_to_proto(priority))
        # One error speaks for all, as everywhere else: the protocol has room for one.
        async with nursery() as group:
            calls = [
                group.create_task(self._servicer.answer(Request(request, image), caller.request_id, caller.deadline))
                for image in given.elements
            ]
        answers = [call.result() for call in calls]
        tensors = _together(answers) if len(given.shape) == 1 else _in_entries(answers)
        return Inferred(
            tensors,
            max((answer.timings.queue_ms for answer in answers), default=0.0),
            max((answer.timings.compute_ms for answer in answers), default=0.0),
        )


def _together(answers: Sequence[pb.DetectResponse]) -> Sequence[Tensor]:
    """For images given as [n]: the detections of all of them, one after the other."""
    found = [detection for answer in answers for detection in answer.detections]
    count = len(answers)
    return _tensors(answers, found, (count,), (len(found),))


def _in_entries(answers: Sequence[pb.DetectResponse]) -> Sequence[Tensor]:
    """For images given as [n, 1]: an entry for each image, filled up to the longest."""
    longest = max((len(answer.detections) for answer in answers), default=0)
    found: list[pb.Detection] = []
    for answer in answers:
        found.extend(answer.detections)
        found.extend([NOTHING] * (longest - len(answer.detections)))
    count = len(answers)
    return _tensors(answers, found, (count, 1), (count, longest))


def _tensors(
    answers: Sequence[pb.DetectResponse], found: Sequence[pb.Detection], per_image: Shape, per_detection: Shape
) -> Sequence[Tensor]:
    sizes = [edge for answer in answers for edge in (answer.width, answer.height)]
    confidences = [detection.confidence for detection in found]
    names = [detection.class_name.encode() for detection in found]
    return (
        Tensor.integers("num_detections", per_image, [len(answer.detections) for answer in answers], (b"detections",)),
        Tensor.integers("image_sizes", (len(answers), 2), sizes, (b"width", b"height") * len(answers)),
        Tensor.floats("boxes", (*per_detection, 4), [edge for item in found for edge in _upright(item)], names),
        Tensor.floats("confidences", per_detection, confidences, names),
        Tensor.integers("class_ids", per_detection, [detection.class_id for detection in found], names),
        Tensor("class_names", "BYTES", per_detection, tuple(names), names, confidences),
    )


def options_of(parameters: Mapping[str, Parameter]) -> pb.DetectOptions:
    """Return the options that a request's parameters name.

    Raises:
        InvalidOption: a value is not of its type.
    """
    options = pb.DetectOptions()
    for name, value in parameters.items():
        try:
            if name == "classes":
                options.classes.extend(part.strip() for part in str(value).split(",") if part.strip())
            else:
                setattr(options, name, value)
        except (TypeError, ValueError):
            raise InvalidOption(f"parameters: {repr(value)[:100]} is no {name}", metadata={"option": name}) from None
    return options


def _upright(detection: pb.Detection) -> tuple[float, float, float, float]:
    """Return the box, or the upright box around the corners of another shape."""
    geometry = detection.geometry
    if geometry.HasField("box"):
        return geometry.box.x0, geometry.box.y0, geometry.box.x1, geometry.box.y1
    if geometry.HasField("polygon"):
        xs = [point.x for point in geometry.polygon.points]
        ys = [point.y for point in geometry.polygon.points]
        return min(xs), min(ys), max(xs), max(ys)
    turned = geometry.rotated_box
    angle = math.radians(turned.angle_degrees)
    cos, sin = abs(math.cos(angle)), abs(math.sin(angle))
    half_width = (turned.width * cos + turned.height * sin) / 2
    half_height = (turned.width * sin + turned.height * cos) / 2
    x, y = turned.center.x, turned.center.y
    return x - half_width, y - half_height, x + half_width, y + half_height
