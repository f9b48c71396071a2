"""Whole OCR engines as workers: from an image file to lines."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from settings import Settings

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "accuracy" / "reading"))

__all__ = ["engine_of"]


def engine_of(told: Settings) -> Callable[[bytes], list[str]]:
    """The engine that is asked for, as its documentation writes it or, where workers are pinned, on one thread."""
    files = told.files or {}
    if told.engine == "turboocr":
        from read_turboocr import engine_of as turboocr

        return turboocr(files["models"])
    from rapidocr import EngineType
    from read_rapidocr import ONE_THREAD
    from read_rapidocr import engine_of as rapidocr

    openvino = {f"{step}.engine_type": EngineType.OPENVINO for step in ("Det", "Cls", "Rec")}
    return rapidocr(openvino | (ONE_THREAD if told.pinned else {}))
