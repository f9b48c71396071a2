"""The images with CUDA on a machine without a GPU: what they say, how they fall back, and whether they can compile.

Needs a Docker engine, 25 GB of disk while it builds, and five minutes the first time.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import docker
import grpc
import numpy as np
import pytest
from docker.models.containers import Container

from sluiceway.recognition.v1 import recognition_pb2, recognition_pb2_grpc

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

ROOT = Path(__file__).resolve().parents[2]
BASE, VERSION = "python:3.11-slim-bookworm", "0.1.0"
GRPC = {"detection": 50052, "recognition": 50053}
PORT = 50953
COMPILED = "/opt/sluiceway/weights/gpu"
TEXT = "Hello 42"
Report = Callable[[str], None]
# As deploy/compose/gpu.yml runs it, but for the GPU.
CONFINED = {
    "read_only": True,
    "tmpfs": {"/tmp": "size=2g,mode=1777,exec"},
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges:true"],
    "nano_cpus": 1_000_000_000,
}


def image(stage: str) -> str:
    return f"sluiceway/{stage}-gpu:{VERSION}"


@pytest.fixture(scope="module")
def engine(report: Report) -> Iterator[docker.DockerClient]:
    client = docker.from_env()
    for stage in ("recognition", "detection"):
        begin = time.monotonic()
        command = ["docker", "build", "--file", "deploy/docker/Dockerfile", "--target", f"{stage}-gpu"]
        done = subprocess.run(
            [*command, "--tag", image(stage), "."], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-4000:]
        over = client.images.get(image(stage)).attrs["Size"] - client.images.get(BASE).attrs["Size"]
        report(f"image {stage}-gpu: {over / 1e9:.2f} GB over the base, built in {time.monotonic() - begin:.0f} s")
    yield client
    client.close()


@pytest.fixture
def serve(engine: docker.DockerClient) -> Iterator[Callable[..., Container]]:
    started: list[Container] = []

    def start(stage: str = "recognition", **variables: str) -> Container:
        environment = {f"SLUICEWAY_{name}": value for name, value in variables.items()}
        environment["SLUICEWAY_SECURITY__ALLOW_UNAUTHENTICATED"] = "true"
        container = engine.containers.run(
            image(stage),
            detach=True,
            environment=environment,
            ports={f"{GRPC[stage]}/tcp": ("127.0.0.1", PORT)},
            **CONFINED,
        )
        started.append(container)
        return container

    yield start
    for container in started:
        # Also the volume that the image asks for.
        container.remove(v=True, force=True)


def read_line() -> str:
    """Have a line of text read by the server."""
    pixels = np.full((48, 220, 3), 255, np.uint8)
    cv2.putText(pixels, TEXT, (8, 35), cv2.FONT_HERSHEY_SIMPLEX, 1.1, (0, 0, 0), 2)
    request = recognition_pb2.RecognizeRequest()
    request.crops.add(id=1, encoded=cv2.imencode(".png", pixels)[1].tobytes())
    with grpc.insecure_channel(f"localhost:{PORT}") as channel:
        stub = recognition_pb2_grpc.RecognitionServiceStub(channel)
        [answer] = stub.Recognize(request, timeout=60, wait_for_ready=True)
    [recognition] = answer.recognitions
    return str(recognition.text.text)


def healthy(container: Container) -> bool:
    container.reload()
    return bool(container.attrs["State"]["Health"]["Status"] == "healthy")


@pytest.mark.parametrize("stage", GRPC)
def test_auto_computes_on_the_cpu_with_one_warning(
    serve: Callable[..., Container], until: Callable[..., float], stage: str
) -> None:
    container = serve(stage, **{f"{stage.upper()}__DEVICE": "auto"})
    until("a healthy server", lambda: healthy(container), 120)
    if stage == "recognition":
        assert read_line() == TEXT
    warnings = [line for line in container.logs().decode().splitlines() if "WARNING" in line]
    assert len(warnings) == 1, warnings
    assert "no GPU is used: this machine has no NVIDIA driver; computing on the CPU" in warnings[0]


@pytest.mark.parametrize("stage", GRPC)
def test_cuda_without_a_gpu_ends_at_once_and_says_why(serve: Callable[..., Container], stage: str) -> None:
    container = serve(stage, **{f"{stage.upper()}__DEVICE": "cuda"})
    assert container.wait(timeout=60)["StatusCode"] == 1
    [error] = [line for line in container.logs().decode().splitlines() if "ERROR" in line]
    assert "device = 'cuda', but this machine has no NVIDIA driver. Use device = 'cpu' or 'auto'" in error


def test_torch_serves_from_a_read_only_cache(serve: Callable[..., Container], until: Callable[..., float]) -> None:
    """What computes on a GPU, on the CPU: the network is converted although its conversion cannot be kept."""
    models = '[{"name": "ppocrv6-tiny", "backend": "torch"}]'
    container = serve(RECOGNITION__DEVICE="cpu", RECOGNITION__MODELS=models)
    until("a healthy server", lambda: healthy(container), 180)
    assert read_line() == TEXT
    assert b"ppocrv6-tiny: torch on cpu" in container.logs()


@pytest.mark.parametrize("folder", [COMPILED, "/tmp"])
def test_what_is_compiled_can_be_loaded(
    serve: Callable[..., Container], until: Callable[..., float], folder: str
) -> None:
    """Inductor and Triton write C++, compile it and load the result, as the servers' user on a read-only root."""
    container = serve(RECOGNITION__DEVICE="auto")
    until("a healthy server", lambda: healthy(container), 120)
    script = (
        f"printf 'extern \"C\" int answer() {{ return 42; }}' > {folder}/a.cpp"
        f" && g++ -O2 -fPIC -shared -o {folder}/a.so {folder}/a.cpp"
        f" && python -c 'import ctypes; print(ctypes.CDLL(\"{folder}/a.so\").answer())'"
    )
    done = container.exec_run(["sh", "-c", script])
    assert (done.exit_code, done.output.strip()) == (0, b"42"), done.output


def test_the_overlay_gives_recognition_a_gpu_and_room_to_compile() -> None:
    """As compose itself joins the two files."""
    files = ["--file", "docker-compose.yml", "--file", "deploy/compose/gpu.yml"]
    command = ["docker", "compose", *files, "config", "--format", "json", "recognition"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    service = json.loads(done.stdout)["services"]["recognition"]
    assert service["image"] == image("recognition")
    assert service["tmpfs"] == ["/tmp:size=2g,mode=1777,exec"]
    assert [volume["target"] for volume in service["volumes"]] == [COMPILED]
    [device] = service["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])
    assert service["read_only"] is True
