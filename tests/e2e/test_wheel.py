"""The built wheel in an empty environment, outside the checkout, runs what `make demo` runs."""

from __future__ import annotations

import os
import subprocess
import sys
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


def test_the_wheel_alone_runs_the_demo(tmp_path: Path) -> None:
    call(sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", tmp_path, ROOT, cwd=tmp_path)
    (wheel,) = tmp_path.glob("sluiceway-*.whl")
    venv.create(tmp_path / "env", with_pip=True)
    python, sluiceway = tmp_path / "env/bin/python", tmp_path / "env/bin/sluiceway"
    call(python, "-m", "pip", "install", "--quiet", "--no-compile", f"{wheel}[cpu]", cwd=tmp_path)
    where = call(python, "-c", "import sluiceway, sluiceway_runtime; print(sluiceway.__file__)", cwd=tmp_path)
    assert where.startswith(str(tmp_path))
    page = (
        "from sluiceway_orchestrator.http.page.files import page_routes; print(*(item.path for item in page_routes()))"
    )
    assert {"/", "/page/app.js", "/page/style.css"} <= set(call(python, "-c", page, cwd=tmp_path).split())
    call(sluiceway, "models", "pull", "--defaults", cwd=tmp_path)
    call(sluiceway, "samples", "pull", "bus.jpg", "page.png", "--to", "samples", cwd=tmp_path)
    said = call(sluiceway, "run", "samples/bus.jpg", "samples/page.png", "--out", "annotated", cwd=tmp_path)
    assert "segmentation" in said
    assert "emisiones" in said
    assert sorted(path.name for path in (tmp_path / "annotated").iterdir()) == ["bus.jpg", "page.png"]


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
    assert "pip install 'sluiceway[cpu]'" in done.stderr
