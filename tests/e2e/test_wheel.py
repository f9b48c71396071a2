"""The client alone in an empty environment; `tests/deploy/test_release.py` has the whole of it."""

from __future__ import annotations

import os
import subprocess
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def call(*command: object, cwd: Path) -> str:
    variables = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env=variables, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_client_alone_needs_no_server_library(tmp_path: Path) -> None:
    venv.create(tmp_path / "env", with_pip=True)
    python, sluiceway = tmp_path / "env/bin/python", tmp_path / "env/bin/sluiceway"
    call(python, "-m", "pip", "install", "--quiet", "--no-compile", ROOT, cwd=tmp_path)
    call(python, "-c", "import sluiceway; sluiceway.Client('localhost:1').close()", cwd=tmp_path)
    call(sluiceway, "run", "--help", cwd=tmp_path)
    listed = call(sluiceway, "--help", cwd=tmp_path)
    assert " run " in listed
    assert " doctor " not in listed, "commands about servers are for those who have some"
    done = subprocess.run([sluiceway, "up"], capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path)
    assert done.returncode == 2
    assert "[cpu]" in done.stderr
