"""Events of one source, put together into its result. Pure: no I/O, no clock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from sluiceway.client import events
from sluiceway.client.results import Model, Reading, Region, Result, Timings
from sluiceway.errors import ServerFault, SluicewayError

__all__ = ["Assembly"]


class Assembly:
    """What is known of one source so far."""

    def __init__(self, source: str) -> None:
        self.source = source
        self._width = self._height = 0
        self._regions: dict[int, Region] = {}
        self._readings: dict[int, list[Reading]] = {}
        self._order: tuple[int, ...] = ()
        self._timings = Timings()
        self._models: tuple[Model, ...] = ()
        self._metadata: Mapping[str, str] = {}
        self._metadata_errors: Mapping[str, SluicewayError] = {}
        self._image: bytes | None = None
        self._error: SluicewayError | None = None
        self.finished = False

    def __repr__(self) -> str:
        state = "finished" if self.finished else "open"
        return f"<Assembly {self.source!r} {state}, {len(self._regions)} regions, {len(self._readings)} read>"

    def add(self, event: events.Event) -> None:
        """Take in the next event of this source."""
        match event:
            case events.ImageReady():
                self._metadata, self._metadata_errors = event.metadata, event.metadata_errors
                self._image = event.image
            case events.Detected():
                self._width, self._height = event.width, event.height
                self._regions = {region.id: region for region in event.regions}
            case events.Recognized():
                for region_id, reading in event.readings.items():
                    self._readings.setdefault(region_id, []).append(reading)
            case events.SourceDone():
                self._order, self._timings, self._models = event.reading_order, event.timings, event.models
                self.finished = True
            case events.SourceFailed():
                self._error, self.finished = event.error, True
            case events.JobDone():
                self._end_of_job(event)

    def _end_of_job(self, event: events.JobDone) -> None:
        if not self.finished:
            self._error = event.error or ServerFault("the server ended the job without finishing this source")
            self.finished = True

    def result(self) -> Result:
        """Build the result from what is known now."""
        # A region that the order leaves out must not vanish: it follows at the end.
        ordered = set(self._order)
        order = [*self._order, *(key for key in self._regions if key not in ordered)]
        return Result(
            source=self.source,
            width=self._width,
            height=self._height,
            regions=tuple(self._with_readings(self._regions[key]) for key in order if key in self._regions),
            timings=self._timings,
            models=self._models,
            metadata=self._metadata,
            metadata_errors=self._metadata_errors,
            image=self._image,
            error=self._error,
        )

    def _with_readings(self, region: Region) -> Region:
        readings = self._readings.get(region.id)
        return replace(region, readings=tuple(readings)) if readings else region
