"""`sluiceway doctor`: what it says of a machine, of a plan, and of a worker that it tried."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

SUPPORT = Path(__file__).parents[1] / "support"


def doctor(folder: Path, *options: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(SUPPORT), "COLUMNS": "200"} | variables
    # Nobody listens there.
    command = [sys.executable, "-c", "from sluiceway.cli import main; main()", "doctor", "--address", "127.0.0.1:9"]
    return subprocess.run(
        [*command, *options], cwd=folder, env=environment, capture_output=True, text=True, timeout=180, check=False
    )


def test_it_tries_a_worker_and_tells_what_it_measured(tmp_path: Path) -> None:
    done = doctor(tmp_path, SLUICEWAY_DETECTION__DEVICE="cpu", SLUICEWAY_DETECTION__SHAPES='["320x320"]')
    assert done.returncode == 0, done.stdout + done.stderr
    lines = {line[2:15].strip(): line[17:] for line in done.stdout.splitlines() if line.startswith("  ")}
    assert {"cores", "CPU quota", "owner", "arithmetic", "instructions"} <= set(lines)
    assert lines["detection"].startswith("tried: openvino, ")
    # A machine that gives it no core may show it at rest.
    assert re.search("1 granted to a worker, [01] busy at once", lines["threads"])
    assert "opencv 1" in lines["thread caps"]
    assert "no cluster answers" in done.stdout


def test_it_warns_of_more_workers_than_cores(tmp_path: Path) -> None:
    settings = {"DEVICE": "cpu", "SHAPES": '["320x320"]', "WORKERS": "999", "PRECISION": "f32"}
    done = doctor(tmp_path, **{f"SLUICEWAY_DETECTION__{key}": value for key, value in settings.items()})
    assert done.returncode == 0, done.stdout + done.stderr
    assert "999 workers x 1 threads on" in done.stdout
    assert "they take turns" in done.stdout


def test_a_worker_that_runs_too_many_threads_is_a_fault(tmp_path: Path) -> None:
    config = tmp_path / "mine.toml"
    config.write_text('[detection]\ndevice = "cpu"\ndetector = "thread_models:SpinningDetector"\nworkers = 2\n')
    done = doctor(tmp_path, "--config", str(config), SLUICEWAY_DETECTION__THREADS_PER_WORKER="1")
    assert done.returncode == 1
    # Its own and three that spin; a look between two of its own computations misses one.
    assert re.search("keeps [34] threads busy at once where 1 may be", done.stdout)
    quick = doctor(tmp_path, "--config", str(config), "--no-trial")
    assert quick.returncode == 0
    assert "busy" not in quick.stdout
