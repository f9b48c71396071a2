"""What a camera, a scanner and a file format do to a picture, with the word corners carried along."""

from __future__ import annotations

import random

import cv2
import numpy as np

_RNG_LIMIT = 2**31 - 1


def warp_onto(
    rng: random.Random, image: np.ndarray, quads: np.ndarray, ground: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Lay a picture on a background under a random perspective.

    Args:
        image: uint8 [h, w, 3], RGB.
        quads: float32 [N, 4, 2], pixels of `image`.
        ground: uint8 [H, W, 3], RGB.
    Returns:
        The composed picture, uint8 [H, W, 3], and the corners in its pixels.
    """
    height, width = ground.shape[:2]
    h, w = image.shape[:2]
    tilt, angle = rng.choice((0.0, 0.03, 0.08, 0.16)), np.deg2rad(rng.choice((0, rng.gauss(0, 4), rng.gauss(0, 14))))
    fit = rng.uniform(0.35, 1.1) * min(width / w, height / h)
    corners = np.array([(-w, -h), (w, -h), (w, h), (-w, h)], np.float32) * 0.5 * fit
    corners *= 1 + np.array([[rng.uniform(-tilt, tilt) for _ in range(2)] for _ in range(4)], np.float32)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]], np.float32)
    centre = np.array([width * rng.uniform(0.35, 0.65), height * rng.uniform(0.35, 0.65)], np.float32)
    target = (corners @ turn.T + centre).astype(np.float32)
    source = np.array([(0, 0), (w, 0), (w, h), (0, h)], np.float32)
    matrix = cv2.getPerspectiveTransform(source, target)
    # INTER_AREA does not exist for warps: shrink first, or small text would alias away.
    if fit < 0.6:
        image = cv2.resize(image, None, fx=fit, fy=fit, interpolation=cv2.INTER_AREA)
        matrix = matrix @ np.diag([w / image.shape[1], h / image.shape[0], 1.0])
        quads = quads * np.array([image.shape[1] / w, image.shape[0] / h], np.float32)
    out = cv2.warpPerspective(image, matrix, (width, height), ground.copy(), cv2.INTER_LINEAR, cv2.BORDER_TRANSPARENT)
    moved = cv2.perspectiveTransform(quads.reshape(1, -1, 2), matrix).reshape(-1, 4, 2) if len(quads) else quads
    return out, moved.astype(np.float32)


def light(rng: random.Random, image: np.ndarray) -> np.ndarray:
    """Uneven light: a gradient, a shadow edge, or low light with its noise. uint8 RGB in and out."""
    height, width = image.shape[:2]
    coarse = np.array([[rng.uniform(0.35, 1.1) for _ in range(3)] for _ in range(3)], np.float32)
    if rng.random() < 0.35:
        coarse *= rng.uniform(0.2, 0.6)
    field = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(image * field[..., None], 0, 255).astype(np.uint8)


def texture(rng: random.Random, height: int, width: int) -> np.ndarray:
    """A made-up surface: coloured noise at a few scales. uint8 [H, W, 3]."""
    noise = np.random.default_rng(rng.randrange(_RNG_LIMIT))
    out = np.full((height, width, 3), [rng.randint(20, 235) for _ in range(3)], np.float32)
    for scale in rng.sample((2, 5, 16, 60, 200), rng.randint(1, 3)):
        layer = noise.normal(
            0, rng.uniform(4, 38), (height // scale + 2, width // scale + 2, rng.choice((1, 3)))
        ).astype(np.float32)
        layer = cv2.resize(layer, (width, height), interpolation=cv2.INTER_LINEAR)
        out += layer if layer.ndim == 3 else layer[..., None]
    return np.clip(out, 0, 255).astype(np.uint8)


def camera(rng: random.Random, image: np.ndarray) -> np.ndarray:
    """Blur, noise and JPEG in the order in which a camera adds them. uint8 RGB in and out."""
    if rng.random() < 0.22:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 1.7))
    if rng.random() < 0.07:
        length = rng.randint(3, 9)
        kernel = np.zeros((length, length), np.float32)
        kernel[length // 2] = 1.0 / length
        spin = cv2.getRotationMatrix2D((length / 2 - 0.5, length / 2 - 0.5), rng.uniform(0, 180), 1)
        image = cv2.filter2D(image, -1, cv2.warpAffine(kernel, spin, (length, length)))
    if rng.random() < 0.25:
        noise = np.random.default_rng(rng.randrange(_RNG_LIMIT)).standard_normal(image.shape, np.float32)
        image = np.clip(image + noise * rng.uniform(2, 18), 0, 255).astype(np.uint8)
    if rng.random() < 0.4:
        quality = rng.randint(25, 92)
        coded = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        image = np.ascontiguousarray(cv2.imdecode(coded, cv2.IMREAD_COLOR)[..., ::-1])
    return image


def boxes_of(quads: np.ndarray, width: int, height: int, least_px: float = 3.0) -> np.ndarray:
    """Upright boxes around corners, clipped to the picture; those mostly outside or too small become empty.

    Returns:
        float32 [N, 4] xyxy in pixels; a dropped word has a box of zeros, so that the order stays.
    """
    if not len(quads):
        return np.zeros((0, 4), np.float32)
    low, high = quads.min(1), quads.max(1)
    whole = np.prod(np.maximum(high - low, 1e-3), axis=1)
    limit = np.array([width, height], np.float32)
    low, high = np.clip(low, 0, limit), np.clip(high, 0, limit)
    side = high - low
    keep = (side.min(1) >= least_px) & (side.prod(1) > 0.4 * whole)
    return np.concatenate([low, high], 1).astype(np.float32) * keep[:, None]
