"""The version group: what replicas must have in common to be parts of one answer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable

from sluiceway_recognition.types import ModelFacts

__all__ = ["group_of"]

# 64 bits: a few versions are told apart, nobody is kept from making one up.
DIGEST_CHARACTERS = 16


def group_of(models: Iterable[ModelFacts]) -> str:
    """Name what is served: equal where models, weights, labels and crop specs are equal, whatever computes them.

    Args:
        models: all of them, the default first.

    Returns:
        A few hexadecimal digits, the same in every process and release.
    """
    served = [
        [
            model.name,
            # User code has no file to be told by, so what its configuration says of it counts.
            model.weights_sha256 or model.version,
            model.head.value,
            list(model.labels),
            [model.crop_spec.height, model.crop_spec.max_width],
            [model.crop_spec.format.value, model.crop_spec.resize_rule.value],
            list(model.crop_spec.classes),
            # Only where they turn anything: others are of the group that they were before there was such a thing.
            *([model.crop_spec.turn_ratio] if model.crop_spec.turn_ratio else []),
            *([model.upright] if model.upright else []),
            *([list(model.crop_spec.align_points)] if model.crop_spec.align_points else []),
            *([model.reading] if model.reading else []),
        ]
        for model in models
    ]
    return hashlib.sha256(json.dumps(served).encode()).hexdigest()[:DIGEST_CHARACTERS]
