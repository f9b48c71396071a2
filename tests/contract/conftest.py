"""Every test of the pool's contract runs with processes and with threads."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from pool_bench import KINDS, Bench


@pytest.fixture(params=list(KINDS))
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    bench = Bench(request.param)
    yield bench
    for pool in bench.pools:
        await pool.close()
