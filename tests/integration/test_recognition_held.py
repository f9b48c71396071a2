"""The recognition server over gRPC, with a model that waits: answers one by one, abandoned and refused requests."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import grpc
import grpc.aio
import numpy as np
import pytest
from recognition_serving import ask, raw, serving
from sluiceway_runtime.server.status import from_rpc_error
from waiting import until

from sluiceway.common.v1 import crop_pb2
from sluiceway.recognition.v1 import recognition_pb2 as pb

# Reads what it is told to by the blue of the first pixel, once a file of that name lies in the folder.
HELD = """
import os
import time
from pathlib import Path
from sluiceway_recognition.types import CropSpec, TextReading

class Held:
    crop_spec = CropSpec(48, 1920)

    def __init__(self, folder):
        self.folder = Path(folder)

    def setup(self, device):
        pass

    def __call__(self, batch):
        readings = []
        for crop in batch:
            name = str(crop[0, 0, 0])
            if name == "66":
                os._exit(1)
            if name == "77":
                raise ValueError("not this one")
            with (self.folder / "begun").open("a") as begun:
                begun.write(name + " ")
            while not (self.folder / name).exists():
                time.sleep(0.005)
            readings.append(TextReading(name, (1.0,) * len(name)))
        return readings
"""


@pytest.fixture
def held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    (tmp_path / "held.py").write_text(HELD, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    return {"name": "held", "recognizer": "held:Held", "options": {"folder": str(tmp_path)}}


def numbered(*ids: int) -> list[crop_pb2.Crop]:
    return [raw(number, np.full((48, 8, 3), number, dtype=np.uint8)) for number in ids]


async def test_each_answer_is_sent_before_the_next_crop_is_read(held: dict[str, object], tmp_path: Path) -> None:
    async with serving(models=[held], max_batch=1) as (_, stub):
        (tmp_path / "1").touch()
        call = aiter(stub.Recognize(pb.RecognizeRequest(crops=numbered(1, 2))))
        first = await asyncio.wait_for(anext(call), 10)
        assert [answer.text.text for answer in first.recognitions] == ["1"]
        # Only now, having the first, is the second released.
        (tmp_path / "2").touch()
        second = await asyncio.wait_for(anext(call), 10)
        assert [answer.text.text for answer in second.recognitions] == ["2"]
        with pytest.raises(StopAsyncIteration):
            await anext(call)


async def test_crops_of_a_client_that_left_are_not_computed(held: dict[str, object], tmp_path: Path) -> None:
    async with serving(models=[held], max_batch=1) as (service, stub):
        assert service.pool is not None
        call = stub.Recognize(pb.RecognizeRequest(crops=numbered(1, 2, 3, 4)))
        begun = tmp_path / "begun"
        await until(begun.exists)
        call.cancel()
        await until(lambda: service.pool.statistics().counters.cancelled == 4)
        (tmp_path / "1").touch()
        (tmp_path / "9").touch()
        assert (await ask(stub, *numbered(9)))[9].text.text == "9"
        assert begun.read_text().split() == ["1", "9"]


async def test_crops_whose_time_ran_out_are_not_computed(held: dict[str, object], tmp_path: Path) -> None:
    async with serving(models=[held], max_batch=1) as (_, stub):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async for _ in stub.Recognize(pb.RecognizeRequest(crops=numbered(1, 2, 3)), timeout=0.5):
                pass
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        (tmp_path / "1").touch()
        (tmp_path / "9").touch()
        assert (await ask(stub, *numbered(9)))[9].text.text == "9"
        assert (tmp_path / "begun").read_text().split() == ["1", "9"]


async def test_a_request_larger_than_the_queue_is_answered_and_a_full_queue_refuses(
    held: dict[str, object], tmp_path: Path
) -> None:
    async with serving(models=[held], max_batch=1, queue_items=4) as (_, stub):
        for number in range(1, 20):
            (tmp_path / str(number)).touch()
        assert len(await ask(stub, *numbered(*range(1, 20)))) == 19
        calls = [stub.Recognize(pb.RecognizeRequest(crops=numbered(30, 31, 32))) for _ in range(8)]
        firsts = [asyncio.ensure_future(anext(aiter(call))) for call in calls]
        # One crop is with the worker and four wait; the calls of which nothing was taken are refused at once.
        await until(lambda: any(first.done() for first in firsts))
        refused = next(first for first in firsts if first.done()).exception()
        assert isinstance(refused, grpc.aio.AioRpcError)
        assert refused.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert from_rpc_error(refused).retry_after_s
        for name in ("30", "31", "32"):
            (tmp_path / name).touch()
        await asyncio.wait(firsts)
        answered = [first for first in firsts if first.exception() is None]
        assert 1 <= len(answered) < len(calls)


async def test_a_crop_that_kills_its_worker_or_raises_fails_alone(held: dict[str, object], tmp_path: Path) -> None:
    async with serving(models=[held], max_batch=8) as (service, stub):
        for number in (1, 2, 3, 4, 5):
            (tmp_path / str(number)).touch()
        answers = await ask(stub, *numbered(1, 2, 66, 3, 77, 4))
        assert {index: answer.text.text for index, answer in answers.items() if answer.HasField("text")} == {
            index: str(index) for index in (1, 2, 3, 4)
        }
        assert answers[66].error.reason == "QUARANTINED"
        assert answers[77].error.reason == "MODEL_FAILED"
        assert "not this one" not in answers[77].error.message
        assert (await ask(stub, *numbered(5)))[5].text.text == "5"
        assert service.ready()
