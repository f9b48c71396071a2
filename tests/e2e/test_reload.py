"""`sluiceway reload`: new weights are taken up under load, and no request is lost, doubled, or answered by both."""

from __future__ import annotations

import asyncio
import hashlib
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import grpc.aio
import numpy as np
import psutil
import pytest
from onnx_files import save_classifier
from sluiceway_orchestrator.testing.cluster import account
from waiting import until, wait_until
from yolo_graphs import bright_blocks

from sluiceway.detection.v1 import detection_pb2, detection_pb2_grpc
from sluiceway.pipeline.v1 import pipeline_pb2, pipeline_pb2_grpc

COMMAND = [sys.executable, "-m", "sluiceway.cli"]
# All that it finds in a bright picture lies in one place.
REGIONS = 1
COLOURS = np.eye(3, dtype=np.float32)
CONFIG = """
[detection]
model = "{folder}/blocks.onnx"
workers = 1
{more}
[recognition]
workers = 1
[[recognition.models]]
name = "shade"
kind = "classify"
weights = "{folder}/shade.onnx"
labels = ["r", "g", "b"]
height = 32
max_width = 32
"""


def write_detector(folder: Path, version: int) -> str:
    """Put other weights in the place of those that are there, which find the same; returns their digest."""
    file = bright_blocks(folder / "draft.onnx", scale=float(version)).replace(folder / "blocks.onnx")
    return hashlib.sha256(file.read_bytes()).hexdigest()


def picture() -> bytes:
    """A bright one."""
    return bytes(cv2.imencode(".png", np.full((96, 96, 3), 255, np.uint8))[1])


@dataclass
class Load:
    """Clients who ask without a pause and never ask twice; every answer is looked at.

    Attributes:
        answers: when each was asked for, and the digests of the detectors that the answer names.
    """

    stub: pipeline_pb2_grpc.PipelineServiceStub
    image: bytes = field(default_factory=picture)
    answers: list[tuple[float, frozenset[str]]] = field(default_factory=list)
    running: bool = True

    async def client(self) -> None:
        while self.running:
            asked_s = time.monotonic()
            call = self.stub.Process(
                pipeline_pb2.ProcessRequest(sources=[pipeline_pb2.Source(image=self.image)]), timeout=60
            )
            # It sees to it that nothing is told twice.
            ((source,),) = ((*sources.values(),) for sources in [(await account(call))[None]])
            assert source.error is None, source.error
            assert source.done is not None
            assert (len(source.regions), len(source.values)) == (REGIONS, REGIONS)
            assert not source.region_errors
            (text,) = (report for report in source.done.steps if report.step == "text")
            self.answers.append((asked_s, frozenset(model.weights_sha256 for model in text.models)))

    async def more(self, count: int) -> None:
        goal = len(self.answers) + count
        await until(lambda: len(self.answers) >= goal, within_s=120)

    def digests(self, since_s: float = 0.0, until_s: float = float("inf")) -> set[frozenset[str]]:
        return {digests for asked_s, digests in self.answers if since_s <= asked_s < until_s}


@asynccontextmanager
async def load_on(address: str, clients: int = 6) -> AsyncIterator[Load]:
    async with grpc.aio.insecure_channel(address) as channel:
        load = Load(pipeline_pb2_grpc.PipelineServiceStub(channel))
        async with asyncio.TaskGroup() as group:
            for _ in range(clients):
                group.create_task(load.client())
            try:
                yield load
            finally:
                load.running = False


class Installation:
    """A folder with a configuration and weights, and the cluster that runs with them."""

    def __init__(self, folder: Path, start_up: Any) -> None:
        self.folder = folder
        self.config = folder / "sluiceway.toml"
        self.digest = write_detector(folder, 1)
        save_classifier(folder / "shade.onnx", COLOURS, np.zeros(3, np.float32), (32, 32))
        self.configure()
        self.up = start_up(self.config)

    def configure(self, more: str = "") -> None:
        self.config.write_text(CONFIG.format(folder=self.folder, more=more))

    async def reload(self, *arguments: str) -> tuple[int, str]:
        """Exit code, and what was said."""
        port = self.up.address.rpartition(":")[2]
        command = [*COMMAND, "reload", *arguments, "--config", str(self.config), "--set", f"orchestrator.port={port}"]
        done = await asyncio.to_thread(
            subprocess.run, command, check=False, capture_output=True, text=True, timeout=300
        )
        return done.returncode, done.stderr

    def group(self, section: str = "detection") -> str:
        """Of whoever listens at the port that is configured for its operations."""
        return str(self.up.status(section)["model"]["group"])


@pytest.fixture
def installation(tmp_path: Path, start_up: Any) -> Installation:
    return Installation(tmp_path, start_up)


async def test_new_weights_are_taken_up_under_load_and_no_request_is_lost(installation: Installation) -> None:
    first, group = installation.digest, installation.group()
    async with load_on(installation.up.address) as load:
        await load.more(30)
        second = write_detector(installation.folder, 2)
        begun_s = time.monotonic()
        code, said = await installation.reload()
        done_s = time.monotonic()
        assert code == 0, said
        await load.more(30)
        # Once more, by way of ports that are no longer those of the first server, and one stage alone.
        third = write_detector(installation.folder, 3)
        again_s = time.monotonic()
        code, said = await installation.reload("detection")
        assert code == 0, said
        end_s = time.monotonic()
        await load.more(30)
    assert load.digests(until_s=begun_s) == {frozenset({first})}
    # Meanwhile by either, and never by both.
    assert load.digests(begun_s, done_s) == {frozenset({first}), frozenset({second})}
    assert load.digests(done_s, again_s) == {frozenset({second})}
    assert load.digests(again_s, end_s) == {frozenset({second}), frozenset({third})}
    assert load.digests(end_s) == {frozenset({third})}

    # Whoever knows a stage by its ports finds the new one there, and nobody else is left.
    assert installation.group() != group
    channel = grpc.aio.insecure_channel(f"127.0.0.1:{installation.up.ports['detection']}")
    async with channel:
        stub = detection_pb2_grpc.DetectionServiceStub(channel)
        described = await stub.Describe(detection_pb2.DescribeRequest(), timeout=30)
    assert described.model.weights_sha256 == third
    assert len(psutil.Process(installation.up.process.pid).children()) == 3


async def test_what_cannot_start_changes_nothing(installation: Installation) -> None:
    async with load_on(installation.up.address, clients=2) as load:
        await load.more(10)
        (installation.folder / "blocks.onnx").write_bytes(b"not a model")
        code, said = await installation.reload()
        assert code == 1, said
        assert "the detection server could not start" in said
        assert "blocks.onnx" in said
        await load.more(10)
        # Nor does what only a restart can take up, or is no stage.
        for more, arguments, words in (
            ("http = { enabled = true }", (), "detection: which servers there are"),
            ("workrs = 1", (), "detection.workrs"),
            ("", ("plates",), "plates: not of this cluster; its stages are detection, recognition"),
            ("", ("orchestrator",), "an orchestrator is restarted with `up`"),
        ):
            installation.configure(more)
            code, said = await installation.reload(*arguments)
            assert code == 2, said
            assert words in said
        await load.more(10)
        # What is put right is taken up.
        installation.digest = write_detector(installation.folder, 4)
        code, said = await installation.reload()
        assert code == 0, said
        done_s = time.monotonic()
        await load.more(10)
    assert len(load.digests(until_s=done_s)) == 2
    assert load.digests(done_s) == {frozenset({installation.digest})}


async def test_a_hangup_reloads_where_there_is_no_terminal(installation: Installation) -> None:
    group = installation.group()
    write_detector(installation.folder, 2)
    installation.up.process.send_signal(signal.SIGHUP)
    await asyncio.to_thread(
        wait_until, lambda: "reload: done" in installation.up.lines, within_s=200, what="it was not reloaded"
    )
    assert installation.group() != group
    (installation.folder / "blocks.onnx").unlink()
    installation.up.process.send_signal(signal.SIGHUP)
    told = "reload: nothing has changed: "
    await asyncio.to_thread(
        wait_until,
        lambda: any(line.startswith(told) for line in installation.up.lines),
        within_s=200,
        what="nothing was said",
    )
    assert installation.up.process.poll() is None


def test_nobody_to_reload(tmp_path: Path) -> None:
    command = [*COMMAND, "reload", "--set", "orchestrator.port=1"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=tmp_path, timeout=100)
    assert done.returncode == 1
    assert "no `sluiceway up` of yours runs here with its orchestrator at port 1" in done.stderr
