"""A pool of pictures in the GPU's memory, filled by processes while training draws from it."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import queue
import random
import threading
from collections.abc import Iterator
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image

from .degradation import camera, light
from .synthesis import SIDE_PX, Synthesiser


class RealViews:
    """Random views of real pictures: whole, cropped at any scale, or four together."""

    def __init__(self, folder: Path) -> None:
        """Open `real/` of a corpus; the pictures are decoded on first use and kept."""
        self._paths = sorted(folder.glob("*.webp"))
        self._decoded: dict[Path, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self._paths)

    def _image(self, rng: random.Random) -> np.ndarray:
        path = rng.choice(self._paths)
        if path not in self._decoded:
            with Image.open(path) as image:
                self._decoded[path] = np.asarray(image.convert("RGB"))
        return self._decoded[path]

    def _view(self, rng: random.Random, width: int, height: int) -> np.ndarray:
        image = self._image(rng)
        fit = min(width / image.shape[1], height / image.shape[0])
        kind = rng.random()
        scale = (
            fit * rng.uniform(0.95, 1.0)
            if kind < 0.5
            else fit * rng.uniform(0.5, 1.0)
            if kind < 0.65
            else fit * np.exp(rng.uniform(0, 1.4))
        )
        scale = min(scale, 2.5)
        squeeze = rng.choice((1.0, 1.0, rng.uniform(0.85, 1.18)))
        size = (max(8, int(image.shape[1] * scale * squeeze)), max(8, int(image.shape[0] * scale)))
        # Serving shrinks with bilinear sampling; area sampling stands for pictures that were small already.
        method = cv2.INTER_LINEAR if rng.random() < 0.6 else cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        image = cv2.resize(image, size, interpolation=method)
        out = np.full((height, width, 3), rng.choice((114, 114, 114, 255, 0, rng.randint(0, 255))), np.uint8)
        x, y = rng.randint(0, abs(width - size[0])), rng.randint(0, abs(height - size[1]))
        source_x, target_x = (x, 0) if size[0] > width else (0, x)
        source_y, target_y = (y, 0) if size[1] > height else (0, y)
        part = image[source_y : source_y + height, source_x : source_x + width]
        out[target_y : target_y + part.shape[0], target_x : target_x + part.shape[1]] = part
        return out

    def view(self, seed: int) -> np.ndarray:
        """The view of a seed: uint8 [SIDE_PX, SIDE_PX, 3], RGB."""
        rng = random.Random(seed)
        if rng.random() < 0.12:
            half = SIDE_PX // 2
            rows = [np.concatenate([self._view(rng, half, half) for _ in range(2)], 1) for _ in range(2)]
            image = np.concatenate(rows, 0)
        else:
            image = self._view(rng, SIDE_PX, SIDE_PX)
        if rng.random() < 0.08:
            image = light(rng, image)
        return camera(rng, image) if rng.random() < 0.45 else image


_SLOTS = 96  # pictures on their way from the processes to the device; 0.2 GB of shared memory

_drawer: Synthesiser
_views: RealViews
_real_share: float
_shared: SharedMemory
_slots: np.ndarray


def _map(shared: SharedMemory) -> np.ndarray:
    return np.ndarray((_SLOTS, SIDE_PX, SIDE_PX, 3), np.uint8, shared.buf)


def _open_corpus(corpus: Path, real_share: float, shared_name: str = "") -> None:
    # One corpus a process: decoded pictures are kept between calls.
    global _drawer, _views, _real_share, _shared, _slots  # noqa: PLW0603
    cv2.setNumThreads(1)
    os.nice(5)  # the process that feeds the GPU goes first
    _drawer, _views, _real_share = Synthesiser(corpus), RealViews(corpus / "real"), real_share
    if shared_name:
        _shared = SharedMemory(shared_name)
        _slots = _map(_shared)


def draw(seed: int) -> np.ndarray:
    """The picture of a seed, real or synthetic by a coin: uint8 [SIDE_PX, SIDE_PX, 3]."""
    if len(_views) and random.Random(seed ^ 0x5EED).random() < _real_share:
        return _views.view(seed)
    return _drawer.sample(seed).image_rgb


def _draw_into(task: tuple[int, int]) -> int:
    """Draw a seed into a slot; only the slot's number travels back."""
    seed, slot = task
    _slots[slot] = draw(seed)
    return slot


class Pool:
    """A ring of pictures on a device: processes draw into shared slots, a thread copies full slots, `batch` draws.

    The thread has a stream of its own, so that its copies, which wait for their stream, overlap training.
    A picture may be read while it is being replaced; a view that mixes two pictures is as good a sample as any.
    """

    def __init__(
        self, corpus: Path, capacity: int, device: torch.device, *, seed: int, processes: int, real_share: float
    ) -> None:
        """Start the processes; `close` stops them and frees the shared memory."""
        self._ring = torch.empty((capacity, SIDE_PX, SIDE_PX, 3), dtype=torch.uint8, device=device)
        self._shared = SharedMemory(create=True, size=_SLOTS * SIDE_PX * SIDE_PX * 3)
        self._slots = torch.from_numpy(_map(self._shared))
        self._free: queue.Queue[int] = queue.Queue()
        for slot in range(_SLOTS):
            self._free.put(slot)
        self.filled = 0
        self.fault: Exception | None = None
        self._seed = seed
        self._stop = threading.Event()
        context = multiprocessing.get_context("spawn")  # a fork would copy the CUDA context
        self._processes = context.Pool(processes, _open_corpus, (corpus, real_share, self._shared.name))
        self._thread = threading.Thread(target=self._take, daemon=True)
        self._thread.start()

    def _tasks(self) -> Iterator[tuple[int, int]]:
        seed = self._seed
        while not self._stop.is_set():
            try:
                slot = self._free.get(timeout=0.2)  # imap reads ahead without a bound: the slots are the bound
            except queue.Empty:
                continue
            yield seed, slot
            seed += 1

    def _take(self) -> None:
        stream = torch.cuda.Stream() if self._ring.is_cuda else None
        try:
            with torch.cuda.stream(stream) if stream else contextlib.nullcontext():
                for slot in self._processes.imap_unordered(_draw_into, self._tasks()):
                    self._ring[self.filled % len(self._ring)].copy_(self._slots[slot])
                    if stream:
                        stream.synchronize()
                    self.filled += 1
                    self._free.put(slot)
        except Exception as error:  # shown by the next `batch`
            if not self._stop.is_set():
                self.fault = error

    def batch(self, count: int, generator: torch.Generator) -> torch.Tensor:
        """`count` pictures at random: uint8 [count, SIDE_PX, SIDE_PX, 3] on the device.

        Raises:
            RuntimeError: drawing or copying failed; no more pictures will come.
        """
        if self.fault:
            raise RuntimeError("the pool of pictures has stopped") from self.fault
        most = min(self.filled, len(self._ring))
        index = torch.randint(most, (count,), generator=generator, device=self._ring.device)
        return self._ring[index]

    def close(self) -> None:
        """Stop the processes and free the shared memory."""
        self._stop.set()
        self._processes.terminate()
        self._processes.join()
        self._thread.join(timeout=5)
        del self._slots
        self._shared.unlink()
