"""What fetched bytes are: images by their first bytes, values by JSON pointer."""

from __future__ import annotations

from typing import Any

from sluiceway_runtime.images.signatures import LONGEST, format_of

from sluiceway_orchestrator.job import Buffer

__all__ = ["encodable", "is_image", "resolve_pointer"]


def is_image(data: Buffer) -> bool:
    """Whether the bytes begin as those of an image file do; the rest is for detection to judge."""
    return format_of(bytes(data[:LONGEST])) is not None


def resolve_pointer(document: Any, pointer: str) -> Any:
    """The value that an RFC 6901 pointer names.

    Raises:
        KeyError: there is none.
    """
    value = document
    for token in pointer.split("/")[1:]:
        name = token.replace("~1", "/").replace("~0", "~")
        if isinstance(value, dict) and name in value:
            value = value[name]
        elif isinstance(value, list) and name.isdecimal() and int(name) < len(value):
            value = value[int(name)]
        else:
            raise KeyError(pointer)
    return value


def encodable(text: str) -> str:
    """The text as a message can carry it: half a surrogate pair, which JSON can hold alone, becomes U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
