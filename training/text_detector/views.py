"""Random views of pooled pictures, made on the GPU: scale, turn, colour, blur, noise."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812  its usual name

_PAD = 114 / 255  # the grey that serving pads with


def _uniform(count: int, low: float, high: float, generator: torch.Generator) -> torch.Tensor:
    return torch.rand(count, generator=generator, device=generator.device) * (high - low) + low


def _affine(images: torch.Tensor, size: int, zoom: tuple[float, float], generator: torch.Generator) -> torch.Tensor:
    """Sample one view a picture. Float [B, 3, S, S] in and [B, 3, size, size] out, 0..1."""
    count, side = images.shape[0], images.shape[-1]
    whole = side / size
    free = torch.exp(_uniform(count, math.log(zoom[0]), math.log(zoom[1]), generator)) * 1.3
    full = whole * _uniform(count, 0.97, 1.08, generator)
    step = torch.where(_uniform(count, 0, 1, generator) < 0.5, full, free)  # source pixels an output pixel
    aspect = torch.where(
        _uniform(count, 0, 1, generator) < 0.3,
        torch.exp(_uniform(count, -0.17, 0.17, generator)),
        torch.ones_like(step),
    )
    angle = torch.where(
        _uniform(count, 0, 1, generator) < 0.15, _uniform(count, -0.12, 0.12, generator), torch.zeros_like(step)
    )
    reach = step * size / side  # share of the picture that the view spans
    room = (1 - reach).abs()
    shift_x, shift_y = _uniform(count, -1, 1, generator) * room, _uniform(count, -1, 1, generator) * room
    cos, sin = torch.cos(angle) * reach, torch.sin(angle) * reach
    rows = torch.stack([torch.stack([cos * aspect, -sin, shift_x], 1), torch.stack([sin * aspect, cos, shift_y], 1)], 1)
    grid = F.affine_grid(rows, [count, 3, size, size], align_corners=False)
    return (
        F.grid_sample(images - _PAD, grid.to(images.dtype), mode="bilinear", padding_mode="zeros", align_corners=False)
        + _PAD
    )


def _photometric(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    count = len(images)

    def chance(share: float) -> torch.Tensor:
        return (_uniform(count, 0, 1, generator) < share).view(-1, 1, 1, 1)

    def amount(low: float, high: float) -> torch.Tensor:
        return _uniform(count, low, high, generator).view(-1, 1, 1, 1)

    tint = torch.rand((count, 3, 1, 1), generator=generator, device=images.device) * 0.4 + 0.8
    images = torch.where(chance(0.3), images * tint, images)
    images = torch.where(chance(0.1), images.mean(1, keepdim=True).expand_as(images), images)
    images = torch.where(chance(0.4), (images - 0.5) * amount(0.5, 1.3) + 0.5 + amount(-0.2, 0.2), images)
    images = torch.where(chance(0.06), 1 - images, images)
    soft = F.avg_pool2d(images, 3, 1, 1, count_include_pad=False)
    images = torch.where(chance(0.15), torch.lerp(images, soft, amount(0.3, 1.0).to(images.dtype)), images)
    noise = torch.randn(images.shape, generator=generator, device=images.device, dtype=images.dtype)
    images = torch.where(chance(0.15), images + noise * amount(0.005, 0.05), images)
    return images.clamp(0, 1)


@torch.no_grad()
def random_views(pictures: torch.Tensor, size: int, mosaic: bool, generator: torch.Generator) -> torch.Tensor:
    """Views to train on.

    Args:
        pictures: uint8 [B, S, S, 3], RGB; with `mosaic`, 4 B' pictures make B' views.
        size: side of the views in pixels; even.
        mosaic: put four half-size views together, for small and dense text.
        generator: on the device of `pictures`.
    Returns:
        float [B or B/4, 3, size, size], 0..1, RGB (half precision on CUDA).
    """
    dtype = torch.float16 if pictures.is_cuda else torch.float32
    images = pictures.permute(0, 3, 1, 2).to(dtype) / 255
    if mosaic:
        parts = _affine(images, size // 2, (0.7, 1.8), generator)
        top_left, top_right, low_left, low_right = parts.chunk(4)
        images = torch.cat([torch.cat([top_left, top_right], 3), torch.cat([low_left, low_right], 3)], 2)
    else:
        images = _affine(images, size, (0.45, 1.35), generator)
    return _photometric(images, generator).to(dtype)
