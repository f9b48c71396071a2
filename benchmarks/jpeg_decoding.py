"""Decoding JPEG files on a GPU beside the threads of a CPU, and how far their pixels differ.

    make bench-jpeg                   # a machine with CUDA: half a minute
    python benchmarks/jpeg_decoding.py --device cpu --seconds 0.3     # for trying this program out

Beside the picture as it is, files of several kinds are made of it. Each is decoded by `JpegDecoder` as in a worker,
from the bytes to BGR in the host's memory, in lists of several lengths and with one thread and two; then by OpenCV with
one thread and with as many as the CPU has. Wall time, and CPU time of the process, milliseconds an image.

Exits 2 at once where there is no CUDA. Needs torch and torchvision.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image
from sluiceway_runtime import weights
from sluiceway_runtime.cores import read_cpu_facts
from sluiceway_runtime.devices import find_cuda
from sluiceway_runtime.images.decode import decode_image
from sluiceway_runtime.images.limits import ImageLimits
from sluiceway_runtime.images.plain_jpeg import plain_jpeg

SAMPLE = "bus.jpg"
LENGTHS = (1, 4, 16)
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "baseline": ("RGB", {}),
    "4:4:4": ("RGB", {"subsampling": 0}),
    "progressive": ("RGB", {"progressive": True}),
    "grey": ("L", {}),
}


def main() -> int:
    """Measure, print and write; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", type=Path, help=f"a plain JPEG file; by default the sample {SAMPLE}")
    parser.add_argument("--device", default="cuda:0", help="cuda:N, or cpu")
    parser.add_argument("--seconds", type=float, default=1.0, help="of each measurement")
    parser.add_argument("--json", type=Path, default=Path("out/bench-jpeg.json"))
    options = parser.parse_args()
    if options.device != "cpu" and not (cuda := find_cuda()).devices:
        print(f"device {options.device}: {cuda.missing}", file=sys.stderr)
        return 2
    path = options.image or weights.pull_samples([SAMPLE])[SAMPLE]
    files = {path.name: path.read_bytes(), **{kind: made(Image.open(path), kind) for kind in KINDS}}
    found = {name: measured(data, options.device, options.seconds) for name, data in files.items()}
    for kind, figures in found.items():
        pixels = figures["difference"]
        print(f"\n{kind}: {figures['bytes']} bytes; difference of pixels: {pixels}")
        print(f"{'':<28}{'ms an image':>12}{'CPU ms':>10}{'images/s':>10}")
        for name, figure in figures["runs"].items():
            print(f"{name:<28}{figure['wall_ms']:>12.2f}{figure['cpu_ms']:>10.2f}{1000 / figure['wall_ms']:>10.0f}")
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0


def made(picture: Image.Image, kind: str) -> bytes:
    """A file of a kind."""
    mode, how = KINDS[kind]
    file = io.BytesIO()
    picture.convert(mode).save(file, "jpeg", quality=90, **how)
    return file.getvalue()


def measured(data: bytes, device: str, seconds: float) -> dict[str, Any]:
    """Everything about one file."""
    from sluiceway_runtime.gpu.jpeg import JpegDecoder

    decoder, jpeg = JpegDecoder(device, threads=2), plain_jpeg(data, ImageLimits())
    assert jpeg is not None
    runs = {}
    for threads in (1, 2):
        for length in LENGTHS:
            work = partial(_together, decoder, [jpeg] * length)
            runs[f"{device}, {threads} x {length} together"] = timed(work, threads, seconds, length)
    cv2.setNumThreads(1)
    for threads in sorted({1, len(read_cpu_facts().allowed)}):
        runs[f"OpenCV, {threads} threads"] = timed(partial(decode_image, data, ImageLimits()), threads, seconds, 1)
    (found,) = decoder.decode([jpeg])
    assert found is not None, "the device left it to the CPU"
    difference = np.abs(found.astype(np.int16) - decode_image(data, ImageLimits()))
    facts = {
        "mean": float(difference.mean()),
        "p99": float(np.percentile(difference, 99)),
        "max": int(difference.max()),
    }
    return {"bytes": len(data), "difference": facts, "runs": runs}


def _together(decoder: Any, files: list[Any]) -> None:
    assert all(pixels is not None for pixels in decoder.decode(files)), "the device left some to the CPU"


def timed(work: Callable[[], object], threads: int, seconds: float, images: int) -> dict[str, float]:
    """Milliseconds an image, with all threads at it."""
    work()
    ends_s = time.perf_counter() + seconds

    def repeat(_: int) -> int:
        count = 0
        while time.perf_counter() < ends_s:
            work()
            count += images
        return count

    begun_s, begun_cpu_s = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(threads) as pool:
        count = sum(pool.map(repeat, range(threads)))
    wall_s, cpu_s = time.perf_counter() - begun_s, time.process_time() - begun_cpu_s
    return {"wall_ms": wall_s * 1000 / count, "cpu_ms": cpu_s * 1000 / count}


if __name__ == "__main__":
    sys.exit(main())
