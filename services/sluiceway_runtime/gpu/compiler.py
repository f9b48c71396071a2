"""The compile strategy, and nothing else: a module and a shape become a file; a file becomes something to call.

AOTInductor: the file holds machine code for one shape, with the weights.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch._inductor.config

from sluiceway_runtime.gpu.shapes import Shape

__all__ = ["blank_inputs", "compile_to", "load", "missing_tool"]

OPTIONS: dict[str, Any] = {"max_autotune": False}
# Precompiled headers pay after dozens of compilations on one machine; before the first they cost a minute.
HEADERS = "aot_inductor.precompile_headers"


def missing_tool() -> str:
    """What compiling cannot do without and this machine lacks, in words; empty if nothing."""
    if shutil.which(os.environ.get("CXX", "c++")) or shutil.which("g++") or shutil.which("clang++"):
        return ""
    return "there is no C++ compiler"


def blank_inputs(shape: Shape, device: torch.device) -> tuple[torch.Tensor, ...]:
    """Arrays of a shape, all zeros."""
    return tuple(torch.zeros(spec.shape, dtype=getattr(torch, spec.dtype), device=device) for spec in shape.inputs)


def compile_to(path: Path, module: Any, shape: Shape, device: torch.device) -> None:
    """Compile. Takes 10 to 60 s, and raises whatever the compiler raises.

    Args:
        path: of the file to write; ends in `.pt2`.
        module: for the shape, on the device.
        shape: what it is compiled for.
        device: of the module; the file works on devices of the same kind.
    """
    options = OPTIONS | ({HEADERS: False} if hasattr(torch._inductor.config.aot_inductor, "precompile_headers") else {})  # noqa: SLF001
    with torch.inference_mode(False), torch.no_grad():
        program = torch.export.export(module, blank_inputs(shape, device), strict=False)
        torch._inductor.aoti_compile_and_package(  # noqa: SLF001 - the documented entry has this name
            program, package_path=str(path), inductor_configs=options
        )


def load(path: Path, device: torch.device) -> Callable[..., Any]:
    """Load what `compile_to` wrote; raises whatever torch raises on a file that it cannot use."""
    index = device.index if device.type == "cuda" and device.index is not None else -1
    # Single-threaded: its own locks and events would end a CUDA graph's capture.
    loaded: Callable[..., Any] = torch._inductor.aoti_load_package(  # noqa: SLF001 - as above
        str(path), run_single_threaded=True, device_index=index
    )
    return loaded
