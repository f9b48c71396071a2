"""A third stage by configuration alone: four servers from a toml in a temporary folder."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import psutil
from ports import free_ports
from waiting import wait_until

from sluiceway import Client

# A second detection stage looks at the regions of the first, and what it finds is read.
CONFIG = """\
[orchestrator]
default_pipeline = "twice"

[stages.lines]
kind = "detection"
workers = 1
port = {port}
operations_port = {operations_port}

[pipelines.twice]
steps = [
  {{ name = "text", stage = "detection" }},
  {{ name = "again", stage = "lines" }},
  {{ name = "words", stage = "recognition", of = "again" }},
]
"""
ONE_WORKER = {"SLUICEWAY_DETECTION__WORKERS": "1", "SLUICEWAY_RECOGNITION__WORKERS": "1"}


def of_stage(up: Any, name: str) -> psutil.Process | None:
    for child in psutil.Process(up.process.pid).children():
        if child.cmdline()[3:5] == ["--stage", name]:
            return child
    return None


def test_a_third_stage_by_configuration_alone(start_up: Any, samples: Path, tmp_path: Path) -> None:
    port, operations_port = free_ports(2)
    config = tmp_path / "sluiceway.toml"
    config.write_text(CONFIG.format(port=port, operations_port=operations_port))
    up = start_up(config, **ONE_WORKER)
    up.operations["lines"] = operations_port
    family = psutil.Process(up.process.pid).children(recursive=True)
    assert len(psutil.Process(up.process.pid).children()) == 4
    with Client(up.address) as client:
        result = client.process(samples / "page.png")
        assert result.ok
        by_step = {step: [region for region in result.regions if region.step == step] for step in ("text", "again")}
        assert by_step["text"], "the default stage took part"
        assert len(by_step["text"]) == len(by_step["again"]), "the same model saw the same page"
        assert any(region.text for region in by_step["again"])
        assert not any(region.text for region in by_step["text"]), "only what the other stage found is read"
        described = {stage.name: stage for stage in client.describe().stages}
    assert described["lines"].kind == "detection"
    assert described["lines"].ready
    assert any(worker["items"] > 0 for worker in up.status("lines")["workers"])
    assert any(line.startswith("lines ") for line in up.lines), "logs have the stage's name"

    # One that dies is started again, as the stage that it was.
    first = of_stage(up, "lines")
    assert first is not None
    first.kill()
    wait_until(lambda: sum("lines" in line and "ready (" in line for line in up.lines) == 2)
    with Client(up.address) as client:
        assert client.process(samples / "page.png").ok

    assert up.stop(signal.SIGINT) == 0
    assert not [process for process in family if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
