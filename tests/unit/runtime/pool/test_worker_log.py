"""What a worker process writes to its standard error."""

from __future__ import annotations

import json

import pytest
from sluiceway_runtime.errors import StartupError
from sluiceway_runtime.logs import LogStyle
from sluiceway_runtime.pool import Placement, Pool, PoolLimits, WorkerSpec


async def test_a_worker_logs_in_the_manner_of_its_front(capfd: pytest.CaptureFixture[str]) -> None:
    style = LogStyle("detection", level="error", format="json")
    placements = (Placement(0, "cpu", None, 1),)
    spec = WorkerSpec("pool_handlers:Scripted", {"fail_setup": "no model"}, placements, log=style)
    pool = Pool(spec, PoolLimits(), name="test")
    with pytest.raises(StartupError, match="no model"):
        await pool.start()
    await pool.close()
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    assert {(line["service"], line["level"]) for line in lines} == {("detection worker 0", "error")}
    assert "no model" in lines[0]["exception"]
