"""JPEG files decoded on a device, several at once: by nvJPEG on CUDA, with the chip's own engines if it has some.

On a CPU torchvision's other decoder does the same, for tests.
"""

from __future__ import annotations

import logging
import queue
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.io import ImageReadMode, decode_jpeg

from sluiceway_runtime.images.limits import ImageLimits
from sluiceway_runtime.images.plain_jpeg import PlainJpeg, plain_jpeg

__all__ = ["CHUNK_PIXELS", "JpegDecoder"]

log = logging.getLogger(__name__)

Pixels = NDArray[np.uint8]
# Decoded together: bounds what a thread takes of the device, 150 MB, and the blocks of pinned memory, which are kept.
# A full batch of pictures of a megapixel is one chunk; a picture that is larger than a chunk is the CPU's.
CHUNK_PIXELS = 2**24
# Mean difference to the CPU's decoder, of 255. The two differ in how they enlarge colours: by 0.45 in photographs, and
# by less in the smooth picture of the trial.
_MOST_DIFFERENCE = 3.0
_TRIAL_SIDE_PX = 128
# Axes of [C, H, W] to mirror for each EXIF orientation, once 5 to 8 are transposed.
_MIRRORED: dict[int, tuple[int, ...]] = {2: (2,), 3: (1, 2), 4: (1,), 6: (2,), 7: (1, 2), 8: (1,)}


class JpegDecoder:
    """Decodes on one device. Safe for several threads; more than `threads` wait for each other.

    Args:
        device: `cuda:0` and so on, or `cpu`.
        threads: each has a stream of its own, so that one copies while the other decodes.

    Raises:
        RuntimeError: it does not decode a trial picture as the CPU does, or not at all.
    """

    def __init__(self, device: str, threads: int = 1) -> None:
        self._device = torch.device(device)
        self._streams: queue.SimpleQueue[torch.cuda.Stream | None] = queue.SimpleQueue()
        for _ in range(threads):
            self._streams.put(torch.cuda.Stream(self._device) if self._device.type == "cuda" else None)
        self._failed = 0
        self._try()

    def decode(self, files: Sequence[PlainJpeg]) -> Iterator[Pixels | None]:
        """Decode files, as many together as `CHUNK_PIXELS` allows; those of one chunk are yielded when it is done.

        Yields:
            For each in order uint8 [H, W, 3] BGR, contiguous, upright, in pinned memory where the device is not the
            CPU; or None for one that the CPU has to read: it is too large, or its chunk failed.
        """
        for chunk in _chunks(files):
            yield from self._decode(chunk)

    def _decode(self, chunk: Sequence[PlainJpeg]) -> list[Pixels | None]:
        if chunk[0].header.width_px * chunk[0].header.height_px > CHUNK_PIXELS:
            return [None]
        stream = self._streams.get()
        try:
            return self._on_stream(chunk, stream)
        except Exception as error:  # of one file, of memory, or of the device; whose it is, the CPU finds out
            self._failed += 1
            # Often, if something is wrong with the device; a file may be broken now and then.
            if self._failed & (self._failed - 1) == 0:
                reason = str(error).partition("\n")[0]
                log.warning("%s failed to decode %d times, the CPU did: %s", self._device, self._failed, reason)
            return [None] * len(chunk)
        finally:
            self._streams.put(stream)

    def _on_stream(self, chunk: Sequence[PlainJpeg], stream: torch.cuda.Stream | None) -> list[Pixels | None]:
        context: AbstractContextManager[object] = nullcontext() if stream is None else torch.cuda.stream(stream)
        with context:
            files = [torch.from_numpy(np.frombuffer(jpeg.data, np.uint8).copy()) for jpeg in chunk]
            decoded = decode_jpeg(files, mode=ImageReadMode.RGB, device=self._device)
            hosts = [self._to_host(jpeg, rgb) for jpeg, rgb in zip(chunk, decoded, strict=True)]
            if stream is not None:
                # Waited for before any memory on the device is free again: nvJPEG writes on a stream of its own, which
                # knows nothing of copies on this one. Blocking: the thread sleeps instead of keeping a core busy.
                done = torch.cuda.Event(blocking=True)
                done.record(stream)
                done.synchronize()
        return [None if host is None else host.numpy() for host in hosts]

    def _to_host(self, jpeg: PlainJpeg, rgb: torch.Tensor) -> torch.Tensor | None:
        """Turn, and begin to copy, uint8 [3, H, W] to [H, W, 3]; None if it is not of the size that its header says."""
        header = jpeg.header
        if rgb.shape != (3, header.height_px, header.width_px):
            return None
        if jpeg.grey:  # whatever a decoder leaves in the other two
            rgb = rgb[:1].expand_as(rgb)
        if header.orientation >= 5:
            rgb = rgb.transpose(1, 2)
        bgr = rgb.flip((0, *_MIRRORED.get(header.orientation, ()))).permute(1, 2, 0).contiguous()
        host = torch.empty(bgr.shape, dtype=torch.uint8, pin_memory=self._device.type == "cuda")
        return host.copy_(bgr, non_blocking=True)

    def _try(self) -> None:
        """Hold it against the CPU's decoder."""
        ramp = np.linspace(0, 255, _TRIAL_SIDE_PX, dtype=np.uint8)
        picture = np.stack(np.broadcast_arrays(ramp[:, None], ramp[None], ramp[::-1, None]), axis=2)
        encoded = cv2.imencode(".jpg", picture)[1]
        jpeg = plain_jpeg(encoded.tobytes(), ImageLimits())
        assert jpeg is not None
        stream = self._streams.get()
        (found,) = self._on_stream([jpeg], stream)
        self._streams.put(stream)
        expected = np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR), np.int16)
        if found is None or np.abs(expected - found).mean() > _MOST_DIFFERENCE:
            raise RuntimeError(f"{self._device} decodes a JPEG to other pixels than the CPU")


def _chunks(files: Sequence[PlainJpeg]) -> Iterator[list[PlainJpeg]]:
    """Neighbours of no more than `CHUNK_PIXELS` together; a larger one is alone."""
    chunk: list[PlainJpeg] = []
    pixels = 0
    for jpeg in files:
        own = jpeg.header.width_px * jpeg.header.height_px
        if chunk and pixels + own > CHUNK_PIXELS:
            yield chunk
            chunk, pixels = [], 0
        chunk.append(jpeg)
        pixels += own
    if chunk:
        yield chunk
