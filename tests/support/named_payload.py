"""A payload for the pool's policy, which looks at nothing of it but its digest."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Named"]


class Named(NamedTuple):
    """Known by its name; one without a name may not be asked for it."""

    name: str

    def digest(self) -> str:
        assert self.name, "nobody needs to know"
        return self.name
