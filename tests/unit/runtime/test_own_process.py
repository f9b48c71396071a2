"""Programs that are run once before workers start."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from sluiceway_runtime.errors import StartupError
from sluiceway_runtime.own_process import answer_of


async def ask(program: str, timeout_s: float = 30.0) -> object:
    return await answer_of([sys.executable, "-c", program], what="trying", timeout_s=timeout_s, key="stage.timeout_s")


async def test_what_it_prints_is_the_answer() -> None:
    assert await ask("print('{\"precision\": [1, 2]}')") == {"precision": [1, 2]}


@pytest.mark.parametrize(
    ("program", "fault"),
    [
        ("import sys; sys.stderr.write('one\\nthe file is gone\\n'); sys.exit(1)", "the file is gone"),
        ("import sys; sys.exit(3)", "trying ended with exit code 3"),
    ],
)
async def test_what_it_complains_of_is_the_fault(program: str, fault: str) -> None:
    with pytest.raises(StartupError, match=f"^{fault}$"):
        await ask(program)


async def test_it_does_not_outlive_its_time(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    program = f"import os, pathlib, time; pathlib.Path({str(note)!r}).write_text(str(os.getpid())); time.sleep(600)"
    with pytest.raises(StartupError, match=r"trying took longer than stage\.timeout_s \(2 s\)"):
        await ask(program, 2.0)
    if note.exists():
        with pytest.raises(ProcessLookupError):
            os.kill(int(note.read_text()), 0)
