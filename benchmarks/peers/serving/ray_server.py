"""The same two models in Ray Serve: a deployment whose replicas do all of a request."""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import ray
from ray import serve
from settings import settings
from starlette.requests import Request


class Reading:
    """Detects and reads."""

    def __init__(self) -> None:
        # Replicas are processes of Ray's own, which start elsewhere.
        sys.path.insert(0, str(FOLDER))
        from settings import reader_of, settings

        self._read = reader_of(settings())

    async def __call__(self, request: Request) -> dict[str, list[str]]:
        return {"texts": self._read(await request.body())}


FOLDER = Path(__file__).resolve().parent


def main() -> None:
    """Serve until told to end."""
    told = settings()
    tuned = told.pinned
    ray.init(
        num_cpus=max(told.workers + 1, 2),
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        runtime_env={"env_vars": told.variables()},
    )
    serve.start(http_options={"host": "127.0.0.1", "port": told.port, "location": "HeadOnly"})
    options = {"num_replicas": told.workers, "ray_actor_options": {"num_cpus": 1}}
    if tuned:
        # A worker computes one image at a time; what waits waits where any worker may take it.
        options |= {"max_ongoing_requests": 1, "max_queued_requests": told.queue or -1}
    serve.run(serve.deployment(Reading).options(**options).bind(), route_prefix="/")
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    ended.wait()
    serve.shutdown()
    ray.shutdown()


if __name__ == "__main__":
    main()
