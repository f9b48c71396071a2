"""The same two models in LitServe, as well as we can tune it. Run by run.py, in an environment of its own.

LitServe's way is one class that does all of a request, copied into each of its workers. Tuned here means: the same
weights in the same engine and precision as Sluiceway's (OpenVINO, static shapes, one compute thread), each worker
pinned to a core of its own, and LitServe's fast queue. As its documentation has it, an image comes in base64 in JSON.
"""

from __future__ import annotations

import argparse
import base64
import fcntl
import os
import sys
from pathlib import Path
from typing import Any

import litserve

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "support"))

from direct_pipeline import DirectPipeline, read_characters


class Reader(litserve.LitAPI):
    """Detects and reads in one worker."""

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__()
        self.options = options

    def setup(self, device: str) -> None:
        del device
        self._held = take_core(Path(self.options.locks))
        self.pipeline = DirectPipeline(
            Path(self.options.detector),
            Path(self.options.recogniser),
            read_characters(Path(self.options.characters)),
            precision=self.options.precision,
        )

    # LitServe makes a schema of annotations that stand here; without any it hands over what the JSON holds.
    def decode_request(self, request):
        return base64.b64decode(request["image"])

    def predict(self, x):
        return [region.text for region in self.pipeline(x) if region.text]

    def encode_response(self, output):
        return {"texts": output}


def take_core(locks: Path) -> Any:
    """Pin this process to a core that no other worker has; the lock ends with the process."""
    cores = sorted(os.sched_getaffinity(0))
    # More workers than cores: the second round of them shares.
    for place in range(4 * len(cores)):
        held = (locks / f"core-{place}").open("w")
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            held.close()
            continue
        os.sched_setaffinity(0, {cores[place % len(cores)]})
        return held
    raise RuntimeError("more workers than places")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("detector", "recogniser", "characters", "precision", "locks"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--port", type=int, required=True)
    arguments = parser.parse_args()
    server = litserve.LitServer(
        Reader(arguments), accelerator="cpu", devices=1, workers_per_device=arguments.workers, fast_queue=True
    )
    server.run(host="127.0.0.1", port=arguments.port, generate_client_file=False, log_level="warning")
