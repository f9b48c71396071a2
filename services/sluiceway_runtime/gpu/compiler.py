"""The compile strategy, and nothing else: a module and a shape become a file; a file makes compiling short.

`torch.compile` with static shapes. The file holds all that the compiler puts into its caches on the way: loaded first,
they leave it the reading of the Python code, one to three seconds. Why not an ahead-of-time package: docs/adr/0007.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch._dynamo.config
import torch._dynamo.utils
import torch._inductor.config
from torch._inductor.utils import fresh_cache
from torch.compiler._cache import CacheArtifactManager

from sluiceway_runtime.gpu.shapes import Shape

__all__ = ["blank_inputs", "compile_to", "load", "missing_tool"]

log = logging.getLogger(__name__)

# Each shape of each model counts as one more version of the same Python function, of which torch keeps 8.
VERSIONS_MAX = 4096
# Torch's counters of graphs that were compiled because no cache had them.
MISSES = (
    ("aot_autograd", "autograd_cache_miss"),
    ("inductor", "fxgraph_cache_miss"),
    ("inductor", "fxgraph_cache_bypass"),
)


def missing_tool() -> str:
    """What compiling cannot do without and this machine lacks, in words; empty if nothing."""
    names = (os.environ.get("CC", "cc"), "gcc", "clang")
    return "" if any(shutil.which(name) for name in names) else "there is no C compiler"


def blank_inputs(shape: Shape, device: torch.device) -> tuple[torch.Tensor, ...]:
    """Arrays of a shape, all zeros."""
    return tuple(torch.zeros(spec.shape, dtype=getattr(torch, spec.dtype), device=device) for spec in shape.inputs)


def compile_to(path: Path, module: Any, shape: Shape, device: torch.device) -> None:
    """Compile. Takes 10 to 60 s, and raises whatever the compiler raises.

    Args:
        path: of the file to write.
        module: for the shape, on the device.
        shape: what it is compiled for.
        device: of the module; the file is of use on devices of the same kind.
    """
    torch._dynamo.reset()  # noqa: SLF001 - the public name does the same and more
    # Of this shape alone: what another one left in this process or on this machine stays out of the file.
    CacheArtifactManager.clear()
    with fresh_cache():
        _compiled(module)(*blank_inputs(shape, device))
        saved = torch.compiler.save_cache_artifacts()
    if saved is None:
        raise RuntimeError("the compiler left nothing that could be kept")
    path.write_bytes(saved[0])


def load(path: Path, module: Any, shape: Shape, device: torch.device) -> Callable[..., Any]:
    """Compile with what `compile_to` wrote.

    Args:
        path: what it wrote.
        module: as it was compiled.
        shape: likewise.
        device: of the module.

    Returns:
        The compiled module.

    Raises:
        Exception: whatever torch raises on a file that it cannot use, and the compiler on what it cannot compile.
    """
    if torch.compiler.load_cache_artifacts(path.read_bytes()) is None:
        raise ValueError("it holds nothing that this release of torch can read")
    before = _misses()
    compiled = _compiled(module)
    # Nothing is left to compile: no reason to start a compiling process for every core.
    with torch._inductor.config.patch(compile_threads=1):  # noqa: SLF001 - the documented place of its settings
        compiled(*blank_inputs(shape, device))
    if _misses() > before:
        log.warning("%s is of no use to this process, which compiled the graph by itself", path.name)
    return compiled


def _compiled(module: Any) -> Callable[..., Any]:
    config = torch._dynamo.config  # noqa: SLF001 - the documented place of its settings
    config.recompile_limit = config.accumulated_recompile_limit = VERSIONS_MAX
    compiled: Callable[..., Any] = torch.compile(module, dynamic=False, fullgraph=True)
    return compiled


def _misses() -> int:
    counters = torch._dynamo.utils.counters  # noqa: SLF001 - only there
    return sum(int(counters[part][name]) for part, name in MISSES)
