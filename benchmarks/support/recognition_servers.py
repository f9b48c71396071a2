"""Recognition servers of a benchmark."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from stage_process import ANY_PORT, LOG_TAIL, StageProcess, environment

__all__ = ["INSTANT", "Server"]

INSTANT = {"name": "instant", "recognizer": "instant:InstantRecogniser"}
PROGRESS_S = 5.0


class Server:
    """One recognition server and its workers; a context.

    Args:
        models: of the configuration: names, or tables.
        device: `cpu`, `cuda:0` and so on.
        start_timeout_s: to be READY, with everything compiled.
        settings: further keys of the section, as TOML values.
        program: of this folder, run in the place of the server's own.
        variables: of its environment.
        progress: is told what it logs last, every few seconds until it is READY.

    Attributes:
        start_s: how long it took to be READY.

    Resource handling:
        Leaving the context stops it and, if need be, kills it; its workers end with it. It ends with this process, too.
    """

    def __init__(
        self,
        models: Sequence[str | dict[str, Any]],
        *,
        device: str,
        start_timeout_s: float,
        settings: dict[str, str] | None = None,
        program: str = "",
        variables: dict[str, str] | None = None,
        progress: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._models = models
        self._command = [str(Path(__file__).parent / program)] if program else ["-m", "sluiceway_recognition"]
        self._variables = variables or {}
        self._progress = progress
        self._timeout_s = start_timeout_s
        self._settings = {"device": json.dumps(device), "start_timeout_s": str(start_timeout_s), **(settings or {})}
        self._process = StageProcess("recognition")
        self.start_s = 0.0

    @property
    def address(self) -> str:
        """Of its gRPC port."""
        return self._process.address

    @property
    def pid(self) -> int:
        """Of the front."""
        return self._process.pid

    @property
    def workers(self) -> list[int]:
        """Process ids of the workers."""
        return [worker["pid"] for worker in self._process.status["workers"] if worker["pid"]]

    def status(self) -> dict[str, Any]:
        """What it tells operators of itself."""
        return self._process.status

    def metrics(self) -> dict[str, float]:
        """Its metrics by name, those of all workers added up."""
        values: dict[str, float] = {}
        for line in (self._process.get("/metrics") or "").splitlines():
            if line and not line.startswith("#"):
                name, _, value = line.rpartition(" ")
                values[name.partition("{")[0]] = values.get(name.partition("{")[0], 0.0) + float(value)
        return values

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._process.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            print(self._process.log[-LOG_TAIL:], file=sys.stderr, flush=True)
        self._process.stop()

    def _start(self) -> None:
        process = self._process
        configuration = process.folder / "sluiceway.toml"
        own = ANY_PORT | {"drain_notice_s": 0}
        lines = ["[recognition]", *(f"{key} = {value}" for key, value in (own | self._settings).items())]
        for model in self._models:
            table = {"name": model} if isinstance(model, str) else model
            lines += ["[[recognition.models]]", *(f"{key} = {json.dumps(value)}" for key, value in table.items())]
        configuration.write_text("\n".join(lines) + "\n", encoding="utf-8")
        process.start(
            [sys.executable, *self._command, "--config", str(configuration)],
            environment(process.folder) | self._variables,
        )
        told_s = 0.0
        while not process.ready(self._timeout_s):
            if process.age_s - told_s > PROGRESS_S:
                told_s = process.age_s
                self._progress(f"starting: {(process.log.strip().splitlines() or ['...'])[-1]}")
            time.sleep(0.05)
        self.start_s = process.age_s
