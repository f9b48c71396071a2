"""Takes this comparison to a machine with a GPU and no network: Python 3.12 with torch for CUDA, and nothing of ours.

    python benchmarks/peers/pack.py                                  here: build/peers-pack/part-0, part-1, ...
    python3 benchmarks/peers/pack.py --unpack FOLDER --to /tmp/peers there, with all parts in FOLDER, in a checkout
    PYTHONPATH=/tmp/peers/site/base SLUICEWAY_CACHE=/tmp/peers/cache \\
        python3 benchmarks/peers/run.py --gpu --packed /tmp/peers/site --work /tmp/peers/work

Parts are small enough for machines that take files of some size only. The one that measures needs torch, aiohttp,
grpcio's needs, numpy, opencv-python-headless, pillow, psutil, PyYAML, safetensors, threadpoolctl, prometheus-client,
typer and rich of its own; all else comes along. A contestant has a folder of packages of its own, and the base.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

__all__ = ["PACKED", "main"]

LITSERVE = (
    "litserve==0.2.19", "fastapi==0.165.0", "starlette==1.10.0", "uvicorn==0.54.0", "python-multipart==0.0.34",
    "pyzmq==27.3.0",
    "opentelemetry-api==1.45.2", "httptools==0.9.0",
)  # fmt: skip
# By folder: packages with all that they need and the machine lacks.
PACKED: dict[str, tuple[str, ...]] = {
    "base": (
        "annotated-types==0.8.0", "googleapis-common-protos==1.76.0", "grpcio==1.85.3",
        "grpcio-health-checking==1.85.1",
        "grpcio-reflection==1.85.1", "grpcio-status==1.85.3", "hdrhistogram==0.10.8", "openvino==2026.4.0",
        "openvino-telemetry==2025.2.0", "pbr==7.1.3", "protobuf==7.36.2", "pydantic==2.12.5", "pydantic-core==2.41.5",
        "pypdfium2==5.15.2", "typing-inspection==0.4.5",
    ),
    "litserve": LITSERVE,
    "litserve-ultralytics": (*LITSERVE, "ultralytics==8.4.190", "ultralytics-thop==2.2.3"),
    "mosec": ("mosec==0.9.8", "msgspec==0.23.0", "defspec==0.7.1", "offapi==0.1.4"),
}  # fmt: skip
MODELS = {"detection": ("text-small",), "recognition": ("ppocrv5-mobile",)}
SAMPLES = ("bus.jpg", "page.png")
GLIBC = ("28", "27", "26", "24", "17", "5")
PART_BYTES = 44 * 2**20


def pack(to: Path) -> None:
    """Gather packages, weights and pictures, and cut them into parts."""
    sys.path[:0] = [str(ROOT / folder) for folder in ("", "services", "orchestrator", "cluster")]
    from sluiceway_runtime import weights

    from benchmarks.peers.contestants import checkpoint_of

    wheels = to / "wheels"
    wheels.mkdir(parents=True, exist_ok=True)
    for requirement in dict.fromkeys(name for names in PACKED.values() for name in names):
        if not _wheel(wheels, requirement):
            _download(requirement, wheels)
    cache = weights.cache_folder()
    folders = [weights.resolve(name, kind=kind).path.parent for kind, names in MODELS.items() for name in names]  # type: ignore[arg-type]
    folders += [path.parent for path in weights.pull_samples(SAMPLES).values()]
    archive = to / "pack.tar"
    with tarfile.open(archive, "w") as tar:
        for requirement in dict.fromkeys(name for names in PACKED.values() for name in names):
            (wheel,) = _wheel(wheels, requirement)
            tar.add(wheel, f"wheels/{wheel.name}")
        for folder in folders:
            tar.add(folder, f"cache/{folder.relative_to(cache)}")
        for name in MODELS["detection"]:
            checkpoint = checkpoint_of(name, to)
            tar.add(checkpoint.parent, f"work/checkpoints/{checkpoint.parent.name}")
    for old in to.glob("part-*"):
        old.unlink()
    with archive.open("rb") as whole:
        number = 0
        while data := whole.read(PART_BYTES):
            (to / f"part-{number}").write_bytes(data)
            number += 1
    archive.unlink()
    print(f"{number} parts in {to}")


def unpack(parts: Path, to: Path) -> None:
    """Put everything in its place: site/ with packages by contestant, cache/ with weights, work/."""
    to.mkdir(parents=True, exist_ok=True)
    archive = to / "pack.tar"
    with archive.open("wb") as whole:
        for part in sorted(parts.glob("part-*"), key=lambda path: int(path.name.partition("-")[2])):
            with part.open("rb") as data:
                shutil.copyfileobj(data, whole)
    with tarfile.open(archive) as tar:
        tar.extractall(to, filter="data")
    archive.unlink()
    for folder, names in PACKED.items():
        found = [str(wheel) for name in names for wheel in _wheel(to / "wheels", name)]
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-compile"]
        subprocess.run([*command, "--upgrade", "--target", str(to / "site" / folder), *found], check=True)
        for program in (to / "site" / folder / "bin").glob("mosec"):
            # It looks for its program where Python has its own.
            shutil.copy2(program, Path(sysconfig.get_path("scripts")) / program.name)
    # What an editable installation would leave of this checkout: its servers ask for their own version.
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    facts = to / "site" / "base" / f"sluiceway-{project['version']}.dist-info"
    facts.mkdir(exist_ok=True)
    text = f"Metadata-Version: 2.1\nName: sluiceway\nVersion: {project['version']}\n"
    (facts / "METADATA").write_text(text, encoding="utf-8")
    # Without them its command line knows no `up`.
    sections = [
        f"[{group}]\n" + "".join(f"{name} = {where}\n" for name, where in points.items())
        for group, points in project["entry-points"].items()
    ]
    (facts / "entry_points.txt").write_text("\n".join(sections), encoding="utf-8")
    print(f"unpacked into {to}")


def _wheel(folder: Path, requirement: str) -> list[Path]:
    name, _, number = requirement.partition("==")
    return list(folder.glob(f"{name.replace('-', '_')}-{number}-*.whl"))


def _download(requirement: str, to: Path) -> None:
    platforms = [f"--platform=manylinux_2_{number}_x86_64" for number in GLIBC]
    platforms += ["--platform=manylinux2014_x86_64", "--platform=manylinux1_x86_64", "--platform=any"]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    target = ["--python-version=3.12", "--implementation=cp", "--abi=cp312", "--abi=abi3", "--abi=none"]
    subprocess.run([*command, *target, *platforms, "--dest", str(to), requirement], check=True)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--unpack", type=Path, metavar="FOLDER", help="that has the parts")
    parser.add_argument("--to", type=Path, default=ROOT / "build" / "peers-pack")
    told = parser.parse_args(arguments)
    if told.unpack:
        unpack(told.unpack, told.to)
    else:
        pack(told.to)
    return 0


if __name__ == "__main__":
    sys.exit(main())
