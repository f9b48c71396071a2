"""Whose answers these are, and which replicas give the same ones."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Identity", "group_of"]

# Of the digest: as many as a commit is shown with, and more than enough for the versions of one model.
GROUP_DIGITS = 16


@dataclass(frozen=True, slots=True)
class Identity:
    """Whose answers these are; see `common.v1.Model`."""

    name: str
    version: str
    weights_sha256: str


def group_of(identity: Identity, classes: Sequence[str], crop_longest_px: int) -> str:
    """Name the version: equal for replicas whose weights, classes and crop spec are equal, on any machine.

    Args:
        identity: what is not seen by weights is told by its version.
        classes: in the order of their ids.
        crop_longest_px: longer side of the crops that the detector wants.
    """
    weights = identity.weights_sha256 or f"version {identity.version}"
    facts = json.dumps([identity.name, weights, list(classes), crop_longest_px])
    return hashlib.sha256(facts.encode()).hexdigest()[:GROUP_DIGITS]
