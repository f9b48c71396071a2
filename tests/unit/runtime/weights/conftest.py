"""What pip sees: one wheel, without any index."""

from __future__ import annotations

from pathlib import Path

import pytest
from paper_wheel import (
    CHARACTERS,
    CHECKPOINT,
    IMAGE,
    MODEL,
    make_registry,
    make_wheel,
)
from sluiceway_runtime.weights.registry import Registry


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels that is all that pip can see."""
    folder = tmp_path / "index"
    make_wheel(
        folder,
        {
            "paperweight/rec.onnx": MODEL,
            "paperweight/chars.yml": CHARACTERS,
            "paperweight/best.pt": CHECKPOINT,
            "paperweight/page.png": IMAGE,
        },
    )
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return folder


@pytest.fixture
def registry() -> Registry:
    return make_registry()
