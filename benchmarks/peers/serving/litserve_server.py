"""The same two models in LitServe: one class that does all of a request, copied into each of its workers.

As its documentation has it, an image comes in base64 in JSON. Tuned means its fast queue as well, beside the engine.
"""

from __future__ import annotations

import base64
import sys
from pathlib import Path

import litserve

sys.path.insert(0, str(Path(__file__).parent))

from settings import Settings, reader_of, settings


class Api(litserve.LitAPI):
    """Detects and reads in one worker."""

    def __init__(self, told: Settings) -> None:
        super().__init__()
        self._told = told

    def setup(self, device: str) -> None:
        del device
        self._read = reader_of(self._told)

    # LitServe makes a schema of annotations that stand here; without any it hands over what the JSON holds.
    def decode_request(self, request):
        return base64.b64decode(request["image"])

    def predict(self, x):
        return self._read(x)

    def encode_response(self, output):
        return {"texts": output}


if __name__ == "__main__":
    told = settings()
    server = litserve.LitServer(
        Api(told), accelerator="cpu", devices=1, workers_per_device=told.workers, fast_queue=told.pinned
    )
    server.run(host="127.0.0.1", port=told.port, generate_client_file=False, log_level="warning")
