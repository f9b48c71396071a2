"""What stands behind a transparent picture: the ground from which most of what is drawn on it stands out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["on_ground"]

_WHITE, _BLACK, _GREY = 255, 0, 128
# Tried in this order, so that of two that serve alike the more usual one is taken.
_GROUNDS = (_WHITE, _BLACK, _GREY)
# Levels of grey: more contrast than this helps nobody.
_ENOUGH = 96
# ITU-R BT.601, of red, green and blue.
_LUMA = np.array((0.299, 0.587, 0.114), np.float32)
# Rows at a time, so that large pictures take no several times their size.
_ROWS = 256


def on_ground(rgba: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Lay a picture on a plain ground that contrasts with it.

    The ground is white, black or grey, whichever the visible pixels differ from most, each counted by how visible it is
    and for no more than is needed to tell it apart. A picture that is transparent everywhere has nothing visible: its
    alpha channel was never filled in, and its colours are taken as they are.

    Args:
        rgba: uint8 [H, W, 4], red green blue, and opacity not multiplied into them.

    Returns:
        uint8 [H, W, 3] BGR, contiguous.
    """
    alpha = rgba[:, :, 3]
    least, most = int(alpha.min()), int(alpha.max())
    if least == 255 or most == 0:
        return np.ascontiguousarray(rgba[:, :, 2::-1])
    ground = _ground(rgba)
    out = np.empty((*rgba.shape[:2], 3), np.uint8)
    for top in range(0, len(rgba), _ROWS):
        part = rgba[top : top + _ROWS]
        opacity = part[:, :, 3:].astype(np.uint16)
        mixed = part[:, :, 2::-1] * opacity + ground * (255 - opacity)
        out[top : top + _ROWS] = (mixed + 127) // 255
    return out


def _ground(rgba: NDArray[np.uint8]) -> int:
    """The level of grey to lay it on."""
    weights = np.zeros(256)
    for top in range(0, len(rgba), _ROWS):
        part = rgba[top : top + _ROWS]
        luma = (part[:, :, :3] @ _LUMA).astype(np.uint8)
        weights += np.bincount(luma.ravel(), weights=part[:, :, 3].ravel(), minlength=256)
    levels = np.arange(256)
    contrasts = [float(np.minimum(np.abs(levels - ground), _ENOUGH) @ weights) for ground in _GROUNDS]
    return _GROUNDS[contrasts.index(max(contrasts))]
