"""A stage's server and an orchestrator's, with calls that are held."""

from __future__ import annotations

from collections.abc import AsyncIterator

import grpc
import grpc.aio
import pytest
from door_service import (
    ORCHESTRATOR,
    STAGE,
    Held,
    serving,
)
from sluiceway_runtime.server.app import Server


@pytest.fixture
def service() -> Held:
    return Held()


@pytest.fixture
async def orchestrator(service: Held) -> AsyncIterator[tuple[Server, grpc.aio.Channel]]:
    async with serving(ORCHESTRATOR, service) as both:
        yield both


@pytest.fixture
async def stage(service: Held) -> AsyncIterator[tuple[Server, grpc.aio.Channel]]:
    async with serving(STAGE, service) as both:
        yield both
