"""How to process, and how to connect."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal, TypedDict, cast

from sluiceway.errors import InvalidOption

__all__ = [
    "OptionFields",
    "Options",
    "Priority",
    "Scale",
    "StepOptions",
    "TextLayer",
    "Tls",
    "require_metadata",
    "with_fields",
]


Scale = float | Literal["auto", "fast"]
TextLayer = Literal["ignore", "prefer"]


class Priority(StrEnum):
    """How urgent a job is; higher classes go first, lower ones are slowed and never starved."""

    INTERACTIVE = "interactive"
    NORMAL = "normal"
    BULK = "bulk"


@dataclass(frozen=True, slots=True)
class StepOptions:
    """How one step is to work; its fields mean what those of `Options` mean.

    A detection step takes the first five, `scale` and `class_agnostic`, a recognition step the others.
    """

    confidence: float | None = None
    iou: float | None = None
    classes: tuple[str, ...] = ()
    max_detections: int | None = None
    image_size: int | None = None
    characters: bool | None = None
    top_k: int | None = None
    words: bool | None = None
    scale: Scale | None = None
    class_agnostic: bool | None = None


@dataclass(frozen=True, slots=True)
class Options:
    """How to process; whatever is None is left to the server's configuration.

    Those of detection are for the steps that look at pages, those of recognition for every step that reads.

    Attributes:
        confidence: least confidence of a region, (0, 1].
        iou: overlap above which the weaker of two regions is dropped, (0, 1].
        classes: names of the classes to keep; empty leaves that to the server.
        max_detections: at most this many regions, the most confident ones.
        image_size: longer side of the detector's input in pixels, one of those that the server names.
        scale: how large the image is shown to the detector: "fast" as one input, "auto" with parts shown larger where
            letters are small, or a factor above 0, at most 4.
        characters: also give each character's confidence.
        top_k: how many classes a classifier names.
        words: also say where each word of a text lies.
        priority: how urgent it is.
        return_images: send fetched images back, for drawing.
        detect_only: find regions, read nothing, and call nothing with what was read.
        steps: for single steps, by name; these win over the others.
        text_layer: of pages of PDF documents that hold text: "prefer" hands that out in place of reading them, "ignore"
            reads them as they would be printed; None leaves it to the server, which ignores it.
        class_agnostic: whether regions of different classes are compared for overlap, too.
    """

    confidence: float | None = None
    iou: float | None = None
    classes: tuple[str, ...] = ()
    max_detections: int | None = None
    image_size: int | None = None
    characters: bool | None = None
    top_k: int | None = None
    priority: Priority = Priority.NORMAL
    return_images: bool = False
    detect_only: bool = False
    steps: Mapping[str, StepOptions] = field(default_factory=dict)
    words: bool | None = None
    scale: Scale | None = None
    text_layer: TextLayer | None = None
    class_agnostic: bool | None = None


class OptionFields(TypedDict, total=False):
    """Fields of `Options` that may be given by themselves: `process("a.jpg", confidence=0.4)`."""

    confidence: float | None
    iou: float | None
    classes: Iterable[str]
    max_detections: int | None
    image_size: int | None
    scale: Scale | None
    characters: bool | None
    top_k: int | None
    words: bool | None
    priority: Priority | str
    return_images: bool
    detect_only: bool
    steps: Mapping[str, StepOptions]
    text_layer: TextLayer | None
    class_agnostic: bool | None


def with_fields(options: Options, fields: OptionFields) -> Options:
    """Set some fields of options; the name of one class stands for a list of it.

    Raises:
        TypeError: there is no such field.
    """
    if not fields:
        return options
    known: dict[str, Any] = dict(cast("Mapping[str, Any]", fields))
    for name in known:
        if name not in OptionFields.__annotations__:
            raise TypeError(f"there is no option {name!r}, only {', '.join(OptionFields.__annotations__)}")
    if "classes" in known:
        classes = known["classes"]
        known["classes"] = (classes,) if isinstance(classes, str) else tuple(classes)
    return replace(options, **known)


def require_metadata(metadata: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Return metadata as calls carry it.

    Raises:
        InvalidOption: a key or a value is none that a header can hold.
    """
    for key, value in metadata.items():
        if not re.fullmatch(r"[0-9a-z_.-]+", key) or key.startswith(("grpc-", ":")) or key.endswith("-bin"):
            raise InvalidOption(f"metadata: {key!r} is no key; one is small letters, digits, '-', '_' and '.'")
        if not (isinstance(value, str) and value.isascii() and value.isprintable()):
            raise InvalidOption(f"metadata: the value of {key} has characters other than printable ASCII")
    return tuple(metadata.items())


@dataclass(frozen=True, slots=True)
class Tls:
    """An encrypted connection.

    Attributes:
        ca: PEM file of the authorities to trust; None trusts the system's.
        certificate: PEM file of this client's certificate, where the server asks for one.
        key: PEM file of its private key.
        server_name: name that the server's certificate must carry, if it is not the address.
    """

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    server_name: str | None = None
