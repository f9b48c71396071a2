"""Make text-nano in one command: gather the corpus, distil, export. Any CUDA machine with the packages of packages.txt.

    python -m training.text_detector --work build/detector --minutes 16

Finished steps are kept: a second call goes on where the first stopped.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

_TEACHER = "netra-ocr==1.1.0"
_TEACHER_MEMBER = "netra_ocr/detectors/yolo26s_best/best.pt"
_TEACHER_SHA256 = "21090f47d8318b083418585fcb32e4c6fd5008f8d7adbd1b08849270cd117c61"


def fetch_teacher(folder: Path) -> Path:
    """The checkpoint of text-small, through pip and checked: it is a pickle, so only these very bytes may be opened."""
    target = folder / "teacher.pt"
    if not target.exists():
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", str(folder), _TEACHER]
        subprocess.run(command, check=True)
        with zipfile.ZipFile(next(folder.glob("netra_ocr-*.whl"))) as wheel:
            target.write_bytes(wheel.read(_TEACHER_MEMBER))
    return checked(target, _TEACHER_SHA256)


def checked(path: Path, sha256: str) -> Path:
    """`path`, if its bytes have this hash.

    Raises:
        SystemExit: they have another.
    """
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != sha256:
        raise SystemExit(f"{path}: SHA-256 {found}, expected {sha256}")
    return path


def steps(arguments: argparse.Namespace, teacher: Path) -> list[tuple[Path, list[str]]]:
    """What each step writes, and its module with arguments."""
    work: Path = arguments.work
    corpus, run = work / "corpus", work / "run"
    gather = ["corpus", "--out", str(corpus), "--root", str(arguments.root)]
    if arguments.skimage:
        gather += ["--skimage", str(arguments.skimage)]
    train = ["train", "--corpus", str(corpus), "--teacher", str(teacher), "--out", str(run)]
    train += ["--minutes", str(arguments.minutes), "--batch", "64", "--lr", "2e-3", "--real-share", "0.55"]
    train += ["--seed", str(arguments.seed)]
    export = ["export", "--student", str(run / "student.pt"), "--out", str(arguments.out)]
    return [(corpus / "photos", gather), (run / "finished", train), (arguments.out, export)]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--work", type=Path, default=Path("build/text_detector"), help="corpus, teacher and run go here"
    )
    parser.add_argument("--out", type=Path, help="the ONNX file; WORK/text-nano.onnx")
    parser.add_argument("--root", type=Path, default=Path("/"), help="where the packages of packages.txt are installed")
    parser.add_argument("--skimage", type=Path, help="scikit-image's data folder, for its photographs")
    parser.add_argument("--minutes", type=float, default=16.0)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    arguments.out = arguments.out or arguments.work / "text-nano.onnx"
    arguments.work.mkdir(parents=True, exist_ok=True)
    for written, (module, *options) in steps(arguments, fetch_teacher(arguments.work)):
        if written.exists():
            print(f"{module}: {written} is there already", flush=True)
            continue
        subprocess.run([sys.executable, "-m", f"training.text_detector.{module}", *options], check=True)
    print(f"{arguments.out}: measure it with agreement, reading and speed (README.md)")


if __name__ == "__main__":
    main()
