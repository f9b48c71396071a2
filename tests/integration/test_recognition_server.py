"""The recognition server over gRPC, with real workers: default weights, user code, hostile requests."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import random
import sys
from pathlib import Path

import grpc
import grpc.aio
import numpy as np
import openvino as ov
import psutil
import pytest
from openvino import opset13 as ops
from PIL import Image
from prometheus_client import generate_latest
from recognition_serving import ALONE, ask, line, raw, serving
from sluiceway_recognition.backends import precision
from sluiceway_recognition.config import RecognitionConfig
from sluiceway_recognition.front.group import group_of
from sluiceway_recognition.front.service import CPU_BATCH, RecognitionService
from sluiceway_runtime.errors import StartupError
from sluiceway_runtime.server.main import Installation
from sluiceway_runtime.server.security import Security
from sluiceway_runtime.server.status import from_rpc_error

from sluiceway.common.v1 import crop_pb2
from sluiceway.recognition.v1 import recognition_pb2 as pb

EXAMPLES = Path(__file__).parents[2] / "examples"
TEXTS = [
    "Region-based",
    "segmentation",
    "markers 42",
    "Total: 1,299.00",
    "a",
    "What is the sluice gate for, and who opens it?",
]


async def test_default_weights_over_grpc() -> None:
    config = RecognitionConfig.model_validate({"device": "cpu"})
    assert RecognitionService(config, ALONE).group == ""
    async with serving(workers=2, max_batch=2) as (service, stub):
        for worker in service.status()["workers"]:
            # READY within 10 s where a worker has a core; counted in CPU time, which a busy machine does not stretch.
            times = psutil.Process(worker["pid"]).cpu_times()
            assert times.user + times.system < 8
        crops = [raw(index, line(text)) for index, text in enumerate(TEXTS * 4)]
        answers = await ask(stub, *crops, options=pb.RecognizeOptions(characters=True))
        assert sorted(answers) == list(range(len(crops)))
        for index, text in enumerate(TEXTS * 4):
            answer = answers[index].text
            assert answer.text == text
            assert answer.confidence == pytest.approx(np.mean([c.confidence for c in answer.characters]), abs=1e-5)
            assert "".join(character.text for character in answer.characters) == text
            # The same crop, whatever it was computed with and wherever: the same answer.
            assert answers[index % len(TEXTS)].text == answer

        described = await stub.Describe(pb.DescribeRequest())
        assert (described.workers, described.max_crops) == (2, 4096)
        (model,) = described.models
        assert (model.model.name, model.head, model.backend) == ("ppocrv6-tiny", pb.HEAD_TEXT, "openvino")
        assert len(model.model.weights_sha256) == 64
        spec = model.crop_spec
        assert (spec.name, spec.height, spec.max_width) == ("ppocrv6-tiny", 48, 4 * 1920)
        assert described.group == service.group == group_of(service.models.values()) != ""
        assert all(worker["items"] for worker in service.status()["workers"])


async def test_a_whole_answer_is_what_the_stream_says() -> None:
    async with serving(workers=2, max_batch=4) as (_, stub):
        assert (await stub.Describe(pb.DescribeRequest())).whole_crops == 4
        crops = [raw(index, line(text)) for index, text in enumerate(TEXTS)]
        bad = crop_pb2.Crop(id=99, encoded=b"no picture")
        streamed = await ask(stub, *crops, bad)
        whole = await stub.RecognizeWhole(pb.RecognizeRequest(crops=[*crops, bad]))
        found = {answer.crop_id: answer for answer in whole.recognitions}
        assert len(whole.recognitions) == len(found) == len(TEXTS) + 1
        assert {key: answer.text.text for key, answer in found.items()} == {
            key: answer.text.text for key, answer in streamed.items()
        }
        assert found[99].error.reason == streamed[99].error.reason
        assert whole.model.name
        assert whole.timings.total_ms >= whole.timings.compute_ms > 0
        assert whole.load.capacity > 0
        assert await stub.RecognizeWhole(pb.RecognizeRequest()) == pb.RecognizeResponse()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.RecognizeWhole(pb.RecognizeRequest(crops=crops, options={"model": "unknown"}))
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_requests_that_share_batches_do_not_touch_each_other() -> None:
    chance = random.Random(5)
    words = [line(text) for text in ("gate", "coin", "Lock", "42 m", "Dam", "Lake", "weir", "Ox")]
    async with serving(workers=1, max_batch=8) as (service, stub):
        assert service.pool is not None
        alone = [(await ask(stub, raw(0, word)))[0].text for word in words]
        batches_before = service.pool.statistics().workers[0].batches
        picks = [[chance.randrange(len(words)) for _ in range(6)] for _ in range(8)]
        replies = await asyncio.gather(
            *(ask(stub, *(raw(place, words[pick]) for place, pick in enumerate(request))) for request in picks)
        )
        for request, reply in zip(picks, replies, strict=True):
            assert [reply[place].text for place in range(6)] == [alone[pick] for pick in request]
        # 48 crops of a few widths went in batches; else this would show nothing.
        assert service.pool.statistics().workers[0].batches - batches_before < 40


async def test_answers_name_their_model_times_and_load() -> None:
    async with serving() as (_, stub):
        request = pb.RecognizeRequest(crops=[raw(7, line("gate"))])
        (response,) = [response async for response in stub.Recognize(request)]
        assert response.recognitions[0].text.text == "gate"
        assert not response.recognitions[0].text.characters
        assert response.model.name == "ppocrv6-tiny"
        assert 0 < response.timings.compute_ms <= response.timings.total_ms
        assert response.load.capacity == CPU_BATCH


async def test_hostile_crops_fail_alone_and_hostile_requests_as_a_whole() -> None:
    good = line("gate")
    file = io.BytesIO()
    Image.fromarray(np.repeat(np.repeat(good, 2, axis=0), 2, axis=1)).save(file, "PNG")
    async with serving(max_crops=15) as (_, stub):
        answers = await ask(
            stub,
            raw(0, good),
            raw(1, good, data=good.tobytes()[:-1]),
            raw(2, good, width=0),
            raw(3, good, height=0, width=0, data=b""),
            raw(4, good, format=99),
            raw(5, good, width=2**31 - 1),
            crop_pb2.Crop(id=6),
            crop_pb2.Crop(id=7, encoded=b""),
            crop_pb2.Crop(id=8, encoded=b"a text file"),
            crop_pb2.Crop(id=9, encoded=file.getvalue()),
            raw(10, np.zeros((1, 1, 3), dtype=np.uint8)),
            raw(11, np.zeros((48, 16384, 3), dtype=np.uint8)),
            raw(12, good, height=-48),
            raw(13, good, height=-48, width=-good.shape[1]),
            raw(14, good, format=-1),
        )
        reasons = {index: answer.error.reason for index, answer in answers.items() if answer.HasField("error")}
        assert reasons == {
            **dict.fromkeys((1, 2, 3, 4, 6, 7, 8, 12, 13, 14), "INVALID_IMAGE"),
            5: "IMAGE_TOO_LARGE",
        }
        assert answers[0].text.text == answers[9].text.text == "gate"

        assert await ask(stub) == {}
        for reason, request in {
            "INVALID_OPTION": [
                pb.RecognizeRequest(crops=[raw(1, good), raw(1, good)]),
                pb.RecognizeRequest(crops=[raw(-1, good)]),
                pb.RecognizeRequest(crops=[raw(index, good) for index in range(16)]),
                pb.RecognizeRequest(crops=[raw(1, good)], options=pb.RecognizeOptions(top_k=0)),
                pb.RecognizeRequest(crops=[raw(1, good)], options=pb.RecognizeOptions(top_k=1001)),
                pb.RecognizeRequest(crops=[raw(1, good)], options=pb.RecognizeOptions(top_k=-1)),
                pb.RecognizeRequest(crops=[raw(1, good)], priority=9),
                pb.RecognizeRequest(crops=[raw(1, good)], priority=-1),
            ],
            "UNKNOWN_MODEL": [
                pb.RecognizeRequest(crops=[raw(1, good)], options=pb.RecognizeOptions(model="absent")),
            ],
        }.items():
            for message in request:
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await anext(aiter(stub.Recognize(message)))
                assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
                assert from_rpc_error(caught.value).reason == reason
        assert (await ask(stub, raw(0, good)))[0].text.text == "gate"


async def test_text_class_and_user_code_beside_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(EXAMPLES), prepend=os.pathsep)
    colour = {"name": "colour", "kind": "classify", "recognizer": "recognizer:DominantColour", "classes": ["car"]}
    async with serving(models=["ppocrv6-tiny", colour]) as (_, stub):
        red = np.full((20, 90, 3), (250, 5, 5), dtype=np.uint8)
        options = pb.RecognizeOptions(model="colour", top_k=2)
        labels = (await ask(stub, raw(0, red), options=options))[0].classification.labels
        assert labels[0].class_name == "red"
        assert len(labels) == 2
        assert (await ask(stub, raw(0, line("gate"))))[0].text.text == "gate"
        described = (await stub.Describe(pb.DescribeRequest())).models[1]
        assert described.head == pb.HEAD_CLASSIFY
        assert described.crop_spec.resize_rule == crop_pb2.RESIZE_RULE_STRETCH
        assert list(described.crop_spec.classes) == ["car"]
        assert described.labels[2] == "red"

        # What crops were cut for is a label to the client, whatever it is.
        crops = [raw(index, line("gate")) for index in range(3)]
        for crop, spec in zip(crops, ("colour", "no model", ""), strict=True):
            crop.spec = spec
        assert {answer.text.text for answer in (await ask(stub, *crops)).values()} == {"gate"}
        answers = await ask(stub, *crops, options=options)
        assert {answer.WhichOneof("result") for answer in answers.values()} == {"classification"}


def as_file(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


async def test_a_crop_may_be_a_whole_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(EXAMPLES), prepend=os.pathsep)
    colour = {"name": "colour", "kind": "classify", "recognizer": "recognizer:DominantColour"}
    async with serving(models=["ppocrv6-tiny", colour]) as (service, stub):
        options = pb.RecognizeOptions(model="colour")
        # Upright by its EXIF orientation, as a detection server sees it.
        photograph = Image.new("RGB", (3000, 4000), (250, 5, 5))
        exif = photograph.getexif()
        exif[0x0112] = 6
        for data in (
            as_file(photograph, "JPEG", exif=exif),
            # More pixels and bytes than any region of a page has.
            as_file(Image.new("RGB", (6000, 5000), (250, 5, 5))) + bytes(20 * 2**20),
        ):
            page = crop_pb2.Crop(spec="page", encoded=data)
            assert (await ask(stub, page, options=options))[0].classification.labels[0].class_name == "red"
            # As one line it says nothing, but that is no error.
            assert (await ask(stub, page))[0].WhichOneof("result") == "text"
        text = Image.fromarray(line("What is the sluice gate for?"))
        wide = text.resize((text.width * 20, text.height * 20))
        answer = (await ask(stub, crop_pb2.Crop(encoded=as_file(wide))))[0]
        assert answer.text.text == "What is the sluice gate for?"
        limits = {
            "max_crop_px": as_file(Image.new("1", (10_001, 10_000))),
            "max_crop_bytes": as_file(photograph) + bytes(32 * 2**20),
        }
        for key, data in limits.items():
            error = (await ask(stub, crop_pb2.Crop(encoded=data), options=options))[0].error
            assert (error.reason, error.metadata["limit"]) == ("IMAGE_TOO_LARGE", key)
        assert service.pool is not None
        assert service.pool.statistics().counters.deaths == 0


async def test_a_stage_of_another_name_shows_it_and_is_the_same_otherwise(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(EXAMPLES), prepend=os.pathsep)
    colour = {"name": "colour", "kind": "classify", "recognizer": "recognizer:DominantColour"}
    caplog.set_level(logging.INFO)
    tables = {"stages": {"plates": {"kind": "recognition", "models": [colour]}}}
    installation = Installation(tables, Security(), {}, stage="plates")
    async with serving(installation, models=[colour]) as (service, stub):
        assert service._registry is not None
        assert b'sluiceway_pool_capacity_items{stage="plates"}' in generate_latest(service._registry)
        assert "pool plates: 1 workers are ready" in caplog.messages
        answer = (await ask(stub, raw(0, np.full((20, 90, 3), (250, 5, 5), dtype=np.uint8))))[0]
        assert answer.classification.labels[0].class_name == "red"
    config = RecognitionConfig.model_validate({"device": "cpu", "models": [{"name": "a", "weights": "/none.onnx"}]})
    service = RecognitionService(config, installation)
    with pytest.raises(StartupError, match=r"^stages\.plates\.models\.a: "):
        await service.start()
    await service.close()


async def test_a_network_of_the_users_own_embeds(tmp_path: Path) -> None:
    pixels = ops.parameter(ov.PartialShape([-1, 3, 16, 16]), np.float32, name="images")
    means = ops.reduce_mean(pixels, ops.constant(np.array([2, 3], dtype=np.int64)), keep_dims=False)
    ov.save_model(ov.Model([means], [pixels], "means"), tmp_path / "means.xml")
    model = {
        "name": "look",
        "kind": "embed",
        "weights": str(tmp_path / "means.xml"),
        "version": "7",
        "height": 16,
        "max_width": 16,
        "mean": 0,
        "std": 1,
    }
    async with serving(models=[model]) as (_, stub):
        answers = await ask(stub, raw(3, np.full((33, 50, 3), (0, 60, 80), dtype=np.uint8)))
        # Red-green-blue 0, 60, 80 reaches the network as blue-green-red.
        assert list(answers[3].embedding.values) == pytest.approx([0.8, 0.6, 0.0], abs=1e-3)
        (described,) = (await stub.Describe(pb.DescribeRequest())).models
        assert (described.head, described.embedding_size, described.model.version) == (pb.HEAD_EMBED, 3, "7")


async def test_cuda_without_cuda_fails_at_start() -> None:
    config = RecognitionConfig.model_validate({"port": 0, "operations_port": 0, "device": "cuda"})
    service = RecognitionService(config, ALONE)
    with pytest.raises(StartupError, match="device = 'cuda', but"):
        await service.start()
    await service.close()


async def test_weights_that_are_not_there_fail_at_start(tmp_path: Path) -> None:
    config = RecognitionConfig.model_validate(
        {
            "port": 0,
            "operations_port": 0,
            "device": "cpu",
            "models": [{"name": "a", "weights": str(tmp_path / "b.onnx")}],
        }
    )
    service = RecognitionService(config, ALONE)
    with pytest.raises(StartupError, match=r"recognition\.models\.a: the weights file .*b\.onnx does not exist"):
        await service.start()
    await service.close()


@pytest.mark.parametrize("chosen", ["f32", "bf16"])
async def test_all_workers_compute_as_a_trial_before_their_start_chose(
    monkeypatch: pytest.MonkeyPatch, chosen: str
) -> None:
    monkeypatch.setattr(precision, "undecided", lambda plans, _device: list(plans))
    answer = json.dumps([[chosen, "it was tried"]])
    monkeypatch.setattr(precision, "command", lambda _plans, _cores: [sys.executable, "-c", f"print({answer!r})"])
    async with serving(workers=2) as (service, _):
        assert service.pool is not None
        for facts in service.pool.facts:
            (model,) = facts["models"]
            assert model.precision == chosen
