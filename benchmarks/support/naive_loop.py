"""What a process-per-worker server does if nobody thinks of threads: torch with its defaults, and only the forward.

    python naive_loop.py WEIGHTS.onnx HEIGHT WIDTH

Runs with any Python that has torch, numpy, onnx and this checkout on its path; no thread is capped, nothing is pinned.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

# The first folder on the path is this one.
from contestant import obey, repeat

__all__: list[str] = []


def main() -> None:
    """Load, warm, obey."""
    from sluiceway_runtime import onnx_torch

    weights, height, width = sys.argv[1:]
    shape = (1, 3, int(height), int(width))
    module = onnx_torch.load(Path(weights), {_input_name(Path(weights)): shape}).eval()
    pixels = torch.rand(shape)

    def forward() -> None:
        with torch.inference_mode():
            module(pixels)

    forward()
    facts = {"threads": torch.get_num_threads(), "torch": torch.__version__}
    obey(lambda seconds: repeat(seconds, forward) | facts)


def _input_name(weights: Path) -> str:
    import onnx

    return str(onnx.load(weights).graph.input[0].name)


if __name__ == "__main__":
    main()
