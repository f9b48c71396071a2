"""Large depthwise convolutions on CUDA, channels last, where cuDNN's are slow.

cuDNN computes the 5x5 depthwise convolutions of PP-OCRv5 mobile with a kernel for any grouping: 0.86 ms each for a
batch of 128 on an H100, 3.4 of the 6.4 ms of the whole network, where reading and writing the pixels takes 0.04 ms.
Here each program computes a strip of one row: neighbouring pixels of the strip share what they read through the cache.
With it the compiled network reads 22,500 crops a second there instead of 19,600.
"""

# torch is an extra: without it mypy knows no base class. mypy reads the next line.
# mypy: allow-subclassing-any
# Triton's functions carry no types.
# mypy: disable-error-code="untyped-decorator,no-untyped-def"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor, nn

from sluiceway_recognition.nets.layers import ConvLayer

__all__ = ["StripDepthwise", "depthwise", "replace_large_depthwise"]

# Taps from which on cuDNN is slow; for 3x3 it has kernels of its own.
LARGE = 25

# A strip of so many pixels by so many channels: 64 channels of 16 bits are one line of the cache.
PIXELS = 16
CHANNELS = 64
WARPS = 4


# torch.compile carries the text of the kernel into a file of its own, where only `tl` and `triton` are known.
@triton.jit
def _strip(  # noqa: PLR0917 - a kernel is given all it needs, one by one
    source,
    weight,
    bias,
    target,
    channels,
    height,
    width,
    out_height,
    out_width,
    kernel_h: tl.constexpr,
    kernel_w: tl.constexpr,
    stride_h: tl.constexpr,
    stride_w: tl.constexpr,
    strip: tl.constexpr,
    block: tl.constexpr,
):
    row = tl.program_id(0)
    image = (row // out_height).to(tl.int64)
    y = row % out_height
    x = tl.program_id(1) * strip + tl.arange(0, strip)
    c = tl.program_id(2) * block + tl.arange(0, block)
    known = c < channels
    total = tl.zeros((strip, block), tl.float32)
    for i in tl.static_range(kernel_h):
        source_y = y * stride_h + i - kernel_h // 2
        inside_y = (source_y >= 0) & (source_y < height)
        line = source + (image * height + source_y) * width * channels
        for j in tl.static_range(kernel_w):
            source_x = x * stride_w + j - kernel_w // 2
            inside = inside_y & (source_x >= 0) & (source_x < width)
            factor = tl.load(weight + (i * kernel_w + j) * channels + c, mask=known, other=0.0).to(tl.float32)
            pixels = tl.load(
                line + source_x[:, None] * channels + c[None, :], mask=inside[:, None] & known[None, :], other=0.0
            )
            total += pixels.to(tl.float32) * factor[None, :]
    total += tl.load(bias + c, mask=known, other=0.0).to(tl.float32)[None, :]
    out = target + ((image * out_height + y) * out_width + x[:, None]) * channels + c[None, :]
    tl.store(out, total.to(target.dtype.element_ty), mask=(x < out_width)[:, None] & known[None, :])


@torch.library.triton_op("sluiceway::depthwise", mutates_args={})
def depthwise(x: Tensor, weight: Tensor, bias: Tensor, stride: list[int]) -> Tensor:
    """Convolve each channel by itself, "same" padding.

    Args:
        x: [N, C, H, W], channels last, on CUDA.
        weight: [KH, KW, C], contiguous; KH and KW are odd.
        bias: [C].
        stride: vertical and horizontal.

    Returns:
        [N, C, ceil(H / stride), ceil(W / stride)], channels last, of the type of `x`; summed in 32 bits.
    """
    batch, channels, height, width = x.shape
    kernel_h, kernel_w, _ = weight.shape
    out_height, out_width = (height - 1) // stride[0] + 1, (width - 1) // stride[1] + 1
    out = torch.empty(
        (batch, channels, out_height, out_width), dtype=x.dtype, device=x.device, memory_format=torch.channels_last
    )
    grid = (batch * out_height, triton.cdiv(out_width, PIXELS), triton.cdiv(channels, CHANNELS))
    torch.library.wrap_triton(_strip)[grid](
        x.contiguous(memory_format=torch.channels_last),
        weight,
        bias,
        out,
        channels,
        height,
        width,
        out_height,
        out_width,
        kernel_h=kernel_h,
        kernel_w=kernel_w,
        stride_h=stride[0],
        stride_w=stride[1],
        strip=PIXELS,
        block=CHANNELS,
        num_warps=WARPS,
    )
    return out


class StripDepthwise(nn.Module):
    """What a depthwise `ConvLayer` computes, by `depthwise`."""

    def __init__(self, conv: ConvLayer) -> None:
        super().__init__()
        # [C, 1, KH, KW] to [KH, KW, C]: a program reads the weights of its channels at once.
        self.weight = nn.Parameter(conv.weight.detach()[:, 0].permute(1, 2, 0).contiguous(), requires_grad=False)
        self.bias = nn.Parameter(conv.bias.detach().clone(), requires_grad=False)
        self.stride = list(conv.stride)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] to [N, C, ceil(H / stride), ceil(W / stride)]."""
        out: Tensor = depthwise(x, self.weight, self.bias, self.stride)
        return out


def replace_large_depthwise(net: nn.Module) -> nn.Module:
    """Put `StripDepthwise` in the place of every depthwise convolution of 5 x 5 taps or more, and return the net."""
    for name, child in list(net.named_children()):
        taps = child.kernel_size[0] * child.kernel_size[1] if isinstance(child, ConvLayer) else 0
        if taps >= LARGE and 1 < child.groups == child.in_channels == child.out_channels:
            setattr(net, name, StripDepthwise(child))
        else:
            replace_large_depthwise(child)
    return net
