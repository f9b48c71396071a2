"""The weights cache: what is found in it, what is damaged, and what is not there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from paper_wheel import (
    CHARACTERS,
    IMAGE,
    MODEL,
    contents,
    make_registry,
    sha256,
)
from sluiceway_runtime import weights
from sluiceway_runtime.errors import StartupError
from sluiceway_runtime.weights import Progress
from sluiceway_runtime.weights.registry import Registry


def test_pull_then_resolve(index: Path, registry: Registry, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    seen: list[Progress] = []
    weights.pull("reader", seen.append, registry=registry, cache=cache)
    found = weights.resolve("reader", kind="recognition", registry=registry, cache=cache)
    assert (found.name, found.version, found.sha256) == ("reader", "1.2.0", sha256(MODEL))
    assert found.path.read_bytes() == MODEL
    assert found.files["model"] == found.path
    assert found.files["config"].read_bytes() == CHARACTERS
    assert found.metadata == {"licence": "MIT", "source": "s", "height": 48}
    assert seen[0].step == "download"
    assert seen[-1] == Progress("reader", "done")
    assert contents(cache) == {
        "models/reader-1.2.0/rec.onnx",
        "models/reader-1.2.0/chars.yml",
        "models/reader-1.2.0/manifest.json",
        "partial/paperweight-1.2.0.lock",
    }, "the wheel and everything temporary must be gone"


def test_what_is_there_is_not_downloaded_again(index: Path, registry: Registry, tmp_path: Path) -> None:
    weights.pull("reader", registry=registry, cache=tmp_path)
    shutil.rmtree(index)
    seen: list[Progress] = []
    weights.pull("reader", seen.append, registry=registry, cache=tmp_path)
    assert seen == [Progress("reader", "done")]


def test_what_is_there_is_found_in_a_cache_that_cannot_be_written_to(
    index: Path, registry: Registry, tmp_path: Path
) -> None:
    """As where weights lie in an image whose file system is read-only."""
    weights.pull("reader", registry=registry, cache=tmp_path)
    shutil.rmtree(tmp_path / "partial")
    (tmp_path / "partial").write_text("no folder can be made here, whoever runs the test")
    found = weights.resolve("reader", kind="recognition", auto_pull=True, registry=registry, cache=tmp_path)
    assert found.sha256 == sha256(MODEL)


def test_wrong_hash_stores_nothing(index: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    with pytest.raises(StartupError, match="wrong SHA-256"):
        weights.pull("reader", registry=make_registry(model_sha256="0" * 64), cache=cache)
    assert contents(cache) == {"partial/paperweight-1.2.0.lock"}


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "rec.onnx").write_bytes(MODEL[:-1]),
        lambda folder: (folder / "chars.yml").unlink(),
        lambda folder: (folder / "manifest.json").write_text("{"),
        lambda folder: (folder / "manifest.json").write_text("[]"),
        lambda folder: (folder / "manifest.json").write_text(json.dumps({"files": {}})),
    ],
    ids=["truncated model", "missing file", "manifest cut", "manifest of another shape", "manifest empty"],
)
def test_damage_is_found_and_pull_repairs_it(
    damage: Callable[[Path], object], index: Path, registry: Registry, tmp_path: Path
) -> None:
    weights.pull("reader", registry=registry, cache=tmp_path)
    damage(tmp_path / "models" / "reader-1.2.0")
    with pytest.raises(StartupError, match=r"damaged.*sluiceway models pull reader"):
        weights.resolve("reader", kind="recognition", registry=registry, cache=tmp_path)
    weights.pull("reader", registry=registry, cache=tmp_path)
    assert weights.resolve("reader", kind="recognition", registry=registry, cache=tmp_path).path.read_bytes() == MODEL


def test_auto_pull(index: Path, registry: Registry, tmp_path: Path) -> None:
    found = weights.resolve("reader", kind="recognition", registry=registry, cache=tmp_path, auto_pull=True)
    assert found.sha256 == sha256(MODEL)


def test_own_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.onnx"
    path.write_bytes(MODEL)
    found = weights.resolve(str(path), kind="detection")
    assert (found.name, found.version, found.sha256, found.path) == ("mine", "", sha256(MODEL), path)


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("/nowhere/mine.onnx", "detection", "does not exist"),
        ("mine.onnx", "detection", "does not exist"),
        ("nano", "recognition", r"no weights named nano for recognition; there are reader"),
        ("reader", "detection", "are for recognition, not for detection"),
    ],
)
def test_what_cannot_be_resolved(name: str, kind: str, message: str, registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(StartupError, match=message):
        weights.resolve(name, kind=kind, registry=registry, cache=tmp_path)  # type: ignore[arg-type]


def test_unknown_names_are_named_all_at_once(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="no weights named x, y; there are reader, finder"):
        weights.pull(["x", "reader", "y"], registry=registry, cache=tmp_path)


def test_samples(index: Path, registry: Registry, tmp_path: Path) -> None:
    paths = weights.pull_samples(registry=registry, cache=tmp_path)
    assert {name: path.read_bytes() for name, path in paths.items()} == {"page": IMAGE}


def test_cache_folder() -> None:
    assert weights.cache_folder({"SLUICEWAY_CACHE": "/big/disk", "XDG_CACHE_HOME": "/x"}) == Path("/big/disk")
    assert weights.cache_folder({"XDG_CACHE_HOME": "/x"}) == Path("/x/sluiceway")
    assert weights.cache_folder({}) == Path.home() / ".cache" / "sluiceway"


def test_the_registry_of_this_release_is_complete() -> None:
    registry = weights.load_registry()
    assert {"text-small", "coco-v8n", "doclaynet-v8n", "ppocrv6-tiny", "ppocrv5-mobile", "ppocrv6-small"} <= set(
        registry.models
    )
    for entry in [*registry.models.values(), *registry.samples.values()]:
        assert (entry.package is None) != (entry.shipped is None), entry.name
        assert entry.licence, entry.name
        roles = {file.role for file in entry.files} | ({"model"} if entry.convert else set())
        assert entry.main_role in roles, entry.name
        assert all(len(file.sha256) == 64 for file in entry.files), entry.name
