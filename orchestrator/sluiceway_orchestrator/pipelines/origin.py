"""Where the regions of an answer come from, and what values are about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sluiceway_orchestrator.events import Page, Subject
from sluiceway_orchestrator.geometry import Matrix

__all__ = ["REGIONS", "About", "Origin", "Outer"]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the regions of an answer come from: the page, or crops of regions.

    Attributes:
        parents: id of a crop to that of its region; None for the page itself.
        to_page: id of a crop to its homography.
    """

    page: Page
    parents: Mapping[int, int] | None = None
    to_page: Mapping[int, Matrix] | None = None


class About(NamedTuple):
    """What values are about."""

    subject: Subject = Subject.REGION
    page: int = 0


REGIONS = About()


@dataclass(frozen=True, slots=True)
class Outer:
    """An answer whose crops are looked at in their turn.

    Attributes:
        ids: of its regions, in its order.
        crops_of: of each of them, the crop that it was found in; empty where that was the page.
        origin: where they come from.
    """

    message: bytes
    ids: Sequence[int]
    crops_of: Sequence[int]
    origin: Origin
