"""Which shapes of a model that takes any have a compiled model of their own.

A model that is compiled for one shape computes it a third faster than one that takes any, but compiling takes as long
as many images, and each holds memory of its own. So a shape is compiled when the time that this would have saved until
now is as long as compiling takes: whatever comes, compiling never costs more than has been lost without it.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from sluiceway_detection.inputs.shapes import InputShape

__all__ = ["MOST_SHAPES", "SAVED_SHARE", "OwnShapes"]

# Of the time that the general model takes. PP-OCRv6 tiny and small, 192x384 to 1280x928, bf16 and f32: 0.31 to 0.34.
SAVED_SHARE = 0.3
# Compiled shapes that are kept; beside their pixels, each holds 15 MB.
MOST_SHAPES = 6


class OwnShapes:
    """Chooses the request that computes an image, and has new ones made. Used by one thread.

    Args:
        general: takes every shape.
        make: compiles a model for one shape and returns its request.
        make_s: how long that takes, by a first guess.
        most_px: of the inputs of all kept shapes together; a larger one is never compiled.
        clock: seconds.
    """

    def __init__(
        self,
        general: Any,
        make: Callable[[InputShape], Any],
        *,
        make_s: float,
        most_px: int,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._general, self._make, self._make_s = general, make, make_s
        self._most_px, self._clock = most_px, clock
        # The least recently used comes first.
        self._own: OrderedDict[InputShape, Any] = OrderedDict()
        self._would_have_saved_s: dict[InputShape, float] = {}

    @property
    def shapes(self) -> tuple[InputShape, ...]:
        """That are compiled, the least recently used first."""
        return tuple(self._own)

    def infer(self, shape: InputShape, compute: Callable[[Any], None]) -> Any:
        """Compute one image, and return the request that has its output.

        Args:
            shape: of the image.
            compute: computes it with the request that it is given.
        """
        own = self._own.get(shape)
        if own is None and self._is_worth_it(shape):
            own = self._compile(shape)
        if own is not None:
            self._own.move_to_end(shape)
            compute(own)
            return own
        begun_s = self._clock()
        compute(self._general)
        saved_s = (self._clock() - begun_s) * SAVED_SHARE
        self._would_have_saved_s[shape] = self._would_have_saved_s.get(shape, 0.0) + saved_s
        return self._general

    def _is_worth_it(self, shape: InputShape) -> bool:
        return self._would_have_saved_s.get(shape, 0.0) >= self._make_s and _pixels(shape) <= self._most_px

    def _compile(self, shape: InputShape) -> Any:
        room = self._most_px - _pixels(shape)
        while self._own and (len(self._own) >= MOST_SHAPES or sum(map(_pixels, self._own)) > room):
            dropped, _ = self._own.popitem(last=False)
            self._would_have_saved_s.pop(dropped, None)
        begun_s = self._clock()
        made = self._own[shape] = self._make(shape)
        self._make_s = self._clock() - begun_s
        return made


def _pixels(shape: InputShape) -> int:
    return shape[0] * shape[1]
