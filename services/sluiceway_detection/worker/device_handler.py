"""What runs in a worker on a GPU: files are decoded while the device computes earlier batches.

A GPU takes in a thousand images a second and more, a core decodes a few hundred. So a batch passes three stages, and
several batches are on their way at once: decoding (by the device as well, or threads of OpenCV's own speed, which let
Python go on), the device, and selecting boxes and cutting crops. One thread, the worker's, hands batches from one stage
to the next.
"""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Protocol

import cv2
from sluiceway_runtime.cores.placement import Placement
from sluiceway_runtime.documents.pages import DocumentPage
from sluiceway_runtime.errors import SluicewayError
from sluiceway_runtime.images.limits import ImageLimits
from sluiceway_runtime.pool.handler import Finish
from sluiceway_runtime.pool.payload import Payload
from sluiceway_runtime.ready_graphs import graphs

from sluiceway_detection.backends.base import require_trust
from sluiceway_detection.crops import cut_crops
from sluiceway_detection.inputs.shapes import Inputs, InputShape
from sluiceway_detection.job import DetectionAnswer, DetectionJob
from sluiceway_detection.models.card import ModelCard
from sluiceway_detection.selection import DEFAULT_CONFIDENCE, DEFAULT_IOU, Output
from sluiceway_detection.types import Detections, ImageBgr
from sluiceway_detection.worker.decoders import Decoders, DeviceDecoder, open_device_decoder
from sluiceway_detection.worker.handler import DetectionFacts, WorkerSettings, silence_opencv
from sluiceway_detection.worker.heap import settle_heap
from sluiceway_detection.worker.looks import Look, knows_scales, looks_of, usual_scale

__all__ = ["FACTORY", "DeviceBackend", "DeviceHandler", "build"]

FACTORY = "sluiceway_detection.worker.device_handler:build"
# Of a worker's threads, the part that selects boxes and cuts crops. Decoding a photograph costs several times as much.
_FINISHING_SHARE = 4

Places = Output
# What needs no device: a page that says itself what stands in it, or an image that cannot be read.
Settled = Payload | SluicewayError


class DeviceBackend(Protocol):
    """What is used of `CudaBackend`."""

    name: Any
    precision: Any
    precision_reason: str
    card: ModelCard
    inputs: Inputs

    def start(self, images_bgr: Sequence[ImageBgr]) -> Callable[[], list[Places]]:
        """Begin letterboxed images of one shape; returns what waits for their places."""
        ...


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A decoded image, and what the model is to be shown of it next."""

    job: DetectionJob
    page: DocumentPage
    look: Look
    inputs_bgr: list[ImageBgr]
    decode_ms: float

    @property
    def image_bgr(self) -> ImageBgr:
        """Its pixels."""
        return self.page.image.pixels


_Waiting = list[tuple[list[int], Callable[[], list[Places]]]]
"""Positions within a batch, and what waits for the places of all their inputs, one after the other."""


class _Batch:
    """A batch on its way. It is begun when its files are with the decoders, and sent when it is with the device."""

    def __init__(self, begun: Future[list[Future[_Prepared | Settled]]]) -> None:
        self._begun = begun
        self.sent = False
        self.fault: Exception | None = None
        self.waiting: _Waiting = []

    @property
    def images(self) -> Sequence[Future[_Prepared | Settled]]:
        """In order; waits until all of them are with the decoders."""
        return self._begun.result()

    @property
    def decoded(self) -> bool:
        """Whether it can be sent without waiting."""
        if not self._begun.done():
            return False
        return self._begun.exception() is not None or all(image.done() for image in self.images)


class DeviceHandler:
    """Implements `sluiceway_runtime.pool.handler.OverlappingHandler`."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        self._limits = ImageLimits(settings.max_image_bytes, settings.max_image_pixels)
        self._backend: DeviceBackend
        self._decoders: Decoders[_Prepared | Settled]
        self._finishers: ThreadPoolExecutor
        self._begun: deque[_Batch] = deque()

    def setup(self, placement: Placement) -> Mapping[str, Any]:
        """Load the model, and have its graphs compiled, captured and checked against f32.

        Raises:
            StartupError: see `CudaBackend` and `open_device_decoder`.
        """
        # Before torch is imported, which takes long: what is not allowed is refused at once.
        spec = self._settings.backend_spec(placement.device, 1)
        require_trust(spec.weights, allowed=spec.allow_checkpoint)
        from sluiceway_detection.backends.cuda import CudaBackend  # noqa: PLC0415 - torch is imported only here

        backend = CudaBackend(
            spec,
            max_batch=self._settings.max_batch,
            depth=self._settings.overlap,
            workers_on_device=self._settings.workers_on_device,
        )
        # Behind the graphs: nothing else may use the device while they are captured.
        decoder, reason = open_device_decoder(self._settings.decode, placement.device)
        facts = replace(self.open(backend, placement, decoder), decode_reason=reason)
        return {"detection": facts, "thread_use": None, "graphs": graphs()}

    def open(
        self, backend: DeviceBackend, placement: Placement, decoder: DeviceDecoder | None = None
    ) -> DetectionFacts:
        """Start the threads around a backend that is ready; without a decoder the CPU decodes."""
        # Each image has one thread; OpenCV's own would multiply them.
        cv2.setNumThreads(1)
        # What is wrong with an image goes to whoever sent it; the log neither needs nor may have it.
        silence_opencv()
        self._backend = backend
        self._look = looks_of(backend.card, backend.inputs, places=True)
        self._finishing = max(1, placement.threads // _FINISHING_SHARE)
        self._finishers = ThreadPoolExecutor(self._finishing, "finish")
        self._decoders = Decoders(
            max(1, placement.threads - self._finishing),
            self._prepare,
            limits=self._limits,
            documents=self._settings.documents,
            device=decoder,
        )
        settle_heap()
        return DetectionFacts(
            backend.name,
            backend.precision,
            placement.device,
            backend.card.classes,
            backend.inputs.sizes,
            backend.inputs.shapes,
            backend.card.confidence or DEFAULT_CONFIDENCE,
            backend.card.iou or DEFAULT_IOU,
            precision_reason=backend.precision_reason,
            enlarges=backend.inputs.enlarges,
            scales=knows_scales(backend.card),
            scale=usual_scale(backend.card),
            decode="cpu" if decoder is None else "gpu",
        )

    def run(self, batch: Sequence[Payload]) -> Sequence[Payload | SluicewayError]:
        """Compute one batch; see `DetectionHandler.run`."""
        return self.launch(batch)()

    def launch(self, batch: Sequence[Payload]) -> Finish:
        """Have the files of a batch decoded, and send it to the device as soon as they are.

        Args:
            batch: each with a `DetectionJob` and one buffer, the image file or its pixels.
        """
        begun = _Batch(self._decoders.begin(batch))
        self._begun.append(begun)
        self._send_decoded()
        return lambda: self._finish(begun)

    def decode(self, batch: Sequence[Payload]) -> Callable[[], list[_Prepared | Settled]]:
        """The first stage alone: decode and letterbox the files of a batch; returns what waits for them."""
        begun = _Batch(self._decoders.begin(batch))
        return lambda: [image.result() for image in begun.images]

    def close(self) -> None:
        """End the threads."""
        self._decoders.close()
        self._finishers.shutdown()

    def _finish(self, batch: _Batch) -> list[Payload | SluicewayError]:
        """Wait for a batch, sending those after it to the device meanwhile, so that it never waits for the host."""
        while not batch.sent:
            self._send(self._begun.popleft())
        self._send_decoded()
        if batch.fault is not None:
            raise batch.fault
        images = [image.result() for image in batch.images]
        answers: list[Settled | None] = [None if isinstance(image, _Prepared) else image for image in images]
        waiting = batch.waiting
        while waiting:
            parts: list[tuple[list[int], Future[list[Settled | _Prepared]]]] = []
            for rows, wait in waiting:
                places = iter(wait())
                # The device has room for one more.
                self._send_decoded()
                # A part for each thread: handing over one image by one takes Python's lock more often than the work
                # does.
                share = math.ceil(len(rows) / self._finishing)
                for first in range(0, len(rows), share):
                    part = rows[first : first + share]
                    shown = [image for row in part if isinstance(image := images[row], _Prepared)]
                    found = [[next(places) for _ in image.inputs_bgr] for image in shown]
                    parts.append((part, self._finishers.submit(self._answers, shown, found)))
            again: dict[int, _Prepared] = {}
            for part, answered in parts:
                for row, answer in zip(part, answered.result(), strict=True):
                    if isinstance(answer, _Prepared):
                        images[row] = again[row] = answer
                    else:
                        answers[row] = answer
            waiting = self._start(again)
        return [answer for answer in answers if answer is not None]

    def _send_decoded(self) -> None:
        while self._begun and self._begun[0].decoded:
            self._send(self._begun.popleft())

    def _send(self, batch: _Batch) -> None:
        """Hand a batch to the device, in the order in which batches began; its files are waited for."""
        batch.sent = True
        try:
            images = ((row, image.result()) for row, image in enumerate(batch.images))
            batch.waiting = self._start({row: image for row, image in images if isinstance(image, _Prepared)})
        except Exception as error:
            batch.fault = error

    def _start(self, images: Mapping[int, _Prepared]) -> _Waiting:
        """Hand the inputs of images to the device, those of one shape together; all of one image are of one shape."""
        rows: dict[InputShape, list[int]] = defaultdict(list)
        inputs: dict[InputShape, list[ImageBgr]] = defaultdict(list)
        for row, image in images.items():
            height, width = image.inputs_bgr[0].shape[:2]
            rows[height, width].append(row)
            inputs[height, width] += image.inputs_bgr
        return [(rows[shape], self._backend.start(inputs[shape])) for shape in rows]

    def _prepare(self, job: DetectionJob, page: DocumentPage, decode_ms: float) -> _Prepared | Settled:
        """Draw what the model is shown first of an image, in a thread of the decoders."""
        if page.lines:
            return DetectionAnswer.of_text(page, decode_ms)
        look = self._look(page.image.pixels, job)
        return _Prepared(job, page, look, next(look), decode_ms)

    def _answers(self, images: Sequence[_Prepared], places: Sequence[Sequence[Places]]) -> list[Settled | _Prepared]:
        """Answer some images of a batch, in a thread of the finishers."""
        return [self._answer(image, its) for image, its in zip(images, places, strict=True)]

    def _answer(self, prepared: _Prepared, places: Sequence[Places]) -> Settled | _Prepared:
        """Select the boxes of one image and cut its crops; or say what the model has to be shown of it first."""
        try:
            return replace(prepared, inputs_bgr=prepared.look.send(places))
        except StopIteration as ended:
            found: Detections = ended.value
        try:
            crops = cut_crops(prepared.image_bgr, found, prepared.job.crops, self._settings.max_crop_bytes)
        except SluicewayError as error:
            return error
        return DetectionAnswer.payload(prepared.page, found, crops, prepared.decode_ms)


def build(config: Mapping[str, Any]) -> DeviceHandler:
    """Make a handler from `WorkerSettings.mapping()`."""
    return DeviceHandler(WorkerSettings(**config))
