"""`sluiceway up` where the servers log as JSON: standard error is JSON from the first line to the last."""

from __future__ import annotations

import json
import signal
from typing import Any

from sluiceway import Client


def test_everything_that_up_says_is_json(start_up: Any, samples: Any) -> None:
    formats = {f"SLUICEWAY_{name}__LOG_FORMAT": "json" for name in ("ORCHESTRATOR", "DETECTION", "RECOGNITION")}
    one = {f"SLUICEWAY_{name}__WORKERS": "1" for name in ("DETECTION", "RECOGNITION")}
    up = start_up(**formats, **one, SLUICEWAY_ORCHESTRATOR__ACCESS_LOG="true")
    with Client(up.address) as client:
        assert client.process(samples / "bus.jpg").ok
    assert up.stop(signal.SIGINT) == 0
    lines = [json.loads(line) for line in up.lines]
    assert {line["service"] for line in lines} >= {"up", "orchestrator", "detection", "recognition"}
    said = [line["message"] for line in lines if line["service"] == "up"]
    assert any(text.startswith("ready on ") for text in said)
    assert said[-1] == "stopped"
    assert any("PipelineService/Process OK" in line["message"] for line in lines)
