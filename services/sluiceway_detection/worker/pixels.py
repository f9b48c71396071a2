"""The pixels of one item: decoded from its file, or as they came."""

from __future__ import annotations

import cv2
import numpy as np
from sluiceway_runtime.documents.limits import DocumentLimits
from sluiceway_runtime.documents.pages import DocumentPage, read_page
from sluiceway_runtime.images.decode import DecodedImage, read_image
from sluiceway_runtime.images.limits import ImageLimits
from sluiceway_runtime.pool.payload import Payload

from sluiceway_detection.job import DetectionJob

__all__ = ["image_of"]

_TO_BGR = {"rgb": cv2.COLOR_RGB2BGR, "gray": cv2.COLOR_GRAY2BGR}


def image_of(item: Payload, limits: ImageLimits, documents: DocumentLimits) -> DocumentPage:
    """What to detect in, as uint8 [H, W, 3] BGR, contiguous, owned by the caller.

    Args:
        item: with a `DetectionJob`, which says what its only buffer holds.
        limits: of a file.
        documents: of one that has pages.

    Raises:
        InvalidImage, ImageTooLarge: see `read_image` and `read_page`.
    """
    job: DetectionJob = item.meta
    data = memoryview(item.buffers[0])
    if job.page is not None:
        return read_page(data, job.page, limits, documents, prefers_text=job.prefers_text)
    if job.raw is None:
        return DocumentPage(read_image(data, limits), 0)
    height, width, pixel_format = job.raw
    pixels = np.frombuffer(data, np.uint8).reshape(height, width, -1)
    if pixel_format == "bgr":
        # The memory is another batch's once this one is answered, and detectors of users may draw on what they get.
        return DocumentPage(DecodedImage(pixels.copy()), 0)
    return DocumentPage(DecodedImage(np.asarray(cv2.cvtColor(pixels, _TO_BGR[pixel_format]), np.uint8)), 0)
