"""What of Sluiceway is installed: a client alone, or the servers too."""

from __future__ import annotations

import importlib.util
from typing import NoReturn

from sluiceway.cli.terminal import EXIT_USAGE, fail
from sluiceway.installation import install_command

__all__ = ["has_servers", "missing_servers", "require_servers"]

# What only servers import, one for each part of them.
SIGNS = ("pydantic", "aiohttp", "cv2")


def _missing() -> list[str]:
    return [name for name in SIGNS if importlib.util.find_spec(name) is None]


def has_servers() -> bool:
    """Whether the servers' dependencies are installed."""
    return not _missing()


def require_servers(what: str) -> None:
    """End the command with advice if the servers' dependencies are not installed."""
    if missing := _missing():
        missing_servers(what, ", ".join(missing))


def missing_servers(what: str, missing: str) -> NoReturn:
    """End the command with advice: it needs what is not installed."""
    fail(
        f"{what} needs the servers, and only the client is installed ({missing} missing). "
        f"Install them with: {install_command('cpu')}, or name a running cluster with --address",
        EXIT_USAGE,
    )
