"""RapidOCR with its defaults (PP-OCRv6 small by ONNX Runtime, turned lines by its classifier), on one thread."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from protocol import serve
from rapidocr import RapidOCR


def main() -> None:
    """Read what is asked for."""
    engine = RapidOCR(
        params={
            "Global.log_level": "error",
            "EngineConfig.onnxruntime.intra_op_num_threads": 1,
            "EngineConfig.onnxruntime.inter_op_num_threads": 1,
        }
    )

    def read(path: str, _again: bool) -> dict[str, Any]:
        return {"lines": list(engine(path).txts or ())}

    serve(read)


if __name__ == "__main__":
    main()
