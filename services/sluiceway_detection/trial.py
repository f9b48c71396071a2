"""One worker of the detection stage, started as its server would start it, for `sluiceway doctor`.

    python -m sluiceway_detection.trial [--config FILE] [--stage NAME]

Prints what the server would show of it, as JSON. Reads the configuration and the environment, as the server does.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sluiceway_runtime import cores, devices
from sluiceway_runtime.config import load_section, load_stages, read_file
from sluiceway_runtime.errors import ConfigurationError, StartupError
from sluiceway_runtime.server.main import Installation
from sluiceway_runtime.server.security import Security

from sluiceway_detection.config import KIND, DetectionConfig
from sluiceway_detection.front.service import DetectionService

__all__ = ["main", "try_one"]


async def try_one(config: DetectionConfig, installation: Installation) -> Mapping[str, Any]:
    """Start the first worker alone and return the status of its server.

    Raises:
        StartupError: whatever would keep the server from starting.
    """
    placement = cores.plan(config, devices.resolve(config.device))[0]
    # With its own number of threads: one worker alone would get them all.
    one = config.model_copy(update={"workers": 1, "threads_per_worker": placement.threads, "goal": "throughput"})
    service = DetectionService(one, installation)
    try:
        await service.start()
        return service.status()
    finally:
        await service.close()


def main(arguments: list[str] | None = None) -> int:
    """The command line; faults go to stderr, exit code 1."""
    parser = argparse.ArgumentParser(prog="python -m sluiceway_detection.trial", description="Try one worker.")
    parser.add_argument("--config", type=Path)
    parser.add_argument("--stage", default=KIND, help="which one, if not the default stage")
    parsed = parser.parse_args(arguments)
    try:
        tables = read_file(parsed.config)
        known = {name: entry for name, entry in load_stages(tables, os.environ).items() if entry.kind == KIND}
        if parsed.stage not in known:
            raise ConfigurationError(f"stages.{parsed.stage}: is no detection stage; there are {', '.join(known)}")
        config = load_section(DetectionConfig, known[parsed.stage].section, tables=tables, environment=os.environ)
        installation = Installation(tables, Security(), os.environ, stage=parsed.stage)
        status = asyncio.run(try_one(config, installation))
    except StartupError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(json.dumps(status))
    return 0


if __name__ == "__main__":
    sys.exit(main())
