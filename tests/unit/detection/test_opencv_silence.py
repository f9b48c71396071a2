"""OpenCV writes nothing of the images that workers read, whichever release it is."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from sluiceway_detection.worker import handler


@pytest.mark.parametrize("release", [4, 5])
def test_every_release_is_silenced(release: int, monkeypatch: pytest.MonkeyPatch) -> None:
    levels: list[int] = []
    switch = SimpleNamespace(setLogLevel=levels.append)
    four = SimpleNamespace(utils=SimpleNamespace(), setLogLevel=levels.append)
    five: Any = SimpleNamespace(utils=SimpleNamespace(logging=switch))
    monkeypatch.setattr(handler, "cv2", four if release == 4 else five)
    handler.silence_opencv()
    assert levels == [0]
