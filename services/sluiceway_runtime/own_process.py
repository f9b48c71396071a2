"""What is computed once, before workers start, in a process of its own: what it leaves in memory ends with it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

from sluiceway_runtime.errors import StartupError

__all__ = ["answer_of"]


async def answer_of(command: Sequence[str], *, what: str, timeout_s: float, key: str) -> Any:
    """Run a program that prints JSON; it does not outlive this call.

    Args:
        command: its words.
        what: it does, for people.
        timeout_s: the longest that it may take.
        key: of the configuration, that says so.

    Returns:
        What it printed, read.

    Raises:
        StartupError: with the last that it said on stderr, if it failed; or it took too long.
    """
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(timeout_s):
            output, faults = await process.communicate()
    except TimeoutError as error:
        raise StartupError(f"{what} took longer than {key} ({timeout_s:g} s)") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        lines = faults.decode(errors="replace").strip().splitlines()
        raise StartupError(lines[-1] if lines else f"{what} ended with exit code {process.returncode}")
    return json.loads(output)
