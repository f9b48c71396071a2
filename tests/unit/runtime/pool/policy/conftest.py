"""Items to give to the parts of the policy."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
from named_payload import Named
from sluiceway_runtime.pool.policy.items import Item
from sluiceway_runtime.priority import Priority


@pytest.fixture
def make_item() -> Callable[..., Item]:
    """Items with ids from 1 on; each is of other content than the others."""
    ids = itertools.count(1)

    def make(*, deadline_s: float = 10.0, size_bytes: int = 1, request: str = "r", **more: Any) -> Item:
        number = next(ids)
        facts: dict[str, Any] = {"priority": Priority.NORMAL, "group": None, "cost": 1} | more
        content = facts.pop("content", str(number))
        return Item(number, request, deadline_s, size_bytes=size_bytes, payload=Named(content), **facts)

    return make
