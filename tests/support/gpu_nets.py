"""Small networks for tests of the GPU backend, made by name as every recipe is; they compile in seconds."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from typing import Any

import torch
from sluiceway_runtime.gpu import ArraySpec, Recipe, Shape
from torch import Tensor, nn

__all__ = ["ALIVE", "Tiny", "make", "recipe", "shape_of"]


class Tiny(nn.Module):
    """Pixels and widths to a float [N, 4] and an int32 [N] of each row alone."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.conv = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, pixels: Tensor, widths: Tensor) -> tuple[Tensor, Tensor]:
        inside = torch.arange(pixels.shape[2], device=pixels.device) < widths[:, None]
        images = pixels.permute(0, 3, 1, 2).float() / 255 * inside[:, None, None, :]
        return self.conv(images).relu().mean((2, 3)), widths * 2


class Synchronising(nn.Module):
    """Looks at a value on the host: cannot be exported, compiled or captured."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, pixels: Tensor, widths: Tensor) -> Any:
        if bool((widths < 0).any()):
            raise ValueError("a width is negative")
        return self.net(pixels, widths)


# Modules that were made one for each shape, and are still there.
ALIVE: weakref.WeakSet[nn.Module] = weakref.WeakSet()


def _noted(net: nn.Module) -> nn.Module:
    ALIVE.add(net)
    return net


def make(device: torch.device, *, wrap: str = "") -> Callable[[Shape], nn.Module]:
    net: nn.Module = Tiny()
    if wrap == "die":
        os._exit(9)
    if wrap == "sync":
        net = Synchronising(net)
    if wrap == "each":
        return lambda shape: _noted(Tiny().to(device).eval())
    placed = net.to(device).eval()
    return lambda shape: placed


def recipe(**arguments: Any) -> Recipe:
    return Recipe("gpu_nets:make", arguments, {"weights": "1"}, ("gpu_nets",))


def shape_of(batch: int, width: int = 32) -> Shape:
    return Shape(f"{batch}x{width}", (ArraySpec("uint8", (batch, 16, width, 3)), ArraySpec("int32", (batch,))))
