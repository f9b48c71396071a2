"""The depthwise kernel computes what a convolution does. Without a GPU, through Triton's interpreter."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.torch

# Triton reads the variable when it is imported, so this runs in a process of its own.
PROGRAM = """
import torch
from sluiceway_recognition.nets.depthwise import StripDepthwise, replace_large_depthwise
from sluiceway_recognition.nets.layers import ConvLayer

torch.manual_seed(0)
# More channels than a block, a width that is no multiple of a strip, each stride.
cases = [(2, 70, 6, 20, 5, 1), (1, 96, 7, 33, 5, (2, 1)), (1, 16, 5, 17, 5, (1, 2)), (1, 8, 9, 5, (7, 5), 2)]
for batch, channels, height, width, kernel, stride in cases:
    conv = ConvLayer(channels, channels, kernel, stride=stride, groups=channels)
    net = torch.nn.Sequential(ConvLayer(3, channels, 1), conv, ConvLayer(channels, channels, 3, groups=channels))
    x = torch.randn(batch, channels, height, width)
    with torch.inference_mode():
        expected = conv(x)
        replaced = replace_large_depthwise(net)
        found = replaced[1](x)
    assert isinstance(replaced[1], StripDepthwise), "a large one is replaced"
    assert [type(layer) for layer in (replaced[0], replaced[2])] == [ConvLayer, ConvLayer], "others are not"
    assert found.shape == expected.shape
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert (found - expected).abs().max() < 1e-5, (batch, channels, height, width, kernel, stride)
print("equal")
"""


def test_the_kernel_computes_what_a_convolution_does() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["equal"]


def test_the_kernels_text_stands_by_itself() -> None:
    """torch.compile writes it into a file of its own, beside `tl` and `triton` and nothing else."""
    import triton
    from sluiceway_recognition.nets.depthwise import _strip
    from triton import language

    names: dict[str, object] = {"triton": triton, "tl": language}
    exec(compile(_strip.src, "kernel", "exec", dont_inherit=True), names)
    assert callable(names["_strip"])
