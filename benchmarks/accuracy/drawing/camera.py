"""What happens to a picture on its way: turning, perspective, noise, blur, shadow, a bad copier."""

from __future__ import annotations

import random
from dataclasses import replace

import cv2
import numpy as np

from benchmarks.accuracy.picture import ImageRgb, Picture

__all__ = ["blurred", "copied", "noisy", "photographed", "quarter_turned", "resized", "turned"]


def turned(picture: Picture, degrees: float, border: tuple[int, int, int] = (250, 250, 248)) -> Picture:
    """Turned clockwise, on a sheet that holds all of it."""
    height, width = picture.pixels.shape[:2]
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), -degrees, 1)
    cos, sin = abs(turn[0, 0]), abs(turn[0, 1])
    size = (round(height * sin + width * cos), round(height * cos + width * sin))
    turn[:, 2] += ((size[0] - width) / 2, (size[1] - height) / 2)
    pixels = cv2.warpAffine(picture.pixels, turn, size, flags=cv2.INTER_LINEAR, borderValue=border)
    return replace(picture, pixels=np.asarray(pixels), upright=False)


def quarter_turned(picture: Picture, degrees: int) -> Picture:
    """Turned clockwise by 90, 180 or 270 degrees."""
    return replace(picture, pixels=np.ascontiguousarray(np.rot90(picture.pixels, -degrees // 90)), upright=False)


def resized(picture: Picture, scale: float) -> Picture:
    """Shrunk by averaging."""
    pixels = cv2.resize(picture.pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return replace(picture, pixels=np.asarray(pixels), upright=False)


def noisy(picture: Picture, seed: int, strength: float, *, blur: float = 0.0) -> Picture:
    """With the noise of a sensor, behind a blur of so many pixels."""
    pixels = cv2.GaussianBlur(picture.pixels, (0, 0), blur) if blur else picture.pixels
    noise = np.random.default_rng(seed).normal(0, strength, pixels.shape)
    return replace(picture, pixels=_bytes(pixels + noise))


def blurred(picture: Picture, sigma: float) -> Picture:
    """Out of focus."""
    return replace(picture, pixels=np.asarray(cv2.GaussianBlur(picture.pixels, (0, 0), sigma)))


def copied(picture: Picture, seed: int) -> Picture:
    """Black and white, with specks: a bad copy, or a fax."""
    grey = cv2.cvtColor(picture.pixels, cv2.COLOR_RGB2GRAY).astype(np.float64)
    random_ = np.random.default_rng(seed)
    black = grey + random_.normal(0, 22, grey.shape) < 140
    black |= random_.random(grey.shape) < 0.0006
    pixels = np.where(black, 0, 255).astype(np.uint8)
    return replace(picture, pixels=np.repeat(pixels[:, :, None], 3, axis=2))


def photographed(picture: Picture, chance: random.Random, *, depth: float, shadow: float) -> Picture:
    """Seen from a side, with light from another.

    Args:
        picture: what lies there.
        chance: decides from where.
        depth: how far corners move inwards, as a share of the sides.
        shadow: how dark the darkest corner is, as a share.
    """
    height, width = picture.pixels.shape[:2]
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    moved = corners + np.array(
        [
            [sx * chance.uniform(0, depth) * width, sy * chance.uniform(0, depth) * height]
            for sx, sy in ((1, 1), (-1, 1), (-1, -1), (1, -1))
        ],
        np.float32,
    )
    view = cv2.getPerspectiveTransform(corners, moved)
    table = tuple(chance.randint(40, 110) for _ in range(3))
    pixels = cv2.warpPerspective(picture.pixels, view, (width, height), flags=cv2.INTER_LINEAR, borderValue=table)
    across, down = np.meshgrid(np.linspace(-1, 1, width), np.linspace(-1, 1, height))
    angle = chance.uniform(0, 2 * np.pi)
    light = 1 - shadow * (0.5 + 0.35 * (across * np.cos(angle) + down * np.sin(angle)))
    return replace(picture, pixels=_bytes(pixels * light[:, :, None]), upright=False)


def _bytes(pixels: np.ndarray) -> ImageRgb:
    return np.asarray(np.clip(np.rint(pixels), 0, 255), np.uint8)
