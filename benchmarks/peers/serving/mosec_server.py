"""The same two models in mosec: an image file comes as the body of a request.

On a CPU, tuned, each worker does all of a request: a stage for each step would take the crops through two processes and
win nothing. With a recogniser on a GPU there are two stages, as mosec's documentation has it for work of two kinds:
detectors on the cores, and behind them one process that reads what several images brought in one batch.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from mosec import Server, Worker
from settings import reader_of, settings, take_core

# Images whose crops are read together, at most.
BATCH = 16


class Whole(Worker):
    """Detects and reads."""

    def __init__(self) -> None:
        super().__init__()
        self._read = reader_of(settings())

    def deserialize(self, data):
        # It comes as a bytearray, which not every engine takes.
        return bytes(data)

    def forward(self, data):
        return {"texts": self._read(data)}


class Detect(Worker):
    """From a file to crops."""

    def __init__(self) -> None:
        super().__init__()
        from engine import Detector, Models

        told = settings()
        self._held = take_core(Path(told.locks))
        self._detect = Detector(Models(told.detector, told.recogniser))

    def deserialize(self, data):
        # It comes as a bytearray, which not every engine takes.
        return bytes(data)

    def forward(self, data):
        return [tuple(crop) for crop in self._detect(data)]


class Read(Worker):
    """From the crops of some images to their texts."""

    def __init__(self) -> None:
        super().__init__()
        from engine import Crop, Models, Reader

        told = settings()
        self._crop = Crop
        self._read = Reader(Models(told.detector, told.recogniser, told.device))

    def forward(self, data):
        texts = self._read([[self._crop(*crop) for crop in image] for image in data])
        return [{"texts": found} for found in texts]


if __name__ == "__main__":
    told = settings()
    sys.argv[1:] = ["--address", "127.0.0.1", "--port", str(told.port), "--log-level", "warning"]
    if told.queue:
        sys.argv += ["--capacity", str(told.queue), "--timeout", "10000"]
    server = Server()
    if told.device == "cpu" or not told.pinned:
        server.append_worker(Whole, num=told.workers)
    else:
        server.append_worker(Detect, num=told.workers)
        # Whatever waits, without waiting for more than the least that mosec knows.
        server.append_worker(Read, num=1, max_batch_size=BATCH, max_wait_time=1)
    server.run()
