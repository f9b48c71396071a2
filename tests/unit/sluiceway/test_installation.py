"""Advice on installing names a command that works for how Sluiceway was installed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from sluiceway import installation
from sluiceway.installation import install_command


class Installed:
    """What an installer wrote down."""

    def __init__(self, installer: str, origin: Any = None) -> None:
        self.files = {"INSTALLER": f"{installer}\n"}
        if origin is not None:
            self.files["direct_url.json"] = origin if isinstance(origin, str) else json.dumps(origin)

    def read_text(self, name: str) -> str | None:
        return self.files.get(name)


WHEEL = {"url": "file:///srv/my%20wheels/sluiceway-1.0-py3-none-any.whl", "archive_info": {}}


@pytest.mark.parametrize(
    ("origin", "requirement"),
    [
        (None, "'sluiceway[cpu]'"),
        (WHEEL, "'/srv/my wheels/sluiceway-1.0-py3-none-any.whl[cpu]'"),
        ({"url": "file:///src/sluiceway", "dir_info": {"editable": True}}, "--editable '/src/sluiceway[cpu]'"),
        ({"url": "file:///src/sluiceway", "dir_info": {}}, "'/src/sluiceway[cpu]'"),
        ({"url": "https://e.org/s.whl", "archive_info": {}}, "'sluiceway[cpu] @ https://e.org/s.whl'"),
        ("no JSON", "'sluiceway[cpu]'"),
        ("[]", "'sluiceway[cpu]'"),
    ],
)
def test_what_is_installed_is_where_it_came_from(
    monkeypatch: pytest.MonkeyPatch, origin: Any, requirement: str
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: f"/env/bin/{name}")
    found: Any = Installed("pip", origin)
    assert install_command("cpu", found=found, python=Path("/env/bin/python")) == f"pip install {requirement}"


@pytest.mark.parametrize(
    ("installer", "on_path", "command"),
    [
        ("pip", {"pip": "/env/bin/pip"}, "pip"),
        ("pip", {"pip": "/usr/bin/pip"}, "/env/bin/python -m pip"),
        ("pip", {}, "/env/bin/python -m pip"),
        ("uv", {"uv": "/usr/bin/uv"}, "uv pip --python /env/bin/python"),
        ("uv", {}, "/env/bin/python -m pip"),
        ("", {}, "/env/bin/python -m pip"),
    ],
)
def test_the_installer_is_the_one_of_this_environment(
    monkeypatch: pytest.MonkeyPatch, installer: str, on_path: dict[str, str], command: str
) -> None:
    monkeypatch.setattr(shutil, "which", on_path.get)
    found: Any = Installed(installer)
    assert install_command("gpu", found=found, python=Path("/env/bin/python")) == f"{command} install 'sluiceway[gpu]'"


def test_sources_on_the_path_have_no_installation_to_add_to(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: str) -> None:
        raise installation.PackageNotFoundError

    monkeypatch.setattr(installation, "distribution", missing)
    assert install_command("cpu") == "pip install 'sluiceway[cpu]'"


def test_the_advice_here_names_this_installation() -> None:
    assert "[cpu]" in install_command("cpu")
    assert " install " in install_command("cpu")
