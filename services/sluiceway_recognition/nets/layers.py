"""What the backbones and necks are made of."""

# torch is an extra: without it mypy knows no base class. mypy reads the next line.
# mypy: allow-subclassing-any

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["AttentionBlock", "ConvLayer", "LearnableAffine", "SqueezeExcite"]


class ConvLayer(nn.Conv2d):
    """A convolution with bias and "same" padding for odd kernels; normalisation is folded in."""

    def __init__(
        self,
        channels: int,
        out_channels: int,
        kernel: int | tuple[int, int] = 1,
        *,
        stride: int | tuple[int, int] = 1,
        groups: int = 1,
    ) -> None:
        height, width = kernel if isinstance(kernel, tuple) else (kernel, kernel)
        super().__init__(
            channels,
            out_channels,
            (height, width),
            stride=stride,
            padding=((height - 1) // 2, (width - 1) // 2),
            groups=groups,
        )


class SqueezeExcite(nn.Module):
    """Weighs channels by what the whole image says (Hu et al. 2018), with a hard sigmoid."""

    def __init__(self, channels: int, reduction: int = 4) -> None:
        super().__init__()
        self.squeeze = ConvLayer(channels, channels // reduction)
        self.excite = ConvLayer(channels // reduction, channels)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] to the same shape."""
        weights = x.mean((2, 3), keepdim=True)
        weights = self.excite(functional.relu(self.squeeze(weights)))
        return x * functional.hardsigmoid(weights)


class LearnableAffine(nn.Module):
    """One factor and one offset for all channels (PP-LCNetV3)."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """Any shape to the same shape."""
        return x * self.weight + self.bias


class AttentionBlock(nn.Module):
    """A transformer block over the steps of a line (SVTR's global mixing, Du et al. 2022), normalised first."""

    def __init__(self, channels: int, heads: int = 8, expansion: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(channels, eps=1e-5)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)
        self.norm2 = nn.LayerNorm(channels, eps=1e-5)
        self.fc1 = nn.Linear(channels, expansion * channels)
        self.fc2 = nn.Linear(expansion * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """[N, T, C] to the same shape."""
        batch, steps, channels = x.shape
        qkv = self.qkv(self.norm1(x)).view(batch, steps, 3, self.heads, channels // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(query, key, value)
        x = x + self.proj(mixed.transpose(1, 2).reshape(batch, steps, channels))
        return x + self.fc2(functional.silu(self.fc1(self.norm2(x))))
