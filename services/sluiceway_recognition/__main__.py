"""`python -m sluiceway_recognition`: the recognition server."""

from __future__ import annotations

import os

from sluiceway_runtime.polling import poll_in_one_thread

# Before anything imports gRPC.
poll_in_one_thread(os.environ)

from sluiceway_runtime.server.main import run_service  # noqa: E402

from sluiceway_recognition.config import RecognitionConfig  # noqa: E402
from sluiceway_recognition.front.service import RecognitionService  # noqa: E402
from sluiceway_recognition.types import KIND  # noqa: E402

if __name__ == "__main__":
    run_service(KIND, RecognitionConfig, RecognitionService)
