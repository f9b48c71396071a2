"""What a person should know of a picture that was read all the same."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["IMAGE_END_MISSING", "MESSAGES"]

# Stable.
IMAGE_END_MISSING = "IMAGE_END_MISSING"

MESSAGES: Mapping[str, str] = {
    IMAGE_END_MISSING: "the JPEG has no end marker; all of its pixels are there, and were read",
}
