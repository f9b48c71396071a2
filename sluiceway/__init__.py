"""Sluiceway: images in, text out, region by region.

`Client` and `AsyncClient` talk to a running cluster; `sluiceway up` starts one. See `sluiceway.client` for the rest.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    __version__: str
    from sluiceway import errors
    from sluiceway.client import (
        ApiCall,
        AsyncClient,
        Client,
        JobDone,
        Options,
        Region,
        Regions,
        Result,
        Source,
        SourceDone,
        SourceFailed,
        SourceReady,
        StepOptions,
        Values,
        draw,
    )

__all__ = [
    "__version__",
    "ApiCall",
    "AsyncClient",
    "Client",
    "JobDone",
    "Options",
    "Region",
    "Regions",
    "Result",
    "Source",
    "SourceDone",
    "SourceFailed",
    "SourceReady",
    "StepOptions",
    "Values",
    "draw",
    "errors",
]


def __getattr__(name: str) -> object:
    # On demand: servers import the stubs below this package and need neither the client nor Pillow.
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("sluiceway")
    if name == "errors":
        return importlib.import_module("sluiceway.errors")
    if name in __all__:
        return getattr(importlib.import_module("sluiceway.client"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
