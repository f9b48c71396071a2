"""What of Sluiceway is installed: a client alone, or the servers too."""

from __future__ import annotations

import importlib.util

from sluiceway.cli.terminal import EXIT_USAGE, fail

__all__ = ["require_servers"]


def require_servers(what: str) -> None:
    """End the command with advice if the servers' dependencies are not installed."""
    missing = [name for name in ("pydantic", "aiohttp", "cv2") if importlib.util.find_spec(name) is None]
    if missing:
        fail(
            f"{what} needs the servers, and only the client is installed ({', '.join(missing)} missing). "
            "Install them with: pip install 'sluiceway[cpu]', or name a running cluster with --address",
            EXIT_USAGE,
        )
