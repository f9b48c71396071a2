"""From requests to jobs: whose options win, what names calls get, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf import duration_pb2
from sluiceway_orchestrator.convert.job import JobLimits, job_from_request
from sluiceway_orchestrator.convert.request import Request
from sluiceway_orchestrator.job import Job
from sluiceway_orchestrator.pipelines.load import load_pipelines
from sluiceway_runtime.deadline import Deadline
from sluiceway_runtime.errors import InvalidOption, UnknownPipeline
from sluiceway_runtime.priority import Priority

from sluiceway.common.v1 import model_pb2
from sluiceway.detection.v1 import detection_pb2
from sluiceway.pipeline.v1 import pipeline_pb2
from sluiceway.recognition.v1 import recognition_pb2

PIPELINES = load_pipelines(
    {
        "pipelines": {
            "deep": {
                "steps": [
                    {"name": "cars", "stage": "detection", "classes": ["car"], "options": {"confidence": 0.5}},
                    {"name": "plates", "stage": "detection", "of": "cars", "options": {"iou": 0.25}},
                    {"name": "number", "stage": "recognition", "of": "plates", "options": {"top_k": 3}},
                    {"name": "kind", "stage": "recognition", "of": "cars"},
                ]
            }
        }
    },
    {"detection": "detection", "recognition": "recognition"},
    {},
)
PICTURE = pipeline_pb2.Source(image=b"x")
Options, Step = pipeline_pb2.ProcessOptions, pipeline_pb2.StepOptions


def job(*sources: pipeline_pb2.Source, within_s: float = 60, **fields: Any) -> Job:
    message = pipeline_pb2.ProcessRequest(sources=sources or [PICTURE], **({"pipeline": "deep"} | fields))
    limits = JobLimits(PIPELINES, "read", max_sources=3, interactive=("screen",))
    return job_from_request(
        Request(message, {}), client="batch", deadline=Deadline.after(within_s), request_id="r1", limits=limits
    )


def detect(made: Job, step: str) -> detection_pb2.DetectOptions:
    return detection_pb2.DetectRequest.FromString(made.detect_options[step]).options


def recognize(made: Job, step: str) -> recognition_pb2.RecognizeOptions:
    return recognition_pb2.RecognizeRequest.FromString(made.recognize_options[step]).options


def test_without_options_those_of_the_steps_hold_and_are_made_once() -> None:
    made = job()
    assert list(made.detect_options) == ["cars", "plates"]
    assert list(made.recognize_options) == ["number", "kind"]
    assert detect(made, "cars") == detection_pb2.DetectOptions(confidence=0.5, classes=["car"])
    assert detect(made, "plates") == detection_pb2.DetectOptions(iou=0.25)
    assert recognize(made, "number") == recognition_pb2.RecognizeOptions(top_k=3)
    assert recognize(made, "kind") == recognition_pb2.RecognizeOptions()
    assert job().detect_options is made.detect_options


def test_options_of_the_job_win_over_those_of_steps_and_those_for_a_step_over_both() -> None:
    chosen = pipeline_pb2.DetectionOptions(confidence=0.25, classes=["bus"])
    options = Options(detection=chosen, recognition=pipeline_pb2.RecognitionOptions(characters=True))
    made = job(options=options)
    # Lists replace each other.
    assert detect(made, "cars") == detection_pb2.DetectOptions(confidence=0.25, classes=["bus"])
    # For pages, not for what is inside of regions.
    assert detect(made, "plates") == detection_pb2.DetectOptions(iou=0.25)
    assert recognize(made, "number") == recognition_pb2.RecognizeOptions(top_k=3, characters=True)
    assert recognize(made, "kind") == recognition_pb2.RecognizeOptions(characters=True)
    options.steps["cars"].detection.confidence = 0.75
    options.steps["plates"].detection.max_detections = 7
    options.steps["kind"].recognition.characters = False
    made = job(options=options)
    assert detect(made, "cars") == detection_pb2.DetectOptions(confidence=0.75, classes=["bus"])
    assert detect(made, "plates") == detection_pb2.DetectOptions(iou=0.25, max_detections=7)
    assert recognize(made, "number").characters
    assert not recognize(made, "kind").characters


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (Options(steps={"no": Step()}), "has no step 'no'"),
        (Options(detection=pipeline_pb2.DetectionOptions(confidence=0)), "confidence"),
        (Options(detection=pipeline_pb2.DetectionOptions(confidence=float("nan"))), "confidence"),
        (Options(detection=pipeline_pb2.DetectionOptions(iou=1.5)), "iou"),
        (Options(detection=pipeline_pb2.DetectionOptions(max_detections=-1)), "max_detections"),
        (Options(detection=pipeline_pb2.DetectionOptions(image_size=-32)), "image_size"),
        (Options(detection=pipeline_pb2.DetectionOptions(image_size=100)), "image_size"),
        (Options(detection=pipeline_pb2.DetectionOptions(scale="larger")), "scale: must be auto, fast, or a number"),
        (Options(recognition=pipeline_pb2.RecognitionOptions(top_k=-1)), "top_k"),
        (Options(recognition=pipeline_pb2.RecognitionOptions(top_k=1001)), "top_k"),
        (Options(steps={"plates": Step(detection=pipeline_pb2.DetectionOptions(iou=-1))}), "iou"),
        (Options(priority=9), "priority"),
    ],
)
def test_options_that_make_no_sense(options: pipeline_pb2.ProcessOptions, words: str) -> None:
    with pytest.raises(InvalidOption, match=words):
        job(options=options)


@pytest.mark.parametrize("wrong", ["recognition", "detection"])
def test_options_for_a_step_of_another_kind_are_refused(wrong: str) -> None:
    """What would be passed over in silence would be taken for granted."""
    step = {"recognition": "cars", "detection": "number"}[wrong]
    options = Options()
    getattr(options.steps[step], wrong).SetInParent()
    with pytest.raises(InvalidOption, match=f"options.steps.{step}"):
        job(options=options)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"job_id": "x" * 129}, "job_id"),
        ({"timeout": duration_pb2.Duration(seconds=0)}, "timeout"),
        ({"timeout": duration_pb2.Duration(seconds=-3)}, "timeout"),
        ({"timeout": duration_pb2.Duration(seconds=1, nanos=-1_000_000_000)}, "timeout"),
    ],
)
def test_fields_that_make_no_sense(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidOption, match=words):
        job(**fields)


def test_text_that_pages_hold_is_a_wish_of_the_job() -> None:
    assert not job().prefers_text
    assert not job(options=Options(text_layer=model_pb2.TEXT_LAYER_IGNORE)).prefers_text
    assert job(options=Options(text_layer=model_pb2.TEXT_LAYER_PREFER)).prefers_text
    with pytest.raises(InvalidOption, match="text_layer"):
        job(options=Options.FromString(b"\x38\x63"))


def test_the_shorter_deadline_counts() -> None:
    assert 0 < job(timeout=duration_pb2.Duration(nanos=500_000_000)).deadline.remaining_s() <= 0.5
    assert 50 < job(timeout=duration_pb2.Duration(seconds=2**40)).deadline.remaining_s() <= 60


def test_which_pipeline() -> None:
    assert job(pipeline="").pipeline == "read"
    with pytest.raises(UnknownPipeline) as caught:
        job(pipeline="no")
    assert caught.value.metadata == {"pipeline": "no", "pipelines": "read, deep"}


def test_interactive_is_for_those_who_may() -> None:
    options = Options(priority=model_pb2.PRIORITY_INTERACTIVE)
    assert job(options=options).priority is Priority.NORMAL
    # The stages hear what it is served as, and not what was asked for.
    request = detection_pb2.DetectRequest.FromString(job(options=options).detect_options["cars"])
    assert request.priority == model_pb2.PRIORITY_NORMAL
    for names, client, expected in [
        (("screen",), "screen", Priority.INTERACTIVE),
        (("*",), "anybody", Priority.INTERACTIVE),
        ((), "screen", Priority.NORMAL),
    ]:
        limits = JobLimits(PIPELINES, "read", max_sources=1, interactive=names)
        assert limits.class_of(client, Priority.INTERACTIVE) is expected
        assert limits.class_of(client, Priority.BULK) is Priority.BULK


def call(api: str, name: str = "") -> pipeline_pb2.ApiCall:
    return pipeline_pb2.ApiCall(api=api, name=name, params={"id": "1"})


def test_calls_are_named_by_their_api_with_numbers_or_by_themselves() -> None:
    source = pipeline_pb2.Source(api_call=call("a"), calls=[call("a"), call("b"), call("a", "a_3"), call("a")])
    made = job(source).sources[0]
    assert made.api_call is not None
    assert (made.api_call.name, [each.name for each in made.calls]) == ("a", ["a_2", "b", "a_3", "a_4"])
    with pytest.raises(InvalidOption, match=r"calls\.name"):
        job(pipeline_pb2.Source(image=b"x", calls=[call("a", "n"), call("b", "n")]))


@pytest.mark.parametrize(
    ("sources", "words"),
    [
        ([PICTURE, pipeline_pb2.Source(source_id="0", image=b"x")], "unique within the job"),
        ([PICTURE] * 4, "more than the limit"),
        ([pipeline_pb2.Source(image=b"x", calls=[call("a")] * 65)], "at most 64"),
        ([pipeline_pb2.Source(image=b"x", params={str(i): "" for i in range(257)})], "at most 256"),
        ([pipeline_pb2.Source(source_id="x" * 257, image=b"x")], "at most 256"),
    ],
)
def test_sources_that_make_no_sense(sources: list[pipeline_pb2.Source], words: str) -> None:
    with pytest.raises(InvalidOption, match=words):
        job(*sources)


def test_words_are_asked_for_by_the_job_or_by_a_step() -> None:
    everywhere = job(options=Options(recognition=pipeline_pb2.RecognitionOptions(words=True)))
    assert [recognize(everywhere, name).words for name in ("number", "kind")] == [True, True]
    steps = {"kind": Step(recognition=pipeline_pb2.RecognitionOptions(words=True))}
    one = job(options=Options(steps=steps))
    assert [recognize(one, name).words for name in ("number", "kind")] == [False, True]
