"""Which model reads which class."""

from __future__ import annotations

from typing import Any

import pytest
from sluiceway_orchestrator.plan import Assignment, Recognizer, assign
from sluiceway_runtime.errors import UnknownModel

TEXT = Recognizer("text")
LOGO = Recognizer("logo", wants=("brand",))

TABLE: dict[str, tuple[dict[str, Any], list[str], list[Recognizer], list[Assignment]]] = {
    "default for everything": ({"*": "default"}, ["a", "b"], [TEXT], [Assignment("text", ())]),
    "no routes at all": ({}, ["a"], [TEXT], [Assignment("text", ())]),
    "some class to none": (
        {"*": "default", "image": "none"}, ["line", "image"], [TEXT], [Assignment("text", ("line",))],
    ),
    "a route for a class that the detector lacks": (
        {"*": "default", "image": "none"}, ["person"], [TEXT], [Assignment("text", ())],
    ),
    "everything to none": ({"*": "none"}, ["a"], [TEXT], []),
    "everything to none but one": ({"*": "none", "a": "text"}, ["a", "b"], [TEXT], [Assignment("text", ("a",))]),
    "a class to a model by name": (
        {"*": "default", "b": "logo"}, ["a", "b"], [TEXT, LOGO],
        [Assignment("text", ("a",)), Assignment("logo", ("b",))],
    ),
    "a class to two models": (
        {"*": "none", "b": ["default", "logo"]}, ["a", "b"], [TEXT, LOGO],
        [Assignment("text", ("b",)), Assignment("logo", ("b",))],
    ),
    "what a model wants limits the route of the rest": (
        {"*": "logo"}, ["brand", "line"], [TEXT, LOGO], [Assignment("logo", ("brand",))],
    ),
    "the operator's word goes over what a model wants": (
        {"*": "none", "line": "logo"}, ["brand", "line"], [TEXT, LOGO], [Assignment("logo", ("line",))],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TABLE)
def test_assignments(name: str) -> None:
    routes, classes, recognizers, expected = TABLE[name]
    assert list(assign(routes, classes, recognizers)) == expected


def test_a_model_that_is_not_served_is_named() -> None:
    with pytest.raises(UnknownModel, match="missing"):
        assign({"*": "missing"}, ["a"], [TEXT])
