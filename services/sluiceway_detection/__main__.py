"""`python -m sluiceway_detection`: the detection server."""

from __future__ import annotations

import os

from sluiceway_runtime.polling import poll_in_one_thread

# Before anything imports gRPC.
poll_in_one_thread(os.environ)

from sluiceway_runtime.server.main import run_service  # noqa: E402

from sluiceway_detection.config import KIND, DetectionConfig  # noqa: E402
from sluiceway_detection.front.service import DetectionService  # noqa: E402

if __name__ == "__main__":
    run_service(KIND, DetectionConfig, DetectionService)
