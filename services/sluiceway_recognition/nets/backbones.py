"""Backbones: from [N, 3, 48, W] to [N, C, 3, W / 4], and pooled to one row of W / 8 steps."""

# torch is an extra: without it mypy knows no base class. mypy reads the next line.
# mypy: allow-subclassing-any

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from sluiceway_recognition.nets.layers import ConvLayer, LearnableAffine, SqueezeExcite

__all__ = ["BlockPlan", "BranchStem", "PPLCNetV3", "PPLCNetV4", "SimpleStem"]

# The last rows become one, and two columns one step.
_POOL = (3, 2)


class BlockPlan(NamedTuple):
    """One block of a backbone: channels in and out, size of the depthwise kernel, vertical and horizontal stride."""

    channels: int
    out_channels: int
    kernel: int = 3
    stride: tuple[int, int] = (1, 1)
    excite: bool = False


class SimpleStem(nn.Module):
    """Two strided convolutions (PP-OCRv6 tiny)."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = ConvLayer(3, channels, 3, stride=2)
        self.conv2 = ConvLayer(channels, out_channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 3, H, W] to [N, C, H / 4, W / 4]."""
        x = functional.gelu(self.conv1(x))
        out: Tensor = self.conv2(x)
        return out


class BranchStem(nn.Module):
    """Pooling beside two small convolutions, as in PP-HGNetV2 (PP-OCRv6 small)."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.stem1 = ConvLayer(3, channels, 3, stride=2)
        self.stem2a = ConvLayer(channels, channels // 2, 2)
        self.stem2b = ConvLayer(channels // 2, channels, 2)
        self.stem3 = ConvLayer(2 * channels, channels, 3, stride=2)
        self.stem4 = ConvLayer(channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 3, H, W] to [N, C, H / 4, W / 4]."""
        x = functional.relu(self.stem1(x))
        # An even kernel has its middle at the lower right: one row and column more below and to the right.
        padded = functional.pad(x, (0, 1, 0, 1))
        branch = functional.relu(self.stem2a(padded))
        branch = functional.relu(self.stem2b(functional.pad(branch, (0, 1, 0, 1))))
        pooled = functional.max_pool2d(padded, kernel_size=2, stride=1)
        x = functional.relu(self.stem3(torch.cat((pooled, branch), dim=1)))
        return functional.relu(self.stem4(x))


class _LCNetV4Block(nn.Module):
    """A token mixer (depthwise, perhaps excited), then a channel mixer of two pointwise layers."""

    def __init__(self, plan: BlockPlan) -> None:
        super().__init__()
        self.token_mixer = ConvLayer(
            plan.channels, plan.channels, plan.kernel, stride=plan.stride, groups=plan.channels
        )
        self.excite = SqueezeExcite(plan.channels) if plan.excite else nn.Identity()
        self.expand = ConvLayer(plan.channels, 2 * plan.channels)
        self.project = ConvLayer(2 * plan.channels, plan.out_channels)
        self.residual = plan.channels == plan.out_channels and plan.stride == (1, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.excite(self.token_mixer(x))
        mixed: Tensor = self.project(functional.gelu(self.expand(x)))
        return x + mixed if self.residual else mixed


class PPLCNetV4(nn.Module):
    """The backbone of PP-OCRv6."""

    def __init__(self, stem: nn.Module, blocks: Sequence[BlockPlan]) -> None:
        super().__init__()
        self.stem = stem
        self.blocks = nn.Sequential(*(_LCNetV4Block(plan) for plan in blocks))

    def forward(self, x: Tensor) -> Tensor:
        """[N, 3, 48, W] to [N, C, 1, W / 8]."""
        return functional.avg_pool2d(self.blocks(self.stem(x)), _POOL)


class _RepLayer(nn.Module):
    """A re-parameterised convolution with hard swish and a learnable affine."""

    def __init__(self, conv: ConvLayer) -> None:
        super().__init__()
        self.conv = conv
        self.affine = LearnableAffine()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.affine(functional.hardswish(self.conv(x)))
        return out


class _LCNetV3Block(nn.Module):
    """Depthwise, perhaps excited, then pointwise."""

    def __init__(self, plan: BlockPlan) -> None:
        super().__init__()
        self.depthwise = _RepLayer(
            ConvLayer(plan.channels, plan.channels, plan.kernel, stride=plan.stride, groups=plan.channels)
        )
        self.excite = SqueezeExcite(plan.channels) if plan.excite else nn.Identity()
        self.pointwise = _RepLayer(ConvLayer(plan.channels, plan.out_channels))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.pointwise(self.excite(self.depthwise(x)))
        return out


class PPLCNetV3(nn.Module):
    """The backbone of PP-OCRv5 mobile."""

    def __init__(self, channels: int, blocks: Sequence[BlockPlan]) -> None:
        super().__init__()
        self.conv1 = ConvLayer(3, channels, 3, stride=2)
        self.blocks = nn.Sequential(*(_LCNetV3Block(plan) for plan in blocks))

    def forward(self, x: Tensor) -> Tensor:
        """[N, 3, 48, W] to [N, C, 1, W / 8]."""
        return functional.avg_pool2d(self.blocks(self.conv1(x)), _POOL)
