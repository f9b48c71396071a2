"""Results as one document: what `sluiceway run --json` prints for each source."""

from __future__ import annotations

import json
from collections.abc import Mapping

from sluiceway_runtime.http.problem import status_of

from sluiceway.client.assembly import Assembly
from sluiceway.client.events import JobDone
from sluiceway.client.results import Result
from sluiceway_orchestrator.http.convert import client_event
from sluiceway_orchestrator.outbox import Addressed

__all__ = ["Results"]


class Results:
    """Puts the events of a job together.

    Args:
        names: what each source is called in the document, by its id, in the order of the request.
    """

    def __init__(self, names: Mapping[str, str]) -> None:
        self._positions = {source_id: position for position, source_id in enumerate(names)}
        self._assemblies = [Assembly(name) for name in names.values()]

    def add(self, addressed: Addressed) -> int:
        """Take in the next event; returns how large it is, in bytes."""
        event, size_bytes = client_event(addressed, self._positions)
        if isinstance(event, JobDone):
            for assembly in self._assemblies:
                assembly.add(event)
        elif event is not None:
            self._assemblies[self._positions[addressed.source_id]].add(event)
        return size_bytes

    def results(self) -> list[Result]:
        """What is known of each source by now, in the order of the request."""
        return [assembly.result() for assembly in self._assemblies]

    def document(self) -> tuple[int, str]:
        """The status of the answer and its text.

        One source is an object, and its failure that of the request. Several are a list, of which some may have failed.
        """
        results = self.results()
        if len(results) != 1:
            return 200, json.dumps([result.to_dict() for result in results], ensure_ascii=False)
        (result,) = results
        status = 200 if result.error is None else status_of(result.error.code, result.error.reason)
        return status, json.dumps(result.to_dict(), ensure_ascii=False)
