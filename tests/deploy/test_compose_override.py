"""Compose itself reads what `sluiceway compose` writes. Needs docker with compose, and no engine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
PARKING = """\
[stages.vehicles]
kind = "detection"
model = "coco-v8n"

[stages.far_plates]
kind = "recognition"
device = "cuda"

[pipelines.read]
steps = [{ name = "vehicles", stage = "vehicles" }, { name = "plates", stage = "far_plates", of = "vehicles" }]
"""


def test_compose_takes_the_override(tmp_path: Path) -> None:
    config, override = tmp_path / "sluiceway.toml", tmp_path / "stages.yml"
    config.write_text(PARKING)
    command = [sys.executable, "-m", "sluiceway.cli", "compose", "--config", str(config), "--to", str(override)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    merged = read("--file", str(override))
    services = merged["services"]
    # Neither default stage is used, and so neither would be started.
    assert set(services) == {"vehicles", "far-plates", "orchestrator"}
    assert set(services["orchestrator"]["depends_on"]) == {"vehicles", "far-plates"}
    targets = services["orchestrator"]["environment"]
    assert targets["SLUICEWAY_STAGES__FAR_PLATES__TARGET"] == "dns:///far-plates:50053"
    assert targets["SLUICEWAY_ORCHESTRATOR__HTTP__HOST"] == "0.0.0.0", "what the first file says is still there"
    default = read()["services"]["detection"]
    for key in (
        "restart",
        "cap_drop",
        "security_opt",
        "stop_grace_period",
        "logging",
        "tmpfs",
        "read_only",
        "mem_limit",
    ):
        assert services["vehicles"][key] == default[key], key


def read(*files: str) -> dict[str, Any]:
    """What compose makes of docker-compose.yml and these."""
    command = ["docker", "compose", "--file", "docker-compose.yml", *files, "config", "--format", "json"]
    done = subprocess.run(command, cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    merged: dict[str, Any] = json.loads(done.stdout)
    return merged
