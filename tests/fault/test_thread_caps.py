"""A worker that runs more threads than it was granted keeps its server from starting; nothing of either is left."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import psutil
import pytest
from sluiceway_detection.backends import Backend, BackendSpec
from sluiceway_detection.config import DetectionConfig
from sluiceway_detection.front.service import DetectionService
from sluiceway_detection.worker import handler as handler_module
from sluiceway_detection.worker.handler import DetectionHandler, WorkerSettings
from sluiceway_runtime.errors import StartupError
from sluiceway_runtime.pool import Placement
from sluiceway_runtime.server.main import Installation
from sluiceway_runtime.server.security import Security
from thread_models import compute

MODEL = Path(__file__).parents[1] / "unit" / "detection" / "models" / "yolo11-pico.onnx"


def service_of(name: str, threads: int) -> DetectionService:
    config = DetectionConfig(detector=f"thread_models:{name}", workers=1, threads_per_worker=threads)
    return DetectionService(config, Installation({}, Security(), {}))


async def test_a_detector_with_threads_of_its_own_fails_the_start() -> None:
    service = service_of("SpinningDetector", 1)
    try:
        with pytest.raises(StartupError, match=r"worker 0 keeps [34] threads busy at once where 1 may.*spinner"):
            await service.start()
        assert not service.ready()
    finally:
        await service.close()
    left = [child for child in psutil.Process().children() if child.name() == "sluice-worker"]
    assert left == []


async def test_threads_that_were_granted_and_work_that_is_handed_over_are_no_fault() -> None:
    for name, threads, busy in (("SpinningDetector", 4, (3, 4)), ("DelegatingDetector", 1, (0, 1))):
        service = service_of(name, threads)
        try:
            await service.start()
            (worker,) = service.status()["workers"]
            assert worker["threads"] == threads
            # One less where a look falls between two computations.
            assert worker["threads_busy"] in busy
            assert worker["thread_caps"]["opencv"] == threads
        finally:
            await service.close()


async def test_a_detector_that_does_not_take_the_page_is_served_all_the_same() -> None:
    service = service_of("PickyDetector", 1)
    try:
        await service.start()
        assert service.ready()
        assert service.status()["workers"][0]["threads_busy"] is None
    finally:
        await service.close()


def team_work() -> None:
    """A parallel region: four threads that compute at once, and are waited for.

    For long, beside the inference: in a process with as many threads as this one a look takes milliseconds.
    """
    team = [threading.Thread(target=lambda: [compute() for _ in range(8)], name="team") for _ in range(4)]
    for member in team:
        member.start()
    for member in team:
        member.join()


def test_a_backend_whose_cap_does_not_hold_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenVINO, and in each inference what a library does that ignores its cap."""
    opened = handler_module.open_backend

    def open_uncapped(name: str, spec: BackendSpec) -> Backend:
        backend = opened(name, spec)  # type: ignore[arg-type]
        infer = backend.infer

        def infer_with_a_team(images: list[np.ndarray]) -> list[np.ndarray]:
            team_work()
            return infer(images)

        monkeypatch.setattr(backend, "infer", infer_with_a_team)
        return backend

    monkeypatch.setattr(handler_module, "open_backend", open_uncapped)
    settings = WorkerSettings(weights=str(MODEL), backend="openvino", precision="f32", shapes=((96, 64),))
    with pytest.raises(StartupError, match=r"worker 0 keeps [2-4] threads busy at once where 1 may.*team"):
        DetectionHandler(settings).setup(Placement(0, "cpu", None, 1))
