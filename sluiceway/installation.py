"""How Sluiceway was installed, and so what installs more of it: for messages that name a command."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from urllib.parse import unquote, urlsplit

__all__ = ["install_command"]

NAME = "sluiceway"


def install_command(extra: str, *, found: Distribution | None = None, python: Path | None = None) -> str:
    """The command that installs an extra in the way that Sluiceway itself was installed here.

    Args:
        extra: for example `cpu`.
        found: what is installed; looked up if it is left out.
        python: the interpreter of the environment; the one that runs if it is left out.
    """
    if found is None:
        try:
            found = distribution(NAME)
        except PackageNotFoundError:
            # Run from sources on the path: there is nothing to add an extra to.
            return f"pip install '{NAME}[{extra}]'"
    installer = _installer((found.read_text("INSTALLER") or "").strip(), python or Path(sys.executable))
    return f"{installer} install {_requirement(extra, found)}"


def _installer(wrote: str, python: Path) -> str:
    if wrote == "uv":
        return f"uv pip --python {shlex.quote(str(python))}" if shutil.which("uv") else f"{_quoted(python)} -m pip"
    # The pip that answers to its name, if that is the one of this environment.
    named = shutil.which("pip")
    return "pip" if named and Path(named).parent == python.parent else f"{_quoted(python)} -m pip"


def _requirement(extra: str, found: Distribution) -> str:
    """What to install: where it came from, as the installer wrote it down (PEP 610)."""
    try:
        origin = json.loads(found.read_text("direct_url.json") or "{}")
        url, editable = str(origin.get("url", "")), bool(origin.get("dir_info", {}).get("editable", False))
    except (ValueError, AttributeError):
        url, editable = "", False
    if not url:
        return f"'{NAME}[{extra}]'"
    parts = urlsplit(url)
    if parts.scheme != "file":
        return f"'{NAME}[{extra}] @ {url}'"
    place = unquote(parts.path)
    return f"{'--editable ' if editable else ''}{shlex.quote(f'{place}[{extra}]')}"


def _quoted(python: Path) -> str:
    return shlex.quote(str(python))
