"""What docs/http.md shows is what the server takes and says."""

from __future__ import annotations

import json
import re
from pathlib import Path

from google.protobuf import json_format
from jsonschema import Draft202012Validator
from multidict import MultiDict
from sluiceway_orchestrator.http.convert import QUERY, request_from_image, request_from_json
from sluiceway_orchestrator.http.openapi import document
from sluiceway_runtime.errors import QueueFull
from sluiceway_runtime.http.problem import problem_body

from sluiceway.pipeline.v1 import pipeline_pb2

GUIDE = (Path(__file__).parents[3] / "docs" / "http.md").read_text("utf-8")
BLOCKS = re.findall(r"^```\n(.*?)^```$", GUIDE, re.DOTALL | re.MULTILINE)


def test_the_parameters_are_those_that_the_server_knows() -> None:
    table = GUIDE.split("| parameter | |")[1].split("\n\n")[0]
    first_cells = "".join(row.split("|")[1] for row in table.strip().splitlines())
    assert set(re.findall(r"`(\w+)`", first_cells)) == {*QUERY, "timeout_s"}


def test_every_parameter_reaches_the_request() -> None:
    given = {
        "job_id": "j", "pipeline": "p", "confidence": "0.5", "iou": "0.25", "classes": "a,b", "max_detections": "3",
        "image_size": "640", "scale": "fast", "class_agnostic": "true", "characters": "true", "words": "true",
        "top_k": "2", "priority": "bulk", "detect_only": "true", "text_layer": "prefer",
    }  # fmt: skip
    assert given.keys() == QUERY.keys()
    options = {
        "detection": {
            "confidence": 0.5, "iou": 0.25, "classes": ["a", "b"], "max_detections": 3, "image_size": 640,
            "scale": "fast", "class_agnostic": True,
        },
        "recognition": {"characters": True, "words": True, "top_k": 2},
        "priority": "PRIORITY_BULK", "detect_only": True, "text_layer": "TEXT_LAYER_PREFER",
    }  # fmt: skip
    message = request_from_image(b"x", MultiDict(given)).message
    message.ClearField("sources")
    expected = {"job_id": "j", "pipeline": "p", "options": options}
    assert message == json_format.ParseDict(expected, pipeline_pb2.ProcessRequest())


def test_the_request_in_json_is_one() -> None:
    [body] = [match[1] for block in BLOCKS for match in re.finditer(r"-d '(.*?)'", block, re.DOTALL)]
    message = request_from_json(body.encode()).message
    assert [source.WhichOneof("content") for source in message.sources] == ["url", "api_call"]
    assert message.options.steps["words"].recognition.characters


def test_every_event_is_one_and_has_every_field() -> None:
    texts = [text for block in BLOCKS if '"job_id"' in block for text in re.split(r"\n(?=\{)", block)]
    # What is left out of the page: further elements, the fields of a message, the rest of a text.
    texts = [text.replace(",…]", "]").replace("{…}", "{}").replace("…", "") for text in texts]
    kinds = set()
    for text in texts:
        shown = json.loads(text)
        message = json_format.ParseDict(shown, pipeline_pb2.ProcessResponse())
        kind = message.WhichOneof("event")
        assert kind is not None
        kinds.add(kind)
        written = json_format.MessageToDict(
            message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
        )
        assert shown.keys() == written.keys()
        assert shown[kind].keys() == written[kind].keys()
    every = {field.name for field in pipeline_pb2.ProcessResponse.DESCRIPTOR.oneofs_by_name["event"].fields}
    assert kinds == every - {"job_refused"}, "only streams of many jobs, which HTTP does not have, refuse jobs"


def test_the_problem_is_one() -> None:
    [block] = [block for block in BLOCKS if "urn:sluiceway" in block]
    shown = json.loads(block.split("\n\n")[1])
    real = problem_body(QueueFull("every job slot is taken", retry_after_s=0.25), "9f2c…")
    assert shown == real


def test_the_documents_are_results() -> None:
    [block] = [block for block in BLOCKS if '"status": "ok"' in block]
    texts = re.split(r"\n(?=\{)", block.strip())
    shown = [json.loads(text.replace(",…", "").replace("…", "")) for text in texts]
    schemas = document("1")["components"]["schemas"]
    for result in shown:
        Draft202012Validator({"components": {"schemas": schemas}, **schemas["Result"]}).validate(result)
        assert set(result) <= set(schemas["Result"]["properties"])
    assert [result["status"] for result in shown] == ["ok", "failed"]
    assert set(shown[0]["regions"][0]) - {"outline"} == set(schemas["ResultRegion"]["required"])
