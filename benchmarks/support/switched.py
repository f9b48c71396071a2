"""`python -m support.switched FILE orchestrator …`: a server that switches its metrics and log off and on by itself.

Four times a second it changes over, and notes its own CPU time and how many images it has done; the notes are in FILE
when it has ended. One process is compared with itself: two of a kind differ by more than metrics cost. Switched off,
what notes something does nothing; the calls to it are left, which cost a twentieth of a microsecond each. Switched on,
it is scraped as often as a Prometheus would.
"""

from __future__ import annotations

import atexit
import json
import logging
import runpy
import signal
import sys
import time
from pathlib import Path
from typing import Any

from prometheus_client import generate_latest
from sluiceway_orchestrator.admission import Admission
from sluiceway_runtime.metrics.registry import AnsweringRegistry
from support.unseen import OFF

TURN_S = 0.25
# A scrape in so many turns that are switched on: one in five seconds.
SCRAPE_EVERY = 20


class Switch:
    """Changes over at each turn.

    Attributes:
        turns: that have ended: whether it was on, CPU seconds, images done.
    """

    def __init__(self) -> None:
        self.turns: list[tuple[bool, float, int]] = []
        self._others = list(OFF)
        self._on = True
        self._done = 0
        self._begun = (time.process_time(), 0)
        self._registries: list[AnsweringRegistry] = []
        leave, made = Admission.leave, AnsweringRegistry.__init__

        def counted(admission: Admission, *arguments: Any, **more: Any) -> None:
            self._done += 1
            leave(admission, *arguments, **more)

        def noted(registry: AnsweringRegistry) -> None:
            made(registry)
            self._registries.append(registry)

        Admission.leave = counted  # type: ignore[method-assign]
        AnsweringRegistry.__init__ = noted  # type: ignore[assignment,method-assign]

    def turn(self, *_: Any) -> None:
        """One is over."""
        if self._on and len(self.turns) % (2 * SCRAPE_EVERY) < 2:
            for registry in self._registries:
                generate_latest(registry)
        now = (time.process_time(), self._done)
        self.turns.append((self._on, now[0] - self._begun[0], now[1] - self._begun[1]))
        for place, (owner, name, other) in enumerate(self._others):
            self._others[place] = (owner, name, vars(owner)[name])
            setattr(owner, name, other)
        self._on = not self._on
        logging.getLogger().setLevel(logging.INFO if self._on else logging.CRITICAL)
        self._begun = (time.process_time(), self._done)


def main() -> None:
    """Run a server."""
    notes, name = Path(sys.argv.pop(1)).resolve(), sys.argv.pop(1)
    switch = Switch()
    atexit.register(lambda: notes.write_text(json.dumps(switch.turns)))
    signal.signal(signal.SIGALRM, switch.turn)
    signal.setitimer(signal.ITIMER_REAL, TURN_S, TURN_S)
    runpy.run_module(f"sluiceway_{name}", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
