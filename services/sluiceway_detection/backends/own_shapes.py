"""Which shapes of a model that takes any have a compiled model of their own.

A model that is compiled for one shape computes it a third faster than one that takes any, but compiling takes as long
as many images, and each holds memory of its own. So a shape is compiled when the time that this would have saved until
now is as long as compiling takes: whatever comes, compiling never costs more than has been lost without it. Where room
for all is missing, those have it that save most for each pixel of it, by what was computed lately.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sluiceway_detection.inputs.shapes import InputShape

__all__ = ["MOST_SHAPES", "SAVED_SHARE", "OwnShapes"]

# Of the time that the general model takes. PP-OCRv6 tiny and small, 192x384 to 1280x928, bf16 and f32: 0.31 to 0.34.
SAVED_SHARE = 0.3
# Compiled shapes that are kept; beside their pixels, each holds 15 MB.
MOST_SHAPES = 6
# Of computing, after which what a shape saved counts half.
HALF_S = 60.0
# A shape that comes a little more often for a while is not worth compiling two.
CLEARLY_MORE = 2.0


@dataclass(slots=True)
class _Saving:
    """Of one shape.

    Attributes:
        lost_s: what its own model would have saved since there was none.
        recent_s: what that saves or would have saved, the more the longer ago the less.
        at_s: when that was so.
    """

    lost_s: float = 0.0
    recent_s: float = 0.0
    at_s: float = 0.0

    def faded_s(self, now_s: float) -> float:
        return self.recent_s * math.exp2((self.at_s - now_s) / HALF_S)

    def add(self, saved_s: float, now_s: float) -> None:
        self.recent_s, self.at_s = self.faded_s(now_s) + saved_s, now_s


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
        self._own: dict[InputShape, Any] = {}
        self._savings: dict[InputShape, _Saving] = {}
        # Time that was computed, in which savings fade: a night without work leaves everything as it was.
        self._computed_s = 0.0

    @property
    def shapes(self) -> tuple[InputShape, ...]:
        """That are compiled, the first made comes first."""
        return tuple(self._own)

    def infer(self, shape: InputShape, compute: Callable[[Any], None]) -> Any:
        """Compute one image, and return the request that has its output.

        Args:
            shape: of the image.
            compute: computes it with the request that it is given.
        """
        saving = self._savings.setdefault(shape, _Saving())
        if shape not in self._own and saving.lost_s >= self._make_s and self._has_room_for(shape):
            self._compile(shape)
            saving.lost_s = 0.0
        own = self._own.get(shape)
        begun_s = self._clock()
        compute(self._general if own is None else own)
        took_s = self._clock() - begun_s
        self._computed_s += took_s
        saved_s = took_s * (SAVED_SHARE if own is None else SAVED_SHARE / (1 - SAVED_SHARE))
        saving.add(saved_s, self._computed_s)
        if own is None:
            saving.lost_s += saved_s
        return self._general if own is None else own

    def _has_room_for(self, shape: InputShape) -> bool:
        """Whether it fits beside those that are worth no less; drops the others as far as it takes."""
        dropped: list[InputShape] = []
        kept_px = sum(map(_pixels, self._own))
        for least in sorted(self._own, key=self._worth):
            if len(self._own) - len(dropped) < MOST_SHAPES and kept_px + _pixels(shape) <= self._most_px:
                break
            if self._worth(shape) < CLEARLY_MORE * self._worth(least):
                return False
            dropped.append(least)
            kept_px -= _pixels(least)
        if kept_px + _pixels(shape) > self._most_px:
            return False
        for least in dropped:
            del self._own[least]
        return True

    def _worth(self, shape: InputShape) -> float:
        return self._savings[shape].faded_s(self._computed_s) / _pixels(shape)

    def _compile(self, shape: InputShape) -> None:
        begun_s = self._clock()
        self._own[shape] = self._make(shape)
        self._make_s = self._clock() - begun_s


def _pixels(shape: InputShape) -> int:
    return shape[0] * shape[1]
