"""Necks: from [N, C, 1, T] to [N, T, D], with each step knowing of its neighbours."""

# torch is an extra: without it mypy knows no base class. mypy reads the next line.
# mypy: allow-subclassing-any

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from sluiceway_recognition.nets.layers import AttentionBlock, ConvLayer

__all__ = ["ConvNeck", "LightSVTRNeck", "SVTRNeck"]


def _steps(x: Tensor) -> Tensor:
    """[N, C, 1, T] to [N, T, C]."""
    return x.squeeze(2).transpose(1, 2)


class ConvNeck(nn.Module):
    """A depthwise convolution along the line, then a pointwise one (PP-OCRv6 tiny)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = ConvLayer(channels, channels, (1, 5), groups=channels)
        self.pointwise = ConvLayer(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, 1, T] to [N, T, C]."""
        x = functional.hardswish(self.depthwise(x))
        return _steps(functional.hardswish(self.pointwise(x)))


class _GlobalMixing(nn.Module):
    """Transformer blocks over the steps, and a last normalisation."""

    def __init__(self, channels: int, depth: int = 2) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(AttentionBlock(channels) for _ in range(depth)))
        self.norm = nn.LayerNorm(channels, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, 1, T] to the same shape."""
        mixed: Tensor = self.norm(self.blocks(_steps(x)))
        return mixed.transpose(1, 2).unsqueeze(2)


class SVTRNeck(nn.Module):
    """Global mixing between narrow convolutions, beside a shortcut (PP-OCRv5 mobile)."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.conv1 = ConvLayer(channels, channels // 8, (1, 3))
        self.conv2 = ConvLayer(channels // 8, hidden)
        self.mixing = _GlobalMixing(hidden)
        self.conv3 = ConvLayer(hidden, channels)
        self.conv4 = ConvLayer(2 * channels, channels // 8, (1, 3))
        self.conv5 = ConvLayer(channels // 8, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, 1, T] to [N, T, hidden]."""
        mixed = functional.silu(self.conv2(functional.silu(self.conv1(x))))
        mixed = functional.silu(self.conv3(self.mixing(mixed)))
        mixed = functional.silu(self.conv4(torch.cat((x, mixed), dim=1)))
        return _steps(functional.silu(self.conv5(mixed)))


class LightSVTRNeck(nn.Module):
    """Local mixing by a depthwise convolution, then global mixing, added to a shortcut (PP-OCRv6 small)."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.shortcut = ConvLayer(channels, hidden)
        self.reduce = ConvLayer(channels, hidden)
        self.local = ConvLayer(hidden, hidden, (1, 7), groups=hidden)
        self.mixing = _GlobalMixing(hidden)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, 1, T] to [N, T, hidden]."""
        shortcut = functional.silu(self.shortcut(x))
        mixed = functional.silu(self.reduce(x))
        mixed = mixed + functional.silu(self.local(mixed))
        return _steps(self.mixing(mixed) + shortcut)
