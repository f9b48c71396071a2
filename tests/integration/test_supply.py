"""What goes in: pinned with hashes, its licence known, and no pickle loaded that the operator has not named."""

from __future__ import annotations

import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
REQUIREMENTS = sorted((ROOT / "deploy" / "docker" / "requirements").glob("*.txt"))


@pytest.mark.parametrize("file", REQUIREMENTS, ids=lambda file: file.stem)
def test_every_dependency_of_an_image_is_pinned_with_hashes(file: Path) -> None:
    text = file.read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    assert len(lines) > 3
    for line in lines:
        assert re.match(r"[A-Za-z0-9._-]+==\S+ ", line), line
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", line), line


def test_images_install_nothing_without_hashes() -> None:
    dockerfile = (ROOT / "deploy" / "docker" / "Dockerfile").read_text().replace("\\\n", " ")
    installs = re.findall(r"\bpip\b[^&\n]*\binstall\b[^&\n]*", dockerfile)
    assert len(installs) >= 5
    for install in installs:
        # The one exception is our own wheel, built from the sources beside it, with no index to fall back on.
        assert "--require-hashes" in install or "--no-deps --no-index" in install, install


def test_the_licence_of_everything_in_the_images_is_listed() -> None:
    checked = subprocess.run(
        [sys.executable, ROOT / "deploy" / "licences.py", "--check"], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stderr


class Payload:
    """A pickle that does something when it is loaded."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (self._path,)


@pytest.mark.parametrize("allowed", ["", '["another.pt"]'], ids=["none allowed", "another allowed"])
def test_a_pickle_is_refused_by_the_server_and_not_loaded(allowed: str, tmp_path: Path) -> None:
    proof = tmp_path / "proof"
    checkpoint = tmp_path / "model.pt"
    checkpoint.write_bytes(pickle.dumps(Payload(str(proof))))
    environment = os.environ | {
        "SLUICEWAY_DETECTION__MODEL": str(checkpoint),
        "SLUICEWAY_DETECTION__PORT": "0",
        "SLUICEWAY_DETECTION__OPERATIONS_PORT": "0",
        "SLUICEWAY_DETECTION__WORKERS": "1",
    }
    if allowed:
        environment["SLUICEWAY_DETECTION__ALLOW_PICKLE"] = allowed
    server = subprocess.run(
        [sys.executable, "-m", "sluiceway_detection"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert server.returncode in (1, 2), server.stderr
    assert "model.pt" in server.stderr
    assert "allow_pickle" in server.stderr
    assert "Traceback" not in server.stderr
    assert not proof.exists(), "the pickle was loaded"
    pickle.loads(checkpoint.read_bytes())
    assert proof.exists(), "the pickle proves nothing"
