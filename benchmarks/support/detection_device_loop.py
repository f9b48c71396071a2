"""What a worker on a GPU does, without the server around it: `run SECONDS` gives images a second of each part.

    python detection_device_loop.py '{"weights": ..., "device": "cuda:0", "shapes": [[640, 480]], ...}'

`device` is the model alone on images that are letterboxed already, several batches on their way; `bytes_to_boxes` is
the worker's whole handler, from files to answers; `decode` is what its threads decode and letterbox by themselves.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

# The first folder on the path is this one.
from contestant import obey

__all__: list[str] = []

DEPTH = 3


def main() -> None:
    """Read the settings from the only argument, load, obey."""
    settings = json.loads(sys.argv[1])
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="  %(name)s %(message)s")
    from sluiceway_detection.backends.base import BackendSpec
    from sluiceway_detection.backends.cuda import CudaBackend
    from sluiceway_detection.inputs.letterbox import Letterbox
    from sluiceway_detection.job import DetectionJob
    from sluiceway_detection.selection import Selection
    from sluiceway_detection.worker.decoders import open_device_decoder
    from sluiceway_detection.worker.device_handler import DeviceHandler
    from sluiceway_detection.worker.handler import WorkerSettings
    from sluiceway_runtime.images.decode import decode_image
    from sluiceway_runtime.images.limits import ImageLimits
    from sluiceway_runtime.pool import Placement

    shapes = tuple((height, width) for height, width in settings["shapes"])
    batch, threads, device = settings["batch"], settings["threads"], settings["device"]
    begun_s = time.perf_counter()
    spec = BackendSpec(Path(settings["weights"]), device, 1, shapes=shapes)
    backend = CudaBackend(spec, max_batch=batch, depth=DEPTH)
    loaded_s = time.perf_counter() - begun_s
    handler = DeviceHandler(WorkerSettings(weights=settings["weights"], max_batch=batch, overlap=DEPTH))
    decoder, decode_reason = open_device_decoder(settings["decode"], device)
    handler.open(backend, Placement(0, device, None, threads), decoder)
    data = Path(settings["image"]).read_bytes()
    image = decode_image(data, ImageLimits())
    drawn = Letterbox.fit((image.shape[0], image.shape[1]), shapes[0]).draw(image)
    job = DetectionJob(Selection(backend.card.confidence or 0.25, backend.card.iou or 0.7))

    parts: dict[str, Callable[[], Callable[[], object]]] = {
        "device": lambda: backend.start([drawn] * batch),
        "bytes_to_boxes": lambda: handler.launch([job.payload(data)] * batch),
        "decode": lambda: handler.decode([job.payload(data)] * batch),
    }

    def run(seconds: float) -> dict[str, Any]:
        found: dict[str, Any] = {name: pipeline(begin, seconds / len(parts)) * batch for name, begin in parts.items()}
        one_ms = sorted(timed(lambda: handler.run([job.payload(data)])) for _ in range(20))[10]
        return found | {
            "one_image_ms": one_ms,
            "graph_ms": backend.costs_ms,
            "load_s": loaded_s,
            "precision": backend.precision,
            "reason": backend.precision_reason,
            "decoded_on": "CPU" if decoder is None else "GPU",
            "decode_reason": decode_reason,
        }

    obey(run)


def pipeline(begin: Callable[[], Callable[[], object]], seconds: float) -> float:
    """Batches a second, with as many on their way as a worker has."""
    begin()()  # warm
    waiting: deque[Callable[[], object]] = deque()
    count, begun_s = 0, time.perf_counter()
    while time.perf_counter() - begun_s < seconds or not count:
        while len(waiting) < DEPTH:
            waiting.append(begin())
        waiting.popleft()()
        count += 1
    for finish in waiting:
        finish()
    return (count + len(waiting)) / (time.perf_counter() - begun_s)


def timed(work: Callable[[], object]) -> float:
    """Milliseconds."""
    begun_s = time.perf_counter()
    work()
    return (time.perf_counter() - begun_s) * 1000


if __name__ == "__main__":
    main()
