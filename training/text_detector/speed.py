"""Detectors timed in turns on one core: letterboxed picture in, boxes out.

python -m training.text_detector.speed --detector text-nano.onnx --detector text-small.onnx --image page.png
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import numpy as np
from PIL import Image

from .inference import Detector, letterbox, suppress


def main() -> None:
    """Print medians in milliseconds: network, suppression, both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--detector", type=Path, required=True, action="append")
    parser.add_argument("--image", type=Path, required=True)
    parser.add_argument("--runs", type=int, default=40)
    parser.add_argument("--precision", default="bf16", choices=("f32", "bf16"))
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    image = np.asarray(Image.open(arguments.image).convert("RGB"))
    detectors = [(path.stem, Detector(path, arguments.precision)) for path in arguments.detector]
    blobs = {name: letterbox(image, *detector.size)[0] for name, detector in detectors}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name, _ in detectors}
    found: dict[str, int] = {}
    for _ in range(arguments.runs + 3):
        for name, detector in detectors:  # in turns, so that a busy machine slows all alike
            began = time.perf_counter()
            raw = detector.raw(blobs[name])
            middle = time.perf_counter()
            found[name] = len(suppress(raw, detector.confidence, detector.iou))
            times[name].append((middle - began, time.perf_counter() - middle))
    medians = {name: np.median(np.array(rows[3:]) * 1e3, axis=0) for name, rows in times.items()}
    totals = {name: float(np.median(np.array(rows[3:]).sum(1) * 1e3)) for name, rows in times.items()}
    for name, (network, suppression) in medians.items():
        print(
            f"{name}: network {network:.1f} ms, suppression {suppression:.2f} ms, "
            f"both {totals[name]:.1f} ms, {found[name]} boxes"
        )
    names = list(totals)
    if len(names) == 2:
        print(f"{names[0]} / {names[1]} = {totals[names[0]] / totals[names[1]]:.3f}")


if __name__ == "__main__":
    main()
