"""The image archives of a release, loaded by a Docker engine as docs/docker.md says, run without anything being built.

Needs a Docker engine on this machine with compose and buildx.
"""

from __future__ import annotations

import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
from compose_stack import ADDRESS, ROOT, Compose, replicas
from docker.errors import ImageNotFound

from sluiceway.client import Client

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
IMAGES = ("orchestrator", "detection", "recognition-cpu")


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("release") / "dist"
    command = [sys.executable, str(ROOT / "deploy" / "release.py"), "--to", str(folder), "--images", "cpu"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture
def stack() -> Iterator[Compose]:
    compose = Compose(SLUICEWAY_VERSION=VERSION)
    compose.down()
    yield compose
    compose.down()


def test_archives_are_loaded_and_run(release: Path, stack: Compose, engine: docker.DockerClient, photo: bytes) -> None:
    archives = {name: release / f"sluiceway-{name}-{VERSION}.tar.gz" for name in IMAGES}
    sums = subprocess.run(
        ["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=release, capture_output=True, check=False
    )
    assert sums.returncode == 0, sums.stdout + sums.stderr
    built = {name: engine.images.get(f"sluiceway/{name}:{VERSION}").id for name in IMAGES}
    # On the machine of a user there is no image of ours.
    for name in IMAGES:
        engine.images.remove(f"sluiceway/{name}:{VERSION}", force=True)
        with pytest.raises(ImageNotFound):
            engine.images.get(f"sluiceway/{name}:{VERSION}")
    for name, archive in archives.items():
        done = subprocess.run(["docker", "load", "--input", archive], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert f"Loaded image: sluiceway/{name}:{VERSION}" in done.stdout
        assert engine.images.get(f"sluiceway/{name}:{VERSION}").id == built[name]
    stack("up", "--no-build", "--detach", "--wait")
    for service in ("orchestrator", "detection", "recognition"):
        [container] = replicas(engine, service)
        assert container.image.labels["org.opencontainers.image.version"] == VERSION
    with Client(ADDRESS) as client:
        result = client.process(photo)
        assert client.describe().server_version == VERSION
    assert "emisiones" in result.text
