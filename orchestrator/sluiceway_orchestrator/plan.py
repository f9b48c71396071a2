"""Which model reads which detection class. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sluiceway_runtime.errors import UnknownModel

from sluiceway_orchestrator.config import DEFAULT_MODEL, NO_MODEL

__all__ = ["EVERY_OTHER", "Assignment", "Recognizer", "assign", "targets"]

EVERY_OTHER = "*"


@dataclass(frozen=True, slots=True)
class Recognizer:
    """A recognition model as it describes itself.

    Attributes:
        wants: detection classes that it is made for; empty means any.
    """

    name: str
    wants: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Assignment:
    """One model and the detection classes that it reads.

    Attributes:
        classes: empty means every class.
    """

    model: str
    classes: tuple[str, ...]


def targets(route: str | Sequence[str]) -> tuple[str, ...]:
    """The models that a route names, `default` not yet replaced; empty for `none`."""
    names = (route,) if isinstance(route, str) else tuple(route)
    return tuple(name for name in names if name not in (NO_MODEL, ""))


def assign(
    routes: Mapping[str, str | Sequence[str]], classes: Sequence[str], recognizers: Sequence[Recognizer]
) -> tuple[Assignment, ...]:
    """Decide what each model reads.

    A class with a route of its own goes where the operator says. Every other class follows the route `*`, as far as
    the model wants that class.

    Args:
        routes: detection class, or `*`, to the model or models.
        classes: what the detector tells apart.
        recognizers: what the recognition stage serves; the first is the default.

    Raises:
        UnknownModel: a route names a model that the stage does not serve.
    """
    by_name = {recognizer.name: recognizer for recognizer in recognizers}
    readers: dict[str, list[str]] = {}
    for name in classes:
        explicit = name in routes
        for target in targets(routes[name] if explicit else routes.get(EVERY_OTHER, DEFAULT_MODEL)):
            model = recognizers[0].name if target == DEFAULT_MODEL and recognizers else target
            if model not in by_name:
                raise UnknownModel(f"a route names the model {model!r}, which the recognition stage does not serve")
            wants = by_name[model].wants
            if explicit or not wants or name in wants:
                readers.setdefault(model, []).append(name)
    return tuple(
        Assignment(model, () if len(names) == len(classes) else tuple(names)) for model, names in readers.items()
    )
