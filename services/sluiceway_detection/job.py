"""What travels between the front of the detection server and its workers.

Named tuples, as those are pickled with each item in a third of the time that frozen dataclasses take.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from sluiceway_runtime.documents.pages import DocumentPage
from sluiceway_runtime.images.scale import Scale
from sluiceway_runtime.pool.payload import Buffer, Payload

from sluiceway_detection.crops import Crop, CropPlan, PixelFormat, Transform
from sluiceway_detection.selection import Selection
from sluiceway_detection.types import Detections, Shape

__all__ = ["CropFacts", "DetectionAnswer", "DetectionJob", "RawPixels"]


class RawPixels(NamedTuple):
    """Of an image that comes as pixels and not as a file; they were found to be height x width x channels bytes."""

    height_px: int
    width_px: int
    pixel_format: PixelFormat


class DetectionJob(NamedTuple):
    """How to detect in one image. The image itself, a file or its pixels, is the payload's only buffer.

    Attributes:
        selection: thresholds and classes.
        image_size_px: longer side of the input; None takes the default.
        crops: what to cut.
        raw: where the image is pixels; None for a file.
        scale: how large the image is shown.
        page: number of the page, where the file is a document; None for an image.
        prefers_text: of a page that holds text, take that.
    """

    selection: Selection
    image_size_px: int | None = None
    crops: tuple[CropPlan, ...] = ()
    raw: RawPixels | None = None
    scale: Scale = "fast"
    page: int | None = None
    prefers_text: bool = False

    def payload(self, image: Buffer) -> Payload:
        """This job for one image."""
        return Payload(self, (image,))


class CropFacts(NamedTuple):
    """One crop of an answer; its pixels are the buffer of the same position."""

    detection: int
    plan: int
    height_px: int
    width_px: int
    to_image: Transform | None = None
    turned: bool = False


class DetectionAnswer(NamedTuple):
    """What was found, without the pixels.

    Arrays travel as bytes: float32 boxes [N, 4], int32 classes [N] and float32 confidences [N]; float32 keypoints
    [N, K, 3], where the model has some. `scale`, `left_out` and
    `too_small` are those of `Detections`, `notices` those of `DecodedImage`, and `page_count` is that of
    `DocumentPage`. `texts` are those of the regions, where a page was not looked at but said itself what stands in it.
    """

    width_px: int
    height_px: int
    boxes_xyxy_px: bytes
    class_ids: bytes
    confidences: bytes
    shapes: tuple[tuple[int, Shape], ...]
    crops: tuple[CropFacts, ...]
    decode_ms: float
    scale: float = 1.0
    left_out: bool = False
    too_small: bool = False
    notices: tuple[str, ...] = ()
    page_count: int = 0
    texts: tuple[str, ...] = ()
    keypoints: bytes = b""

    @staticmethod
    def of_text(page: DocumentPage, decode_ms: float) -> Payload:
        """The answer for a page that says itself what stands in it."""
        height, width = page.image.pixels.shape[:2]
        count = len(page.lines)
        return Payload(
            DetectionAnswer(
                width_px=width,
                height_px=height,
                boxes_xyxy_px=np.array([line.box_xyxy_px for line in page.lines], np.float32).tobytes(),
                class_ids=np.zeros(count, np.int32).tobytes(),
                confidences=np.ones(count, np.float32).tobytes(),
                shapes=(),
                crops=(),
                decode_ms=decode_ms,
                page_count=page.page_count,
                texts=tuple(line.text for line in page.lines),
            )
        )

    @staticmethod
    def payload(page: DocumentPage, detections: Detections, crops: list[Crop], decode_ms: float) -> Payload:
        """The answer for one image; buffers are the crops' pixels."""
        image_bgr = page.image.pixels
        answer = DetectionAnswer(
            width_px=image_bgr.shape[1],
            height_px=image_bgr.shape[0],
            boxes_xyxy_px=detections.boxes_xyxy_px.astype(np.float32).tobytes(),
            class_ids=detections.class_ids.astype(np.int32).tobytes(),
            confidences=detections.confidences.astype(np.float32).tobytes(),
            shapes=tuple(detections.shapes.items()),
            crops=tuple(
                CropFacts(c.detection, c.plan, c.pixels.shape[0], c.pixels.shape[1], c.to_image, c.turned)
                for c in crops
            ),
            decode_ms=decode_ms,
            scale=detections.scale,
            left_out=detections.left_out,
            too_small=detections.too_small,
            notices=page.image.notices,
            page_count=page.page_count,
            keypoints=b"" if detections.keypoints is None else detections.keypoints.astype(np.float32).tobytes(),
        )
        return Payload(answer, tuple(crop.pixels.data.cast("B") for crop in crops))

    def keypoints_of(self, row: int) -> list[tuple[float, float, float]]:
        """The keypoints of one region: x, y, and confidence."""
        size = len(self.keypoints) // max(len(self.confidences) // 4, 1)
        return list(struct.iter_unpack("=3f", self.keypoints[row * size : (row + 1) * size]))

    def regions(self) -> Iterator[tuple[tuple[float, float, float, float], int, float]]:
        """Box, class and confidence of each region. No arrays: a front has nothing to compute with them."""
        return zip(
            struct.iter_unpack("=4f", self.boxes_xyxy_px),
            memoryview(self.class_ids).cast("i"),
            memoryview(self.confidences).cast("f"),
            strict=True,
        )
