"""The orchestrator's container keeps within its memory, whoever comes: all are answered or refused in words.

Small pictures with much behind them are 20 MB to the orchestrator, and to detection as much work as any other.
"""

from __future__ import annotations

import io
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic

import aiohttp
import docker
import grpc.aio
import numpy as np
import pytest
import yaml
from compose_stack import ADDRESS, HTTP_PORT, Compose, replicas
from crowd import ANSWERED, Bystander, by_client, by_http, by_stub, job, outcomes
from docker.models.containers import Container
from PIL import Image, ImageDraw, ImageFont
from rendered_lines import WORDS

from sluiceway.client import AsyncClient
from sluiceway.pipeline.v1 import pipeline_pb2

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

LARGE_BYTES = 20_000_000
PHONE_BYTES = 4_000_000
CALLS, PHOTOS, SOURCES = 40, 64, 128
# For everything that comes at once. Whoever is not served by then is told so.
TIMEOUT_S = 60.0
# What may become of a call besides an answer.
REFUSALS = {"QUEUE_FULL", "DEADLINE_EXCEEDED"}
# Of its 1 GiB: the budget, Python, and what the heap does not give back.
PEAK_BYTES = 850 * 2**20
BY_AGE = "room for answers is given by age, and not yet fairly between clients"
# The engine's own networks.
PRIVATE = '["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"]'
LOOK = "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000').close()"
Report = Callable[[str], None]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("images")


@pytest.fixture(scope="module")
def large(photo: bytes, folder: Path) -> bytes:
    """A photograph of 20 MB, as phones make them that put a film behind it."""
    image = photo + random.Random(0).randbytes(LARGE_BYTES - len(photo))
    (folder / "large.jpg").write_bytes(image)
    return image


@pytest.fixture(scope="module")
def phone(photo: bytes) -> bytes:
    """A photograph of 12 megapixels and 4 MB."""
    picture = Image.open(io.BytesIO(photo)).convert("RGB").resize((3000, 4000))
    noise = np.random.default_rng(0).integers(-8, 9, (4000, 3000, 1), np.int16)
    noisy = Image.fromarray((np.asarray(picture, np.int16) + noise).clip(0, 255).astype(np.uint8))
    written = io.BytesIO()
    noisy.save(written, "JPEG", quality=85)
    return written.getvalue()


@pytest.fixture(scope="module")
def dense() -> bytes:
    """A page of 400 words that stand apart."""
    chance, page = random.Random(0), Image.new("L", (2000, 2600), 255)
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(36)
    for number in range(400):
        row, column = divmod(number, 10)
        draw.text((40 + 195 * column, 20 + 64 * row), chance.choice(WORDS)[:8], fill=0, font=font)
    written = io.BytesIO()
    page.save(written, "PNG")
    return written.getvalue()


@pytest.fixture(scope="module")
def stack(large: bytes, folder: Path) -> Iterator[Compose]:
    """The stack, and a server of images beside it."""
    services = {
        "orchestrator": {"environment": {"SLUICEWAY_ORCHESTRATOR__URL_ALLOW_CIDRS": PRIVATE}},
        "images": {
            "image": "sluiceway/orchestrator:0.1.0",
            "entrypoint": ["python", "-m", "http.server", "8000", "--directory", "/images"],
            "volumes": [f"{folder}:/images:ro"],
            # The folder is its owner's alone.
            "user": "root",
            "healthcheck": {"test": ["CMD", "python", "-c", LOOK], "interval": "1s", "timeout": "5s"},
        },
    }
    override = folder / "images.yml"
    override.write_text(yaml.safe_dump({"services": services}))
    compose = Compose(files=[override])
    compose.down()
    try:
        compose("build")
        compose("up", "--detach", "--wait")
        yield compose
    finally:
        compose.down()


@pytest.fixture
def orchestrator(stack: Compose, engine: docker.DockerClient) -> Container:
    [container] = replicas(engine, "orchestrator")
    return container


def peak_bytes(container: Container) -> int:
    """The most memory that the container has used so far."""
    for file in ("memory.peak", "memory/memory.max_usage_in_bytes"):
        read = container.exec_run(["cat", f"/sys/fs/cgroup/{file}"])
        if read.exit_code == 0:
            return int(read.output)
    raise AssertionError("the engine shows no peak of memory")


@asynccontextmanager
async def watched(orchestrator: Container, photo: bytes, report: Report, what: str) -> AsyncIterator[Counter[str]]:
    """Whatever happens inside: the container lives on, a bystander loses nothing, and everybody hears of the end.

    Args:
        orchestrator: the container.
        photo: what the bystander sends.
        report: takes the figures.
        what: happens.

    Yields:
        How often each way to end came up: to be filled in.
    """
    ended: Counter[str] = Counter()
    begin_s = monotonic()
    async with Bystander(ADDRESS, photo, timeout_s=TIMEOUT_S) as bystander:
        yield ended
    took_s = monotonic() - begin_s
    orchestrator.reload()
    state = orchestrator.attrs["State"]
    peak = peak_bytes(orchestrator)
    report(
        f"memory: {what}: {dict(ended)} in {took_s:.0f} s; peak so far {peak / 2**20:.0f} MiB; "
        f"bystander {bystander.sent} sent, {len(bystander.lost)} lost, slowest {bystander.slowest_s:.1f} s"
    )
    assert (orchestrator.attrs["RestartCount"], state["OOMKilled"], state["Status"]) == (0, False, "running")
    assert ended.keys() <= REFUSALS | {ANSWERED}
    assert ended[ANSWERED]
    assert peak < PEAK_BYTES
    assert bystander.lost == []


async def at_once(make: Callable[[], Awaitable[str]], count: int = CALLS) -> Counter[str]:
    return await outcomes(make() for _ in range(count))


async def test_calls_of_20_mb(orchestrator: Container, photo: bytes, large: bytes, report: Report) -> None:
    async with watched(orchestrator, photo, report, "40 calls of 20 MB") as ended, AsyncClient(ADDRESS) as client:
        ended.update(await at_once(lambda: by_client(client, large, TIMEOUT_S)))


async def test_calls_that_do_not_say_their_size(
    orchestrator: Container, photo: bytes, large: bytes, report: Report
) -> None:
    async with (
        watched(orchestrator, photo, report, "40 calls of 20 MB by a plain stub") as ended,
        grpc.aio.insecure_channel(ADDRESS) as channel,
    ):
        ended.update(await at_once(lambda: by_stub(channel, large, TIMEOUT_S)))


async def test_posts_of_20_mb(orchestrator: Container, photo: bytes, large: bytes, report: Report) -> None:
    url = f"http://127.0.0.1:{HTTP_PORT}/v1/process"
    async with (
        watched(orchestrator, photo, report, "40 posts of 20 MB") as ended,
        aiohttp.ClientSession() as session,
    ):
        ended.update(await at_once(lambda: by_http(session, url, large, TIMEOUT_S)))


async def test_photographs_of_4_mb(orchestrator: Container, photo: bytes, phone: bytes, report: Report) -> None:
    async with watched(orchestrator, photo, report, "64 photographs of 4 MB") as ended, AsyncClient(ADDRESS) as client:
        ended.update(await at_once(lambda: by_client(client, phone, TIMEOUT_S), PHOTOS))


async def test_a_job_of_128_urls_of_20_mb(orchestrator: Container, photo: bytes, report: Report) -> None:
    sources = [pipeline_pb2.Source(url=f"http://images:8000/large.jpg?{number}") for number in range(SOURCES)]
    async with (
        watched(orchestrator, photo, report, "128 URLs of 20 MB") as ended,
        grpc.aio.insecure_channel(ADDRESS) as channel,
    ):
        ends = await job(channel, pipeline_pb2.ProcessRequest(sources=sources), TIMEOUT_S)
        ended.update(ends.values())


async def test_a_job_of_128_dense_pages(orchestrator: Container, photo: bytes, dense: bytes, report: Report) -> None:
    sources = [pipeline_pb2.Source(image=dense)] * SOURCES
    async with (
        watched(orchestrator, photo, report, "128 dense pages") as ended,
        grpc.aio.insecure_channel(ADDRESS) as channel,
    ):
        ends = await job(channel, pipeline_pb2.ProcessRequest(sources=sources), TIMEOUT_S)
        ended.update(ends.values())
