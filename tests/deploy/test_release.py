"""What `make release` makes is what a user can install: each part of it where nothing else is."""

from __future__ import annotations

import gzip
import hashlib
import os
import subprocess
import sys
import tarfile
import tomllib
import venv
from pathlib import Path

import pytest
from chart import CHART, helm

ROOT = Path(__file__).parents[2]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
WHEEL, SDIST = f"sluiceway-{VERSION}-py3-none-any.whl", f"sluiceway-{VERSION}.tar.gz"
PROVENANCE = "provenance.intoto.json"
PACKED_CHART = f"sluiceway-chart-{VERSION}.tgz"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def call(*command: object, cwd: Path, code: int = 0) -> str:
    variables = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env=variables, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def make(folder: Path, *options: object, code: int = 0) -> str:
    return call(sys.executable, ROOT / "deploy" / "release.py", "--to", folder, *options, cwd=folder.parent, code=code)


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release without images."""
    folder = tmp_path_factory.mktemp("release") / "dist"
    make(folder, "--images", "none")
    return folder


def test_everything_has_one_version_and_a_checksum(release: Path) -> None:
    assert {path.name for path in release.iterdir()} == {WHEEL, SDIST, PACKED_CHART, PROVENANCE, "SHA256SUMS"}
    call("sha256sum", "--check", "--strict", "SHA256SUMS", cwd=release)
    assert len((release / "SHA256SUMS").read_text().splitlines()) == 4


def test_the_same_sources_give_the_same_files(release: Path, tmp_path: Path) -> None:
    make(tmp_path / "again", "--images", "none")
    assert (tmp_path / "again" / "SHA256SUMS").read_text() == (release / "SHA256SUMS").read_text()


@pytest.mark.parametrize("archive", [WHEEL, SDIST])
def test_a_package_alone_runs_the_demo(release: Path, tmp_path: Path, archive: str) -> None:
    venv.create(tmp_path / "env", with_pip=True)
    python, sluiceway = tmp_path / "env/bin/python", tmp_path / "env/bin/sluiceway"
    # First the client alone: what it says to install is what is installed next.
    call(python, "-m", "pip", "install", "--quiet", "--no-compile", release / archive, cwd=tmp_path)
    assert " run " in call(sluiceway, "--help", cwd=tmp_path)
    advice = "from sluiceway.installation import install_command; print(install_command('cpu'))"
    command = call(python, "-c", advice, cwd=tmp_path).strip()
    assert str(release / archive) in command
    call("sh", "-c", command.replace(" install ", " install --quiet --no-compile ", 1), cwd=tmp_path)
    where = call(python, "-c", "import sluiceway_runtime; print(sluiceway_runtime.__file__)", cwd=tmp_path)
    assert where.startswith(str(tmp_path))
    page = (
        "from sluiceway_orchestrator.http.page.files import page_routes; print(*(item.path for item in page_routes()))"
    )
    assert {"/", "/page/app.js", "/page/style.css"} <= set(call(python, "-c", page, cwd=tmp_path).split())
    call(sluiceway, "models", "pull", "--defaults", cwd=tmp_path)
    call(sluiceway, "samples", "pull", "bus.jpg", "page.png", "--to", "samples", cwd=tmp_path)
    said = call(sluiceway, "run", "samples/bus.jpg", "samples/page.png", "--out", "annotated", cwd=tmp_path)
    assert "segmentation" in said
    assert "emisiones" in said
    assert sorted(path.name for path in (tmp_path / "annotated").iterdir()) == ["bus.jpg", "page.png"]


def test_the_packed_chart_installs_what_the_checkout_does(release: Path) -> None:
    packed = helm("template", "eye", str(release / PACKED_CHART))
    assert packed.returncode == 0, packed.stderr
    assert packed.stdout == helm("template", "eye", str(CHART)).stdout
    assert f"version: {VERSION}" in helm("show", "chart", str(release / PACKED_CHART)).stdout


STAND_IN = """#!/bin/sh
echo "$@" >> {log}
case "$1" in
  save) printf 'layers of %s' "$2" ;;
  build) test ! -e {fails} ;;
esac
"""


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    """A program in place of Docker's: an engine is not everywhere, and `make test-compose` builds the images."""
    program = tmp_path / "docker"
    program.write_text(STAND_IN.format(log=tmp_path / "calls", fails=tmp_path / "fails"))
    program.chmod(0o755)
    return program


def test_images_are_built_and_packed_under_the_same_version(engine: Path, tmp_path: Path) -> None:
    made = tmp_path / "dist"
    make(made, "--images", "all", "--docker", engine)
    for name in ("orchestrator", "detection", "recognition-cpu", "detection-gpu", "recognition-gpu"):
        with gzip.open(made / f"sluiceway-{name}-{VERSION}.tar.gz") as packed:
            assert packed.read().decode() == f"layers of sluiceway/{name}:{VERSION}"
        assert f"--target {name} --build-arg VERSION={VERSION}" in (tmp_path / "calls").read_text()
    sums = dict(reversed(line.split("  ")) for line in (made / "SHA256SUMS").read_text().splitlines())
    assert len(sums) == 8
    for name, expected in sums.items():
        assert hashlib.sha256((made / name).read_bytes()).hexdigest() == expected


def test_without_an_engine_the_release_says_what_to_do(tmp_path: Path) -> None:
    said = make(tmp_path / "dist", "--docker", tmp_path / "nothing", code=1)
    assert "no Docker engine answers" in said
    assert "--images none" in said
    assert not (tmp_path / "dist").exists()


def test_an_image_that_cannot_be_built_ends_the_release(engine: Path, tmp_path: Path) -> None:
    (tmp_path / "fails").touch()
    make(tmp_path / "dist", "--docker", engine, code=1)
    assert not (tmp_path / "dist" / "SHA256SUMS").exists()


def test_the_source_distribution_has_no_file_of_the_checkout_alone(release: Path) -> None:
    with tarfile.open(release / SDIST) as archive:
        names = archive.getnames()
    assert not [name for name in names if "/tests/" in name or name.endswith((".pyc", ".onnx.partial"))]
    assert any(name.endswith("docs_page.html") for name in names)
