"""What an answer in JSON says: values, options for detection, an image or where it is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from sluiceway_runtime.errors import UpstreamFailed

from sluiceway_orchestrator.config.apis import DetectionOption
from sluiceway_orchestrator.fetch.caller import DetectionChoice
from sluiceway_orchestrator.fetch.content import resolve_pointer
from sluiceway_orchestrator.fetch.url_text import base64_bytes, data_url_bytes, is_data_url
from sluiceway_orchestrator.fetch.values import checked_values

__all__ = ["chosen_detection", "decode_image", "image_at", "parse_json", "values_at"]


def parse_json(data: bytes | bytearray) -> Any:
    """The document. Raises UpstreamFailed."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise UpstreamFailed("the answer is not JSON") from error


def values_at(document: Any, pointers: Mapping[str, str]) -> dict[str, Any]:
    """The values that the pointers name, without those that this document does not have. Raises UpstreamFailed."""
    try:
        return checked_values(_found(document, pointers))
    except ValueError as error:
        raise UpstreamFailed(f"the answer cannot be handed on: {error}") from error


def chosen_detection(document: Any, pointers: Mapping[DetectionOption, str]) -> DetectionChoice | None:
    """The options that the document chooses; null chooses nothing. Raises UpstreamFailed."""
    if not pointers:
        return None
    try:
        return DetectionChoice(**_found(document, pointers))
    except ValueError as error:
        raise UpstreamFailed(f"the answer chooses no option of detection: {error}") from error


def image_at(document: Any, pointer: str) -> Any:
    """What stands where the image, or its URL, should be. Raises UpstreamFailed."""
    try:
        return resolve_pointer(document, pointer)
    except KeyError:
        raise UpstreamFailed("the answer has no image where the configuration says") from None


def decode_image(value: Any) -> bytes:
    """Base64, or a `data:` URL. Raises UpstreamFailed, which says nothing of the data."""
    if not isinstance(value, str):
        raise UpstreamFailed("the image in the answer is no text")
    try:
        return data_url_bytes(value) if is_data_url(value) else base64_bytes(value)
    except ValueError as error:
        raise UpstreamFailed(f"the image in the answer cannot be read: {error}") from None


def _found(document: Any, pointers: Mapping[Any, str]) -> dict[str, Any]:
    found = {}
    for name, pointer in pointers.items():
        with suppress(KeyError):
            found[name] = resolve_pointer(document, pointer)
    return found
