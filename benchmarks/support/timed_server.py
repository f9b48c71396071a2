"""The recognition server, its workers keeping time: takes the same command line as `sluiceway serve recognition`."""

from __future__ import annotations

from sluiceway_recognition.config import RecognitionConfig
from sluiceway_recognition.front import service
from sluiceway_runtime.server.main import run_service

if __name__ == "__main__":
    service.FACTORY = "timed_handler:create"  # type: ignore[attr-defined]  # what it imported, not what it offers
    run_service("recognition", RecognitionConfig, service.RecognitionService)
