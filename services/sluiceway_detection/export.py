"""Checkpoints (`.pt`) of ultralytics: their conversion to ONNX, and loading them as they are.

The only module that imports ultralytics, which is AGPL-3.0 and an optional extra (`sluiceway[export]`). A checkpoint
is a pickle: loading one runs whatever code is in it, so only load what you trust.

    python -m sluiceway_detection.export best.pt best.onnx
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sluiceway_runtime.errors import StartupError

__all__ = ["export_checkpoint", "load_checkpoint"]

# Classifiers are for a recognition stage.
_EXPORTED_TASKS = ("detect", "obb", "segment", "pose", "classify")
_OPSET = 17  # read by every OpenVINO and ONNX Runtime that we accept
# The day of the export and the path of somebody's training data: without them, equal checkpoints give equal files.
_VOLATILE_METADATA = ("date", "description")


def export_checkpoint(source: Path, target: Path) -> None:
    """Convert a checkpoint to ONNX with dynamic batch, height and width.

    Dynamic, so that a server can fix it to the shapes it wants (640x480 costs three quarters of 640x640); fixing gives
    the graph that a static export would have given. Of a model with two heads the classic one is taken: the NMS-free
    one has its number of regions built in, 300, which is too few for a dense page.

    Args:
        source: the checkpoint. Trusted: see above.
        target: the ONNX file, written only when it is complete.

    Raises:
        StartupError: ultralytics is missing, the checkpoint cannot be loaded, or it is for another task.
    """
    yolo = _open(source, _EXPORTED_TASKS)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".export-") as folder:
        # ultralytics writes beside the checkpoint, which may be read-only or somebody else's.
        copy = Path(shutil.copy(source, Path(folder) / "model.pt"))
        yolo.ckpt_path = yolo.model_name = str(copy)
        yolo.model.pt_path = str(copy)
        written = yolo.export(format="onnx", dynamic=True, simplify=False, opset=_OPSET, device="cpu", verbose=False)
        _drop_volatile_metadata(Path(written))
        Path(written).replace(target)


def load_checkpoint(source: Path) -> Any:
    """Load a checkpoint of task detect as a `torch.nn.Module`, fused, in evaluation mode, float32, on the CPU.

    Raises:
        StartupError: as `export_checkpoint`.
    """
    return _open(source, ("detect",)).model.float().fuse(verbose=False).eval()


def _open(source: Path, tasks: Sequence[str]) -> Any:
    # ultralytics would otherwise install packages, look for updates, and pull what it misses.
    os.environ.update(YOLO_AUTOINSTALL="false", YOLO_OFFLINE="true", YOLO_VERBOSE="false")
    try:
        from ultralytics import YOLO  # noqa: PLC0415 - an optional extra
    except ImportError as error:
        raise StartupError(f"{source.name} is a checkpoint; reading it needs sluiceway[export] ({error})") from error
    try:
        yolo = YOLO(str(source))
    except Exception as error:  # unpickling may raise anything
        raise StartupError(f"{source.name} cannot be loaded as an ultralytics checkpoint: {error}") from error
    if yolo.task not in tasks:
        raise StartupError(f"{source.name}: task {yolo.task!r} is not served; tasks that are: {', '.join(tasks)}")
    return yolo


def _drop_volatile_metadata(path: Path) -> None:
    import onnx  # noqa: PLC0415 - an optional extra

    model = onnx.load(path)
    kept = {item.key: item.value for item in model.metadata_props if item.key not in _VOLATILE_METADATA}
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, dict(sorted(kept.items())))
    onnx.save(model, path)


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m sluiceway_detection.export",
        description="Convert an ultralytics detection checkpoint to ONNX. Loading one runs code that is in it.",
    )
    parser.add_argument("source", type=Path, help="checkpoint, .pt")
    parser.add_argument("target", type=Path, help="ONNX file to write")
    options = parser.parse_args(arguments)
    try:
        export_checkpoint(options.source, options.target)
    except (StartupError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
