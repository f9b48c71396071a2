"""The Python that the documents show does what they say, against the real cluster."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ("README.md", ["Region-based segmentation 0.9", "a.jpg Region-based", "c.jpg Region-based"]),
        ("examples/README.md", ["markers", '{"source": "b.jpg", "status": "ok"', "INVALID_IMAGE"]),
    ],
)
def test_the_first_example_runs(document: str, said: list[str], up: Any, samples: Path, tmp_path: Path) -> None:
    found = re.search(r"```python\n(.*?)```", (ROOT / document).read_text(), re.DOTALL)
    assert found
    for name in ("photo.jpg", "a.jpg", "b.jpg", "c.jpg"):
        shutil.copy(samples / "page.png", tmp_path / name)
    shutil.copy(samples / "notes.txt", tmp_path)
    code = found[1].replace("localhost:50051", up.address)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for text in said:
        assert text in done.stdout, done.stdout
