"""Recognisers that users bring: a class named in the configuration, by `module:Class` or by entry point."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from importlib.metadata import entry_points
from typing import Any

from sluiceway_runtime.errors import StartupError

from sluiceway_recognition.plan import ModelPlan
from sluiceway_recognition.types import CropSpec
from sluiceway_recognition.worker.recognizer import Recognizer

__all__ = ["ENTRY_POINTS", "load_user_recognizer"]

ENTRY_POINTS = "sluiceway.recognizers"


def load_user_recognizer(plan: ModelPlan, device: str) -> Recognizer:
    """Make the user's recogniser and set it up; does not warm it.

    Args:
        plan: the model; has a `user_class`.
        device: handed to `setup`.

    Raises:
        StartupError: there is no such class, it does not look like a recogniser, or it raised.
    """
    assert plan.user_class is not None
    where = plan.key
    kind = _find(plan.user_class, where)
    try:
        recognizer = kind(**plan.options)
        recognizer.setup(device)
    except Exception as error:
        raise StartupError(f"{where}: {plan.user_class} could not be set up: {error!r}") from error
    if not callable(recognizer):
        raise StartupError(f"{where}: {plan.user_class} has no __call__(batch)")
    if not isinstance(getattr(recognizer, "crop_spec", None), CropSpec):
        raise StartupError(f"{where}: {plan.user_class} has no crop_spec, a sluiceway_recognition.types.CropSpec")
    buckets = list(getattr(recognizer, "buckets", ()))
    if buckets and (buckets != sorted(set(buckets)) or buckets[-1] < recognizer.crop_spec.max_width):
        raise StartupError(f"{where}: buckets of {plan.user_class} must ascend to crop_spec.max_width or more")
    labels = getattr(recognizer, "labels", ())
    if isinstance(labels, str) or not isinstance(labels, Iterable) or not all(isinstance(name, str) for name in labels):
        raise StartupError(f"{where}: labels of {plan.user_class} must be a sequence of names")
    found: Recognizer = recognizer
    return found


def _find(name: str, where: str) -> Any:
    if ":" not in name:
        found = entry_points(group=ENTRY_POINTS, name=name)
        if not found:
            raise StartupError(f"{where}: no entry point {name} in the group {ENTRY_POINTS}; or write module:Class")
        try:
            return next(iter(found)).load()
        except Exception as error:
            raise StartupError(f"{where}: the entry point {name} cannot be loaded: {error!r}") from error
    module_name, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(module_name), attribute)
    except Exception as error:  # importing runs the user's module, which may raise anything
        raise StartupError(f"{where}: {name} cannot be loaded: {error!r}") from error
