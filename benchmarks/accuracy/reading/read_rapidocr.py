"""RapidOCR with its defaults (PP-OCRv6 small by ONNX Runtime, turned lines by its classifier), on one thread."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from protocol import serve

__all__ = ["engine_of"]

ONE_THREAD = {
    "EngineConfig.onnxruntime.intra_op_num_threads": 1,
    "EngineConfig.onnxruntime.inter_op_num_threads": 1,
    "EngineConfig.openvino.inference_num_threads": 1,
}


def engine_of(params: dict[str, Any]) -> Callable[[str | bytes], list[str]]:
    """From a path, or the bytes of a file, to lines; `params` are RapidOCR's own."""
    from rapidocr import RapidOCR

    engine = RapidOCR(params={"Global.log_level": "error", **params})
    return lambda source: list(engine(source).txts or ())


def main() -> None:
    """Read what is asked for."""
    read = engine_of(ONE_THREAD)
    serve(lambda path, _again: {"lines": read(path)})


if __name__ == "__main__":
    main()
