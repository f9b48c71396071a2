"""`python -m sluiceway_detection`: the detection server."""

from __future__ import annotations

from sluiceway_runtime.server.main import run_service

from sluiceway_detection.config import KIND, DetectionConfig
from sluiceway_detection.service import DetectionService

if __name__ == "__main__":
    run_service(KIND, DetectionConfig, DetectionService)
