"""When a step of a source has ended: nothing of it runs, and nothing can come that would feed it. Pure."""

from __future__ import annotations

from sluiceway_orchestrator.plan import Pipeline, Step

__all__ = ["Progress"]


class Progress:
    """Counts what is open, and says which calls may begin now.

    Invariant: a step's work is opened before the answer that feeds it is closed, so a step that has ended stays so.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._open = [0] * len(pipeline.steps)
        for step in pipeline.roots:
            self._open[step.index] = 1
        self._waiting = list(pipeline.last_calls)
        for step in self._waiting:
            self._open[step.index] = 1

    def __repr__(self) -> str:
        counts = ", ".join(f"{step.name}={self._open[step.index]}" for step in self._pipeline.steps)
        return f"<Progress {counts}>"

    def begin(self, step: Step, works: int = 1) -> None:
        """So many more parts of a step are to be done."""
        self._open[step.index] += works

    def end(self, step: Step) -> tuple[Step, ...]:
        """One part is done; returns the calls that waited for that and may begin."""
        self._open[step.index] -= 1
        if self._open[step.index] or not self._waiting:
            return ()
        ready = tuple(call for call in self._waiting if all(self.has_ended(index) for index in call.after))
        self._waiting = [call for call in self._waiting if call not in ready]
        return ready

    @property
    def open_steps(self) -> tuple[Step, ...]:
        """Those of which a part is to be done, or is waited for."""
        return tuple(step for step in self._pipeline.steps if self._open[step.index])

    def has_ended(self, index: int) -> bool:
        """Whether nothing more comes of a step."""
        step = self._pipeline.steps[index]
        return not self._open[index] and (step.of is None or self.has_ended(step.of))
