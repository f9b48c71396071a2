"""What an earlier run has done already, from the file that its results went to."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from sluiceway.cli.inputs import Input
from sluiceway.cli.terminal import EXIT_USAGE, fail

__all__ = ["begin_line", "done_before", "left_to_do"]


def done_before(results: Path) -> set[str]:
    """Names of the sources that have a line without an error; none if there is no such file yet."""
    try:
        with results.open("rb") as file:
            return set(_names(file))
    except FileNotFoundError:
        return set()
    except OSError as error:
        fail(f"cannot read {results}: {error.strerror}", EXIT_USAGE)


def left_to_do(inputs: Sequence[Input], done: set[str]) -> list[Input]:
    """Leave out what is done."""
    return [item for item in inputs if item.name not in done]


def begin_line(results: Path, descriptor: int) -> bool:
    """Whether the output goes on in this file, and its last line was cut off by how the earlier run ended."""
    try:
        if not os.path.samestat(results.stat(), os.fstat(descriptor)):
            return False
        with results.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) != b"\n"
    except OSError:
        return False


def _names(lines: Iterator[bytes]) -> Iterator[str]:
    for line in lines:
        try:
            item = json.loads(line)
        except ValueError:
            # The last one of a run that was killed.
            continue
        if isinstance(item, dict) and item.get("status") == "ok" and isinstance(item.get("source"), str):
            yield item["source"]
