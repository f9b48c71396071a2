"""The same two models in BentoML: a service whose workers do all of a request.

Started by `bentoml serve bentoml_service:Reading`.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import bentoml
from settings import reader_of, settings

told = settings()
# As it comes, a request may wait for a minute, and any number may.
traffic = {"timeout": 10, "max_concurrency": told.queue // told.workers + 1} if told.queue else {"timeout": 60}


@bentoml.service(workers=told.workers, threads=1, traffic=traffic, metrics={"enabled": False})
class Reading:
    """Detects and reads."""

    def __init__(self) -> None:
        self._read = reader_of(told)

    @bentoml.api
    def read(self, image: Path) -> dict[str, list[str]]:
        return {"texts": self._read(image.read_bytes())}
