"""Values of APIs: what JSON can say and a message of the contract can carry."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from sluiceway_orchestrator.fetch.content import encodable

__all__ = ["MAX_VALUES_BYTES", "checked_values"]

# Texts and names by their length in UTF-8, everything else by that of a number.
MAX_VALUES_BYTES = 2**20
NUMBER_BYTES = 8
# A value in a value takes up to three messages in one another, of which parsers allow a hundred.
MAX_DEPTH = 24


def checked_values(values: object) -> dict[str, Any]:
    """A copy of the values in which half characters are replaced.

    Raises:
        ValueError: they are not what JSON can say, nested too deeply, or too large; with words for people, which hold
            nothing of the values.
    """
    if not isinstance(values, Mapping):
        raise ValueError(f"values are of type {type(values).__name__}, not a mapping")  # noqa: TRY004 - one kind for all
    copy: dict[str, Any] = _Copy().of(values, 0)
    return copy


class _Copy:
    def __init__(self) -> None:
        self._left_bytes = MAX_VALUES_BYTES

    def of(self, value: Any, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise ValueError(f"values are nested more than {MAX_DEPTH} deep")
        if isinstance(value, str):
            return self._text(value)
        self._count(NUMBER_BYTES)
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, int | float):
            return _number(value)
        if isinstance(value, Mapping):
            return {self._name(name): self.of(item, depth + 1) for name, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.of(item, depth + 1) for item in value]
        raise ValueError(f"a value is of type {type(value).__name__}, which JSON does not have")

    def _name(self, name: object) -> str:
        if not isinstance(name, str):
            raise ValueError(f"the name of a value is of type {type(name).__name__}, not a text")  # noqa: TRY004
        return self._text(name)

    def _text(self, text: str) -> str:
        text = encodable(text)
        self._count(len(text) if text.isascii() else len(text.encode()))
        return text

    def _count(self, size_bytes: int) -> None:
        self._left_bytes -= size_bytes
        if self._left_bytes < 0:
            raise ValueError(f"values are larger than {MAX_VALUES_BYTES} bytes")


def _number(value: float) -> float:
    # The contract's numbers are doubles: a whole number beyond them has no form there.
    try:
        finite = math.isfinite(value)
    except OverflowError:
        finite = False
    if not finite:
        raise ValueError("a number is not finite")
    return value
