"""One version number: every place agrees with pyproject.toml, and one command writes a new one everywhere."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[3]


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, and a copy of all that it looks at."""
    spec = importlib.util.spec_from_file_location("version", ROOT / "deploy" / "version.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for pattern in ("pyproject.toml", *(pattern for pattern, _ in module.PLACES)):
        found = list(ROOT.glob(pattern))
        assert found, pattern
        for path in found:
            copy = tmp_path / path.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "PROJECT", tmp_path / "pyproject.toml")
    return module


def test_every_place_has_the_version_of_the_project(places: ModuleType) -> None:
    assert places.faults() == []


def test_a_new_version_is_written_everywhere(places: ModuleType, tmp_path: Path) -> None:
    old = places.version()
    places.write("7.8.9rc1")
    assert (places.version(), places.faults()) == ("7.8.9rc1", [])
    for pattern, _ in places.PLACES:
        for path in tmp_path.glob(pattern):
            assert old not in path.read_text("utf-8"), path


def test_a_place_that_was_forgotten_is_named(places: ModuleType, tmp_path: Path) -> None:
    chart = tmp_path / "deploy/helm/sluiceway/Chart.yaml"
    chart.write_text(chart.read_text("utf-8").replace("\nversion: ", "\nversion: 9."), "utf-8")
    (fault,) = places.faults()
    assert fault.startswith("deploy/helm/sluiceway/Chart.yaml: ")
    (tmp_path / "docker-compose.yml").write_text("services: {}\n", "utf-8")
    assert "docker-compose.yml: no version, not " + places.version() in places.faults()
