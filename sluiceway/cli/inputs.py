"""What was typed as sources, turned into the images to process."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from sluiceway.cli.streams import read_stdin
from sluiceway.cli.terminal import EXIT_USAGE, errors, fail
from sluiceway.client.folders import IMAGE_SUFFIXES, images_in
from sluiceway.client.sources import Content, describe_source

__all__ = ["Input", "find_inputs"]

# No message of gRPC can be larger.
MAX_STDIN_BYTES = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Input:
    """One image: its name as typed (or found in a folder that was typed), and what to send."""

    name: str
    source: Content


def find_inputs(arguments: Iterable[str]) -> list[Input]:
    """Spell out folders and standard input.

    Args:
        arguments: files, folders, URLs, `api:NAME?k=v`, or `-` for an image on standard input.

    Returns:
        The images in the order typed; those of a folder sorted by name, subfolders included, hidden ones left out.
    """
    return [item for argument in arguments for item in _spell_out(argument)]


def _spell_out(argument: str) -> Iterator[Input]:
    if argument == "-":
        yield Input("-", read_stdin(MAX_STDIN_BYTES))
    elif os.path.isdir(argument):  # noqa: PTH112 - `Path` raises for what is too long for a name
        found = sorted(images_in(argument, on_error=_say_unreadable), key=Path)
        if not found:
            fail(f"there are no images in {argument} (looked for {', '.join(sorted(IMAGE_SUFFIXES))})", EXIT_USAGE)
        for name in found:
            yield Input(name, name)
    else:
        yield Input(describe_source(argument), argument)


def _say_unreadable(error: OSError) -> None:
    errors.print(f"cannot read {error.filename}: {error.strerror}", style="yellow", markup=False, soft_wrap=True)
