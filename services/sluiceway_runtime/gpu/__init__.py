"""What every stage's torch backend is made of: modules with static shapes, compiled once, captured, fed on streams.

`CompiledModule` is the whole of it. `recipe` says how a module is made, `compiler` how it is compiled, `builder` where,
`artefacts` where the result is kept, `memory` what fits, `device` how it is run, `staging` how batches get there and
back. Importing `CompiledModule` imports torch: a front must not.
"""

from __future__ import annotations

from sluiceway_runtime.gpu.compiled import CompiledModule
from sluiceway_runtime.gpu.recipe import Recipe
from sluiceway_runtime.gpu.shapes import ArraySpec, Shape
from sluiceway_runtime.gpu.staging import Run

__all__ = ["ArraySpec", "CompiledModule", "Recipe", "Run", "Shape"]
