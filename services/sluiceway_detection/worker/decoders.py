"""From files to pixels in a worker on a GPU: on that itself, or in threads of the CPU."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, Protocol, TypeVar

from sluiceway_runtime.documents.limits import DocumentLimits
from sluiceway_runtime.documents.pages import DocumentPage
from sluiceway_runtime.errors import SluicewayError, StartupError
from sluiceway_runtime.images.decode import DecodedImage
from sluiceway_runtime.images.limits import ImageLimits
from sluiceway_runtime.images.plain_jpeg import PlainJpeg, plain_jpeg
from sluiceway_runtime.pool.payload import Payload

from sluiceway_detection.job import DetectionJob
from sluiceway_detection.types import ImageBgr
from sluiceway_detection.worker.pixels import image_of

__all__ = ["Decoders", "DeviceDecoder", "open_device_decoder"]

log = logging.getLogger(__name__)

Result = TypeVar("Result")
# With two, an H200 decodes half as much again as with one: one copies while the other decodes.
_DEVICE_THREADS = 2


class DeviceDecoder(Protocol):
    """What is used of `JpegDecoder`."""

    def decode(self, files: Sequence[PlainJpeg]) -> Iterable[ImageBgr | None]:
        """Yields the pixels of each file, in order, or None for one that the CPU has to read."""
        ...


def open_device_decoder(wanted: str, device: str) -> tuple[DeviceDecoder | None, str]:
    """What decodes on a device: as configured, or if it works there.

    Args:
        wanted: `auto`, `cpu` or `gpu`.
        device: that detection computes on.

    Returns:
        None where the CPU is to decode, and why.

    Raises:
        StartupError: `gpu` is wanted, and does not work.
    """
    if wanted == "cpu":
        return None, "configured"
    try:
        from sluiceway_runtime.gpu.jpeg import JpegDecoder  # noqa: PLC0415 - imports torch, which a front must not

        decoder = JpegDecoder(device, _DEVICE_THREADS)
    except Exception as error:  # whatever libraries raise that are not there, or do not fit each other
        reason = f"{device} decodes no JPEG: {type(error).__name__}: {str(error).partition(chr(10))[0]}"
        if wanted == "gpu":
            raise StartupError(f"detection.decode: {reason}; use auto or cpu") from error
        log.warning("%s, so the CPU decodes", reason)
        return None, reason
    return decoder, "configured" if wanted == "gpu" else "by default, tried with a small picture"


class Decoders(Generic[Result]):
    """The threads that decode, and go on with what is decoded.

    A device decodes several files at once for a fraction of what they cost one by one, so one thread hands it those of
    a batch together. What it does not take goes through the CPU's decoder, whose word on a file counts.

    Args:
        threads: of the CPU.
        prepare: goes on with the pixels of an item, given its job and the milliseconds that decoding took.
        limits: of a file.
        documents: of one that has pages.
        device: None leaves all to the CPU.
    """

    def __init__(
        self,
        threads: int,
        prepare: Callable[[DetectionJob, DocumentPage, float], Result],
        *,
        limits: ImageLimits,
        documents: DocumentLimits,
        device: DeviceDecoder | None = None,
    ) -> None:
        self._prepare = prepare
        self._limits = limits
        self._documents = documents
        self._device = device
        self._threads = ThreadPoolExecutor(threads, "decode")
        self._device_threads = ThreadPoolExecutor(_DEVICE_THREADS, "device-decode")

    def begin(self, batch: Sequence[Payload]) -> Future[list[Future[Result | SluicewayError]]]:
        """Begin to decode the files of a batch.

        Returns:
            When all are with the threads, for each what `prepare` returned or what is wrong with the file.
        """
        if self._device is not None:
            return self._device_threads.submit(self._together, self._device, batch)
        begun: Future[list[Future[Result | SluicewayError]]] = Future()
        begun.set_result([self._threads.submit(self._read, item) for item in batch])
        return begun

    def close(self) -> None:
        """Finish what was begun, and end the threads."""
        self._device_threads.shutdown()
        self._threads.shutdown()

    def _together(self, device: DeviceDecoder, batch: Sequence[Payload]) -> list[Future[Result | SluicewayError]]:
        """Decode on the device what it can, in a thread for that."""
        begun_s = time.perf_counter()
        plain = {row: jpeg for row, item in enumerate(batch) if (jpeg := self._plain(item)) is not None}
        # The others do not wait for the device.
        begun: dict[int, Future[Result | SluicewayError]]
        begun = {row: self._threads.submit(self._read, item) for row, item in enumerate(batch) if row not in plain}
        for row, pixels in zip(plain, device.decode(list(plain.values())), strict=True):
            item, spent_ms = batch[row], _since_ms(begun_s)
            if pixels is None:
                begun[row] = self._threads.submit(self._read, item, spent_ms)
            else:
                page = DocumentPage(DecodedImage(pixels), 0)
                begun[row] = self._threads.submit(self._prepare, item.meta, page, spent_ms)
        return [begun[row] for row in range(len(batch))]

    def _plain(self, item: Payload) -> PlainJpeg | None:
        job: DetectionJob = item.meta
        if job.raw is not None or job.page is not None:
            return None
        return plain_jpeg(memoryview(item.buffers[0]), self._limits)

    def _read(self, item: Payload, spent_ms: float = 0.0) -> Result | SluicewayError:
        """Decode one item and go on with it, in a thread of the CPU."""
        begun_s = time.perf_counter()
        try:
            page = image_of(item, self._limits, self._documents)
        except SluicewayError as error:
            return error
        return self._prepare(item.meta, page, spent_ms + _since_ms(begun_s))


def _since_ms(begun_s: float) -> float:
    return (time.perf_counter() - begun_s) * 1000
