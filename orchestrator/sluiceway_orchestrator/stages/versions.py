"""The versions of a stage: which replicas answer for each, and how many sources are bound to it. No I/O."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Generic, TypeVar

from sluiceway_orchestrator.stages.group import Group, Shares
from sluiceway_orchestrator.stages.replica import Replica, StageWire

__all__ = ["Versions"]

Description = TypeVar("Description")


class Versions(Generic[Description]):
    """Sorts replicas by what they serve, and binds sources.

    A replica that left the stage's name, and still answers, is kept for sources that are bound to its version where no
    other serves it; new sources are bound to versions of those that are there.
    """

    def __init__(self, wire: StageWire[Description]) -> None:
        self._wire = wire
        self._taking: Sequence[Replica[Description]] = ()
        self._groups: dict[str, Group[Description]] = {}
        self._members: dict[str, tuple[Replica[Description], ...]] = {}
        # Versions that only replicas serve which have left.
        self._former: dict[str, tuple[Replica[Description], ...]] = {}
        self._bound: Counter[str] = Counter()
        self._shares = Shares()

    def __repr__(self) -> str:
        return f"<Versions {list(self._members)} former={list(self._former)} bound={dict(self._bound)}>"

    def __bool__(self) -> bool:
        """Whether a source can be bound to any."""
        return bool(self._members)

    @property
    def members(self) -> tuple[tuple[Group[Description], tuple[Replica[Description], ...]], ...]:
        """Every version that is served with its ready replicas, the one with the most first.

        While none is served, those that were.
        """
        found = [(group, self._members.get(name, ())) for name, group in self._groups.items()]
        return tuple(sorted(found, key=lambda item: -len(item[1])))

    def sort(self, taking: Sequence[Replica[Description]], leaving: Iterable[Replica[Description]]) -> None:
        """Sort anew.

        Args:
            taking: replicas that take new sources.
            leaving: those that have left and are not closed yet.
        """
        self._taking = taking
        self._members = _by_version(taking)
        for name, members in self._members.items():
            if name not in self._groups:
                description = members[0].versions[name]
                self._groups[name] = Group(name, self._wire.declared_group(description), description)
        former = _by_version(replica for replica in leaving if replica.ready)
        self._former = {name: found for name, found in former.items() if name not in self._members}
        if self._members:
            self._groups = {name: self._groups[name] for name in self._members}

    def answering(self, name: str) -> tuple[Replica[Description], ...]:
        """The replicas that answer sources which are bound to a version."""
        return self._members.get(name) or self._former.get(name, ())

    def choose(self, able: Callable[[Description], bool]) -> Group[Description] | None:
        """Choose a version for a source by its share of the ready capacity; None while no replica is there.

        Args:
            able: whether a version can do what the source needs; where none can, any is taken, which then says so.
        """
        if not self._members:
            return None
        if len(self._members) == 1:
            # As nearly always, and then it is the one, able or not.
            return self._groups[next(iter(self._members))]
        names = [name for name in self._members if able(self._groups[name].description)] or list(self._members)
        if len(names) == 1:
            return self._groups[names[0]]
        # A replica that has not answered yet is taken for one like the others. Taken for the least that it may be, it
        # would get next to nothing, and so never answer.
        reported = [replica.occupancy.report.capacity for replica in self._taking]
        known = [capacity for capacity in reported if capacity]
        usual = sum(known) / len(known) if known else 1.0
        weights = {
            name: sum(member.occupancy.report.capacity or usual for member in self._members[name]) for name in names
        }
        return self._groups[self._shares.choose(weights)]

    def hold(self, group: Group[Description]) -> None:
        """A source is bound to a version until `release`: so long its last replicas are kept for it if they leave.

        Those that end are gone all the same.
        """
        self._bound[group.name] += 1

    def release(self, group: Group[Description]) -> None:
        """A source is not bound to a version any more."""
        self._bound[group.name] -= 1
        if not self._bound[group.name]:
            del self._bound[group.name]

    def needs(self, replica: Replica[Description]) -> bool:
        """Whether sources are bound to what only this replica, and others that have left, can answer."""
        return replica.ready and any(name in self._former and self._bound[name] for name in replica.versions)


def _by_version(replicas: Iterable[Replica[Description]]) -> dict[str, tuple[Replica[Description], ...]]:
    found: dict[str, list[Replica[Description]]] = {}
    for replica in replicas:
        for name in replica.versions:
            found.setdefault(name, []).append(replica)
    return {name: tuple(members) for name, members in found.items()}
