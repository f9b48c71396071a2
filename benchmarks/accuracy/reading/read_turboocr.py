"""TurboOCR on its OpenVINO engine, with model files of a folder, turned lines by its classifier, on one core.

    python read_turboocr.py '{"models": "FOLDER"}'

It turns pages as well, with a further model that none of the packages holds: that is left out.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from protocol import serve

__all__ = ["engine_of"]


def engine_of(models: str) -> Callable[[Any], list[str]]:
    """From a path, or the bytes of a file, to lines.

    It has no number of threads to set, and takes as many as this process may use when it is imported.
    """
    from turboocr_engine import OCR

    engine = OCR(
        "tiny", "openvino", models_dir=models, device="CPU", use_cls=True, allow_download=False, keep_image=False
    )
    return lambda source: [line.text for line in engine.read(source).lines]


def main() -> None:
    """Read what is asked for."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    read = engine_of(json.loads(sys.argv[1])["models"])
    serve(lambda path, _again: {"lines": read(path)})


if __name__ == "__main__":
    main()
