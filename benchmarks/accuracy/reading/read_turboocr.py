"""TurboOCR on its OpenVINO engine, with model files of a folder, turned lines by its classifier, on one core.

    python read_turboocr.py '{"models": "FOLDER"}'

It turns pages as well, with a further model that none of the packages holds: that is left out.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from protocol import serve

# It has no number of threads to set, and takes as many as there are cores.
os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})

from turboocr_engine import OCR  # noqa: E402 - it looks at the cores as it is imported


def main() -> None:
    """Read what is asked for."""
    models = json.loads(sys.argv[1])["models"]
    engine = OCR(
        "tiny", "openvino", models_dir=models, device="CPU", use_cls=True, allow_download=False, keep_image=False
    )

    def read(path: str, _again: bool) -> dict[str, Any]:
        return {"lines": [line.text for line in engine.read(path).lines]}

    serve(read)


if __name__ == "__main__":
    main()
