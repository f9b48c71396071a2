"""Callers by name: loaded, and looked at before anything starts."""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect

from sluiceway_runtime.errors import ConfigurationError

from sluiceway_orchestrator.fetch.caller import Caller

__all__ = ["load_caller"]

ENTRY_POINTS = "sluiceway.callers"


def load_caller(name: str, *, key: str) -> Caller:
    """Make the caller that `module:Class`, or an entry point of the group `sluiceway.callers`, names.

    Raises:
        ConfigurationError: there is none, or it is not a caller.
    """
    try:
        if ":" in name:
            module, _, attribute = name.partition(":")
            factory = getattr(importlib.import_module(module), attribute)
        else:
            (entry,) = importlib.metadata.entry_points(group=ENTRY_POINTS, name=name)
            factory = entry.load()
        caller: Caller = factory()
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise ConfigurationError(f"{key}: {name!r} cannot be loaded: {error}") from error
    for attribute in ("params", "setup", "__call__"):
        if not hasattr(caller, attribute):
            raise ConfigurationError(f"{key}: {name!r} has no {attribute}")
    if isinstance(caller.params, str) or not all(isinstance(param, str) for param in caller.params):
        raise ConfigurationError(f"{key}: params of {name!r} must be a list of names")
    for what, arguments in ((caller.setup, ("session", "config")), (caller, ("call",))):
        if not _takes(what, len(arguments)):
            method = "setup" if what is not caller else "__call__"
            raise ConfigurationError(f"{key}: {method} of {name!r} must take ({', '.join(arguments)})")
    return caller


def _takes(what: object, count: int) -> bool:
    assert callable(what)
    try:
        inspect.signature(what).bind(*[None] * count)
    except TypeError:
        return False
    except ValueError:
        # Of what is not written in Python nothing is known.
        return True
    return True
