"""What a user is given, in one folder: `python deploy/release.py --to dist`.

Wheel, source distribution, chart package, one archive for each image with its bill of materials, how all of it was made
(provenance), and the checksums. Everything has the version of pyproject.toml, and the times of the last commit, so that
the same sources give the same files (images apart: their layers have times of their own).
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import provenance
import version

ROOT = Path(__file__).resolve().parents[1]
CHART = ROOT / "deploy" / "helm" / "sluiceway"
IMAGES = ("orchestrator", "detection", "recognition-cpu")
GPU_IMAGES = ("detection-gpu", "recognition-gpu")
CHECKSUMS = "SHA256SUMS"
PROVENANCE = "provenance.intoto.json"
BASE = "python:3.11-slim-bookworm"
_CHUNK_BYTES = 2**20
# Of gzip. Images are hundreds of megabytes, and Python's own level, 9, takes three times as long for a hundredth less.
_IMAGE_LEVEL = 6


def main() -> None:
    """Make a release."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", type=Path, default=ROOT / "dist", help="folder, which is emptied first")
    parser.add_argument("--images", choices=("none", "cpu", "all"), default="cpu", help="all has those with CUDA, too")
    parser.add_argument("--base", default=BASE, help="base image; one with a digest is taken as it is")
    parser.add_argument("--docker", default="docker", help="the program that builds images")
    given = parser.parse_args()
    if wrong := version.faults():
        sys.exit("\n".join(["the version is not the same everywhere (python deploy/version.py):", *wrong]))
    images = {"none": (), "cpu": IMAGES, "all": IMAGES + GPU_IMAGES}[given.images]
    if images and not _engine_answers(given.docker):
        sys.exit("no Docker engine answers: start one, or leave the images out with --images none")
    shutil.rmtree(given.to, ignore_errors=True)
    given.to.mkdir(parents=True)
    number, moment = version.version(), commit_time()
    packages(given.to, moment)
    chart(given.to / f"sluiceway-chart-{number}.tgz", moment)
    base = provenance.base_image(given.docker, given.base) if images else None
    if base is not None:
        import sbom  # noqa: PLC0415 - wants the servers' dependencies, which packages alone do not

        for name in images:
            tag = image(given.docker, name, number, given.to, base)
            document = sbom.sbom(name, docker=given.docker, image=tag)
            (given.to / f"sluiceway-{name}-{number}.cdx.json").write_text(document, "utf-8")
    made = [path for path in given.to.iterdir() if not path.name.endswith(".cdx.json")]
    told = provenance.statement(made, base, {"images": given.images}, number)
    (given.to / PROVENANCE).write_text(told, "utf-8")
    checksums(given.to)
    for path in sorted(given.to.iterdir()):
        print(path)


def commit_time() -> int:
    """When the last commit was made, in seconds since 1970."""
    told = os.environ.get("SOURCE_DATE_EPOCH")
    if told is None:
        command = ["git", "-C", str(ROOT), "log", "-1", "--format=%ct"]
        told = subprocess.run(command, check=True, capture_output=True, text=True).stdout  # noqa: S603 - its own words
    return int(told)


def packages(folder: Path, moment: int) -> None:
    """Make the source distribution, and the wheel from it, as an index would get them."""
    command = [sys.executable, "-m", "build", "--outdir", str(folder), str(ROOT)]
    environment = os.environ | {"SOURCE_DATE_EPOCH": str(moment)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # noqa: S603 - likewise
    if done.returncode:
        sys.exit(f"the packages cannot be built:\n{done.stdout}{done.stderr}")


def chart(path: Path, moment: int) -> None:
    """Pack the chart, as `helm package` does."""
    with (
        path.open("wb") as file,
        gzip.GzipFile(fileobj=file, mode="wb", mtime=moment, filename="") as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for source in sorted(item for item in CHART.rglob("*") if item.is_file()):
            content = source.read_bytes()
            entry = tarfile.TarInfo(str(Path(CHART.name) / source.relative_to(CHART)))
            entry.size, entry.mtime, entry.mode = len(content), moment, 0o644
            archive.addfile(entry, io.BytesIO(content))


def image(docker: str, name: str, number: str, folder: Path, base: provenance.Base) -> str:
    """Build an image and pack it, for `docker load`; returns its tag."""
    tag = f"sluiceway/{name}:{number}"
    build = ["build", "--file", str(ROOT / "deploy" / "docker" / "Dockerfile"), "--target", name]
    build += ["--build-arg", f"VERSION={number}", "--build-arg", f"PYTHON_IMAGE={base.reference}"]
    build += ["--label", f"org.opencontainers.image.revision={provenance.revision()}"]
    build += ["--label", f"org.opencontainers.image.base.digest={base.digest}", "--tag", tag, str(ROOT)]
    if subprocess.run([docker, *build], check=False).returncode:  # noqa: S603 - who calls names the engine
        sys.exit(f"{docker} build --target {name} failed")
    path = folder / f"sluiceway-{name}-{number}.tar.gz"
    with subprocess.Popen([docker, "save", tag], stdout=subprocess.PIPE) as saving:  # noqa: S603 - likewise
        assert saving.stdout is not None
        with (
            path.open("wb") as file,
            gzip.GzipFile(fileobj=file, mode="wb", mtime=0, filename="", compresslevel=_IMAGE_LEVEL) as packed,
        ):
            shutil.copyfileobj(saving.stdout, packed, _CHUNK_BYTES)
    if saving.returncode:
        sys.exit(f"{docker} save {tag} failed")
    return tag


def checksums(folder: Path) -> None:
    """Write the checksums of everything in a folder, for `sha256sum --check`."""
    lines = []
    for path in sorted(folder.iterdir()):
        with path.open("rb") as file:
            lines.append(f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {path.name}\n")
    (folder / CHECKSUMS).write_text("".join(lines), "ascii")


def _engine_answers(docker: str) -> bool:
    try:
        return subprocess.run([docker, "info"], capture_output=True, check=False).returncode == 0  # noqa: S603 - likewise
    except OSError:
        return False


if __name__ == "__main__":
    main()
