"""What holds for every test."""

from __future__ import annotations

import subprocess
from collections.abc import Generator

import pytest
import sluiceway_runtime  # noqa: F401 - keeps OpenVINO from telling its maker of each import
from hypothesis import settings

# No time limit for an example: on a busy machine any of them may take seconds, which says nothing about the code.
settings.register_profile("sluiceway", deadline=None, print_blob=True)
settings.load_profile("sluiceway")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(call: pytest.CallInfo[None]) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show what a program wrote that failed a test: its exit code alone says little, and may come only once in CI."""
    report = yield
    error = call.excinfo.value if call.excinfo else None
    if isinstance(error, subprocess.CalledProcessError | subprocess.TimeoutExpired):
        for name, written in (("stdout", error.stdout), ("stderr", error.stderr)):
            text = written.decode(errors="replace") if isinstance(written, bytes) else written
            if text:
                report.sections.append((f"{name} of the program that failed", text))
    return report
