"""Events of one source, put together into its result. Pure: no I/O, no clock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sluiceway.client import events
from sluiceway.client.regions import Reading, Region
from sluiceway.client.results import Page, Result, Timings
from sluiceway.errors import ServerFault, SluicewayError

__all__ = ["Assembly"]


class Assembly:
    """What is known of one source so far."""

    def __init__(self, source: str) -> None:
        self.source = source
        self._pages: dict[int, Page] = {}
        self._regions: dict[int, Region] = {}
        self._readings: dict[int, list[Reading]] = {}
        self._values: dict[str, Mapping[str, Any]] = {}
        self._value_errors: dict[str, SluicewayError] = {}
        self._page_values: dict[int, dict[str, Reading]] = {}
        self._done: events.SourceDone | None = None
        self._image: bytes | None = None
        self._error: SluicewayError | None = None
        self.finished = False

    def __repr__(self) -> str:
        state = "finished" if self.finished else "open"
        return f"<Assembly {self.source!r} {state}, {len(self._regions)} regions, {len(self._readings)} read>"

    def add(self, event: events.Event) -> None:
        """Take in the next event of this source."""
        match event:
            case events.SourceReady():
                self._values |= event.values
                self._value_errors |= event.call_errors
                self._image = event.image
            case events.Regions():
                self._pages[event.page.index] = event.page
                self._regions |= {region.id: region for region in event.regions}
            case events.Values():
                self._add_values(event)
            case events.SourceDone():
                self._done, self.finished = event, True
            case events.SourceFailed():
                self._error, self.finished = event.error, True
            case events.JobDone():
                self._end_of_job(event)

    def _add_values(self, event: events.Values) -> None:
        for region_id, reading in event.readings.items():
            self._readings.setdefault(region_id, []).append(reading)
        if event.reading is None:
            return
        if event.subject is events.Subject.PAGE:
            self._page_values.setdefault(event.page, {})[event.step] = event.reading
        elif event.reading.error is not None:
            self._value_errors[event.step] = event.reading.error
        else:
            self._values[event.step] = event.reading.data or {}

    def _end_of_job(self, event: events.JobDone) -> None:
        if not self.finished:
            self._error = event.error or ServerFault("the server ended the job without finishing this source")
            self.finished = True

    def result(self) -> Result:
        """Build the result from what is known now."""
        done = self._done or events.SourceDone(self.source, (), Timings())
        # A region that the order leaves out must not vanish: it follows at the end.
        ordered = set(done.reading_order)
        order = [*done.reading_order, *(key for key in self._regions if key not in ordered)]
        places = {report.step: place for place, report in enumerate(done.steps)}
        return Result(
            source=self.source,
            pages=tuple(self._pages[index] for index in sorted(self._pages)),
            regions=tuple(self._with_readings(self._regions[key], places) for key in order if key in self._regions),
            timings=done.timings,
            steps=done.steps,
            values=self._values,
            value_errors=self._value_errors,
            page_values=self._page_values,
            lines=done.lines,
            blocks=done.blocks,
            notices=done.notices,
            image=self._image,
            error=self._error,
        )

    def _with_readings(self, region: Region, places: Mapping[str, int]) -> Region:
        readings = self._readings.get(region.id)
        if not readings:
            return region
        # Steps that run side by side answer in any order; results should not differ by that.
        return replace(region, readings=tuple(sorted(readings, key=lambda item: places.get(item.step, len(places)))))
