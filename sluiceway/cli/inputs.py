"""What was typed as sources, turned into the images to process."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from sluiceway.cli.terminal import EXIT_USAGE, fail
from sluiceway.client.sources import SourceLike

__all__ = ["Input", "find_inputs"]

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})


@dataclass(frozen=True, slots=True)
class Input:
    """One image: its name as typed (or found in a folder that was typed), and what to send."""

    name: str
    source: SourceLike


def find_inputs(arguments: Iterable[str]) -> list[Input]:
    """Spell out folders and standard input.

    Args:
        arguments: files, folders, URLs, `api:NAME?k=v`, or `-` for an image on standard input.

    Returns:
        The images in the order typed; those of a folder sorted by name, subfolders included.
    """
    return [item for argument in arguments for item in _spell_out(argument)]


def _spell_out(argument: str) -> Iterator[Input]:
    if argument == "-":
        yield Input("-", sys.stdin.buffer.read())
    elif Path(argument).is_dir():
        found = sorted(path for path in Path(argument).rglob("*") if _is_image(path))
        if not found:
            fail(f"there are no images in {argument} (looked for {', '.join(sorted(IMAGE_SUFFIXES))})", EXIT_USAGE)
        for path in found:
            name = os.path.join(argument, path.relative_to(argument))  # noqa: PTH118 - keeps ./ as it was typed
            yield Input(name, name)
    else:
        yield Input(argument, argument)


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()
