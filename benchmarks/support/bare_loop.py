"""The backend without a server: an image file in memory to boxes, again and again, in this process alone.

The parent sets the caps on threads in the environment, as the server does for its workers. `library` as threads leaves
everything to OpenVINO: how many threads, and where.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

# The first folder on the path is this one.
from contestant import obey, repeat

__all__: list[str] = []


def main() -> None:
    """Read the settings from the only argument, load, obey."""
    settings = json.loads(sys.argv[1])
    if settings["cores"]:
        os.sched_setaffinity(0, settings["cores"])
    import cv2
    from sluiceway_detection.backends import BackendSpec, open_backend
    from sluiceway_detection.job import DetectionJob
    from sluiceway_detection.selection import DEFAULT_CONFIDENCE, DEFAULT_IOU, Selection
    from sluiceway_detection.worker.detector import ModelDetector
    from sluiceway_detection.worker.heap import settle_heap
    from sluiceway_runtime.images.decode import decode_image
    from sluiceway_runtime.images.limits import ImageLimits

    cv2.setNumThreads(settings["threads"])
    backend = open_backend(
        settings["backend"],
        BackendSpec(
            weights=Path(settings["weights"]),
            device="cpu",
            threads=settings["threads"],
            precision=settings["precision"],
            shapes=tuple((height, width) for height, width in settings["shapes"]),
        ),
    )
    detector, image, limits = ModelDetector(backend), Path(settings["image"]).read_bytes(), ImageLimits()
    job = DetectionJob(Selection(backend.card.confidence or DEFAULT_CONFIDENCE, backend.card.iou or DEFAULT_IOU))
    page = decode_image(image, limits)

    def bytes_to_boxes() -> None:
        found.append(len(detector.detect([decode_image(image, limits)], [job])[0]))

    def forward() -> None:
        backend.infer([letterboxed])

    found: list[int] = []
    bytes_to_boxes()
    settle_heap()
    if settings["forward_only"]:
        # The time that FACTS gives is that of the model alone, at its square input.
        letterboxed = cv2.resize(page, backend.inputs.shapes[0][::-1])
        forward()
    work = forward if settings["forward_only"] else bytes_to_boxes
    obey(lambda seconds: repeat(seconds, work) | {"regions": found[-1]})


if __name__ == "__main__":
    main()
