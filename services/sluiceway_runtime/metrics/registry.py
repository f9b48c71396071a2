"""A registry that always answers: what cannot be told now keeps nothing else from being told."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.registry import Collector

__all__ = ["AnsweringRegistry"]

log = logging.getLogger(__name__)


class AnsweringRegistry(CollectorRegistry):
    """Of a server, whose parts are scraped in every state that they are in.

    A collector that raises shows nothing, which the log tells once; a scrape that failed for it would hide all that is
    needed to see what is wrong.
    """

    def register(self, collector: Collector) -> None:
        """Add one."""
        super().register(_Sheltered(collector))


class _Sheltered(Collector):
    def __init__(self, collector: Collector) -> None:
        self._collector = collector
        self._told = False

    def collect(self) -> Iterable[Metric]:
        try:
            # All of it, as it may raise half-way.
            return list(self._collector.collect())
        except Exception:
            if not self._told:
                self._told = True
                log.exception("metrics of %s cannot be shown", type(self._collector).__name__)
            return ()
