"""`python -m sluiceway_recognition`: the recognition server."""

from __future__ import annotations

from sluiceway_runtime.server.main import run_service

from sluiceway_recognition.config import RecognitionConfig
from sluiceway_recognition.service import RecognitionService
from sluiceway_recognition.types import KIND

if __name__ == "__main__":
    run_service(KIND, RecognitionConfig, RecognitionService)
