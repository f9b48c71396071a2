"""`log_format = "json"`: every line is JSON, whoever writes it and however it ends."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ledger_client import calling
from ledger_models import Deed, draw
from server_processes import Fleet
from waiting import wait_until

NOISY = """
import ctypes, faulthandler, os, sys, threading

from ledger_models import Deed, LedgerDetector, read

class Noisy(LedgerDetector):
    def setup(self, device):
        super().setup(device)
        print("loading weights", flush=True)

    def _find(self, image):
        os.write(2, b"libpng warning: iCCP: known incorrect sRGB profile\\n")
        sys.stderr.write("half a line ")
        sys.stderr.flush()
        told = read(image[:8])
        if told is not None and told[2] is Deed.LEAK:
            ctypes.string_at(0)  # ends the process with SIGSEGV, and faulthandler tells where
        return super()._find(image)
"""


def lines_of(log: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.splitlines()]


def test_what_libraries_and_crashes_write_is_json_too(tmp_path: Path) -> None:
    (tmp_path / "noisy.py").write_text(NOISY)
    settings = {"LOG_FORMAT": "json", "DETECTOR": "noisy:Noisy", "WORKERS": "1"}
    environment = {"PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[1] / 'support'}"}
    with Fleet(tmp_path) as fleet:
        detection = fleet.add("detection", settings, environment=environment).start()
        orchestrator = fleet.add(
            "orchestrator",
            {"DETECTION": detection.address, "RECOGNITION": "127.0.0.1:9", "LOG_FORMAT": "json"},
        ).start()

        async def ask() -> None:
            async with calling(orchestrator.address) as caller:
                await caller.send(draw(1, 0), detect_only=True)
                await caller.send(draw(2, 0, Deed.LEAK, 1), detect_only=True)

        asyncio.run(ask())
        wait_until(lambda: "quarantined" in detection.log, state=lambda: detection.log)
    lines = lines_of(detection.log)
    text = [line["message"] for line in lines]
    assert any("libpng warning: iCCP" in message for message in text)
    assert any("loading weights" in message for message in text)
    assert any("Segmentation fault" in message for message in text)
    assert text[-1] == "stopped"
    for line in lines:
        assert set(line) >= {"time", "level", "service", "logger", "request_id", "message"}
    [quarantined] = [line for line in lines if "is quarantined" in line["message"]]
    assert quarantined["request_id"] not in ("-", ""), "it says whose it was"
    asked = quarantined["request_id"]
    assert lines_of(orchestrator.log)
    assert len(asked) == 16


def test_a_start_that_fails_is_told_as_json(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sluiceway_orchestrator", "--set", "log_format=json", "--set", "host=0.0.0.0"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
    assert done.stdout == ""
    [line] = lines_of(done.stderr)
    assert "security.allow_unauthenticated" in line["message"]


@pytest.mark.parametrize("length", [10, 5_000, 200_000])
def test_long_lines_come_through_whole(tmp_path: Path, length: int) -> None:
    script = f"""
import os, sys
from sluiceway_runtime.logs import LogStyle, capture_output
capture_output(LogStyle("it", format="json"))
print("x" * {length})
sys.stdout.flush()
os.write(2, b"y" * {length} + b"\\n")
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert {line["message"] for line in lines_of(done.stderr)} == {"x" * length, "y" * length}
