"""What images are made of, and how a release says that it was made. No engine is needed: one stands in."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENTS = ROOT / "deploy" / "docker" / "requirements"
BASE, DIGEST = "python:3.11-slim-bookworm", "sha256:" + "ab" * 32
DOCKER = r"""#!/bin/sh
case "$*" in
  "image inspect BASE --format {{json .}}") cat "$FOLDER/image.json" ;;
  "image inspect BASE") test -e "$FOLDER/pulled" ;;
  "pull --quiet BASE") touch "$FOLDER/pulled" ;;
  run*) printf 'installed\tlibc6\t2.36-9+deb12u14\tamd64\nconfig-files\tapt\t2.6.1\tamd64\n' ;;
  *) exit 1 ;;
esac
"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def scripts() -> Any:
    """The modules of deploy/, which are in no package."""
    sys.path.insert(0, str(ROOT / "deploy"))
    try:
        import provenance
        import sbom

        yield provenance, sbom
    finally:
        sys.path.pop(0)


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    program = tmp_path / "docker"
    program.write_text(DOCKER.replace("BASE", BASE))
    program.chmod(0o755)
    monkeypatch.setenv("FOLDER", str(tmp_path))
    return program


@pytest.mark.parametrize("name", ["orchestrator", "detection"])
def test_a_bill_of_materials_has_all_that_is_pinned(
    scripts: tuple[ModuleType, ModuleType], docker: Path, name: str
) -> None:
    _, sbom = scripts
    document = json.loads(sbom.sbom(name, docker=str(docker), image=f"sluiceway/{name}:0.1.0"))
    found = {component["name"].lower(): component for component in document["components"]}
    pinned = dict(re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", (REQUIREMENTS / f"{name}.txt").read_text(), re.MULTILINE))
    assert len(pinned) > 20
    assert {package: found[package]["version"] for package in pinned} == pinned
    assert all(found[package]["purl"] == f"pkg:pypi/{package}@{version}" for package, version in pinned.items())
    # What the distribution has removed is not in the image.
    assert found["libc6"]["purl"] == "pkg:deb/debian/libc6@2.36-9+deb12u14?arch=amd64"
    assert "apt" not in found
    models = [item for item in document["components"] if item["type"] == "machine-learning-model"]
    assert len(models) == (0 if name == "orchestrator" else 1)
    assert all(len(model["hashes"][0]["content"]) == 64 for model in models)


def test_a_document_that_is_none_is_refused(
    scripts: tuple[ModuleType, ModuleType], docker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, sbom = scripts
    monkeypatch.setattr(sbom, "weights", lambda *_: [{"type": "cloud", "bom-ref": "a", "name": "b"}])
    with pytest.raises(ValueError, match=r"detection: .*cloud"):
        sbom.sbom("detection", docker=str(docker))


@pytest.mark.parametrize("pulled", [True, False])
def test_images_are_built_on_a_digest_where_there_is_one(
    scripts: tuple[ModuleType, ModuleType], docker: Path, tmp_path: Path, *, pulled: bool
) -> None:
    provenance, _ = scripts
    (tmp_path / "image.json").write_text(json.dumps({"Id": "sha256:own", "RepoDigests": [f"python@{DIGEST}"]}))
    if pulled:
        (tmp_path / "pulled").touch()
    base = provenance.base_image(str(docker), BASE)
    assert base == provenance.Base(f"{BASE}@{DIGEST}", DIGEST, pinned=True)
    assert (tmp_path / "pulled").exists()
    # One that is named by its digest is taken as it is.
    assert provenance.base_image("false", f"{BASE}@{DIGEST}") == base


def test_a_base_that_no_registry_has_is_told_by_its_own_digest(
    scripts: tuple[ModuleType, ModuleType], docker: Path, tmp_path: Path
) -> None:
    provenance, _ = scripts
    (tmp_path / "pulled").touch()
    (tmp_path / "image.json").write_text(json.dumps({"Id": "sha256:own", "RepoDigests": []}))
    assert provenance.base_image(str(docker), BASE) == provenance.Base(BASE, "sha256:own", pinned=False)
    with pytest.raises(SystemExit, match="there is no base image nothing:1, and it cannot be pulled"):
        provenance.base_image(str(docker), "nothing:1")


def test_a_statement_names_what_was_made_and_of_what(scripts: tuple[ModuleType, ModuleType], tmp_path: Path) -> None:
    provenance, _ = scripts
    wheel = tmp_path / "a.whl"
    wheel.write_bytes(b"wheel")
    base = provenance.Base(f"{BASE}@{DIGEST}", DIGEST, pinned=True)
    told = json.loads(provenance.statement([wheel], base, {"images": "cpu"}, "0.1.0"))
    assert told["subject"] == [{"name": "a.whl", "digest": {"sha256": hashlib.sha256(b"wheel").hexdigest()}}]
    definition = told["predicate"]["buildDefinition"]
    assert definition["externalParameters"] == {"version": "0.1.0", "images": "cpu"}
    materials = {item["name"]: item["digest"] for item in definition["resolvedDependencies"]}
    assert materials[f"{BASE}@{DIGEST}"] == {"sha256": DIGEST.removeprefix("sha256:")}
    assert re.fullmatch("[0-9a-f]{40}", materials["source"]["gitCommit"])
    lock = "deploy/docker/requirements/detection.txt"
    assert materials[lock] == {"sha256": hashlib.sha256((ROOT / lock).read_bytes()).hexdigest()}
