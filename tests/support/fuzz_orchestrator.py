"""What the orchestrator reads of messages without parsing them, against what protobuf reads of the same bytes."""

from __future__ import annotations

from contextlib import suppress

from google.protobuf.message import DecodeError
from sluiceway_orchestrator.convert import request as requests
from sluiceway_orchestrator.convert.job import JobLimits, job_from_request
from sluiceway_orchestrator.convert.regions import boxes_of, number_values, place
from sluiceway_orchestrator.pipelines.load import ApiFacts, load_pipelines
from sluiceway_orchestrator.stages import recognition
from sluiceway_orchestrator.wire import span_buffers, split_crops, split_field
from sluiceway_runtime.deadline import Deadline
from sluiceway_runtime.errors import SluicewayError

from sluiceway.detection.v1 import detection_pb2
from sluiceway.pipeline.v1 import pipeline_pb2
from sluiceway.recognition.v1 import recognition_pb2

__all__ = ["orchestrator_messages"]

_TABLES = {
    "pipelines": {
        "looked_up": {
            "steps": [
                {"name": "bring", "api": "files", "params": {"id": "{param.id}"}},
                {"name": "text", "stage": "detection"},
                {"name": "kind", "stage": "recognition"},
            ]
        }
    }
}
_STAGES = {"detection": "detection", "recognition": "recognition"}
LIMITS = JobLimits(load_pipelines(_TABLES, _STAGES, {"files": ApiFacts(("id",), True)}), "read", max_sources=16)


def orchestrator_messages(data: bytes) -> None:
    """Requests of clients and answers of stages."""
    _requests(data)
    with suppress(SluicewayError):
        action = requests.read_action(data)
        assert (action.job is None) is not (action.cancel is None)
    with suppress(SluicewayError):
        _crops(data)
    with suppress(SluicewayError):
        _fields(data)
    with suppress(SluicewayError, DecodeError):
        pending = dict.fromkeys(range(4))
        read, _ = recognition._read(data, pending)
        assert sorted((*read.ids, *pending)) == [0, 1, 2, 3]
        assert [value.region_id for value in read.values.values] == list(read.ids)
        number_values(read.values, range(10, 14))
    with suppress(DecodeError):
        regions = pipeline_pb2.Regions.FromString(data)
        ids = range(5, 5 + len(boxes_of(regions)[0]))
        place(regions, ids, None)
        assert [region.id for region in regions.regions] == list(ids)


def _requests(data: bytes) -> None:
    """A request is the same whether its images are cut out of it or not, and no job comes of a damaged one."""
    whole: pipeline_pb2.ProcessRequest | None = None
    with suppress(DecodeError):
        whole = pipeline_pb2.ProcessRequest.FromString(data)
    try:
        found = requests._taken_apart(memoryview(data))
    except (DecodeError, IndexError):
        found = None
    if whole is not None and found is not None:
        message = pipeline_pb2.ProcessRequest.FromString(found.message.SerializeToString())
        for index, image in found.images.items():
            # A later choice of the `oneof` goes over an image.
            if message.sources[index].WhichOneof("content") == "image":
                message.sources[index].image = bytes(image)
        assert message.SerializeToString(deterministic=True) == whole.SerializeToString(deterministic=True)
    for request in (found, requests.Request(whole, {}) if whole is not None else None):
        if request is not None:
            with suppress(SluicewayError):
                job_from_request(request, client="c", deadline=Deadline.after(1), request_id="r", limits=LIMITS)


def _crops(data: bytes) -> None:
    """Every crop is found, and passes into the next request as it is."""
    rest, spans = split_crops(data)
    with suppress(DecodeError):
        whole = detection_pb2.DetectResponse.FromString(data)
        left = detection_pb2.DetectResponse.FromString(rest)
        request = recognition_pb2.RecognizeRequest.FromString(b"".join(span_buffers(data, spans)))
        # One whose tag is longer than it has to be stays in the rest.
        assert len(request.crops) + len(left.crops) == len(whole.crops)
        if not left.crops:
            assert [crop.SerializeToString() for crop in request.crops] == [
                crop.SerializeToString() for crop in whole.crops
            ]


def _fields(data: bytes) -> None:
    """Regions are split from the rest, and none is lost."""
    taken, rest = split_field(data, 3)
    with suppress(DecodeError):
        whole = detection_pb2.DetectResponse.FromString(data)
        parts = [detection_pb2.DetectResponse.FromString(part) for part in (taken, rest)]
        assert sum(len(part.detections) for part in parts) == len(whole.detections)
        assert taken + rest == data or len(taken) + len(rest) == len(data)
