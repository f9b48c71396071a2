"""A wheel with weights in it, made here, and the registry that knows it."""

from __future__ import annotations

import base64
import hashlib
import textwrap
import zipfile
from pathlib import Path

import pytest
from sluiceway_runtime.weights import download, store
from sluiceway_runtime.weights.registry import Registry, parse_registry

__all__ = [
    "CHARACTERS",
    "CHECKPOINT",
    "EXPORTER",
    "IMAGE",
    "MODEL",
    "contents",
    "count_downloads",
    "make_registry",
    "make_wheel",
    "sha256",
]


MODEL = b"onnx bytes " * 1000
CHARACTERS = b"character_dict: [a, b]\n"
CHECKPOINT = b"checkpoint"
IMAGE = b"\x89PNG picture"
EXPORTER = textwrap.dedent(
    """
    import pathlib, sys
    pathlib.Path(sys.argv[2]).write_bytes(pathlib.Path(sys.argv[1]).read_bytes().upper())
    """
)


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


def count_downloads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    calls: list[str] = []

    def counted(package: str, *args: object) -> Path:
        calls.append(package)
        return download.download_wheel(package, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(store, "download_wheel", counted)
    return calls
