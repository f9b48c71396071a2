"""How many bytes a server may hold, and what is shown of it."""

from __future__ import annotations

import logging

from sluiceway_runtime.account import PHASE_SHARES, MemoryBudget, Phase
from sluiceway_runtime.config import ServerConfig, StageConfig
from sluiceway_runtime.control_groups import memory_limit_bytes
from sluiceway_runtime.priority import Priority

__all__ = ["RECEIVE_COPIES", "memory_budget"]

log = logging.getLogger(__name__)

# While a message is read it is there twice: in gRPC's own buffer and as the bytes that are made of it.
RECEIVE_COPIES = 2
# Of what an orchestrator may use: bytes are copied on their way, by gRPC and by what parses and fetches them.
ORCHESTRATOR_SHARE = 0.4
# Above what waits in a stage's queue: what its workers have, and what is being read. The process is larger than its
# budget by Python and gRPC (60 MiB), by one more copy of the message that just becomes an object, and by what is under
# way in connections. With all of it, it stays within the queue and 256 MiB.
STAGE_MARGIN_BYTES = 64 * 2**20
# A stage holds what it reads, and nothing that comes later.
STAGE_SHARES = (1.0, 1.0, 1.0, 1.0)


def memory_budget(config: ServerConfig) -> MemoryBudget:
    """The budget of a server as it is configured; of one that is no stage, `auto` follows its control group."""
    total_bytes = config.memory_bytes
    is_stage = isinstance(config, StageConfig)
    if total_bytes == "auto":
        if isinstance(config, StageConfig):
            total_bytes = config.queue_bytes + STAGE_MARGIN_BYTES
        else:
            total_bytes = int(memory_limit_bytes() * ORCHESTRATOR_SHARE)
    budget = MemoryBudget(total_bytes, STAGE_SHARES if is_stage else PHASE_SHARES)
    room_bytes = budget.limit_bytes(Phase.DOOR, Priority.NORMAL)
    if config.max_message_bytes * RECEIVE_COPIES > room_bytes:
        log.warning(
            "the largest message (max_message_bytes = %d) has no room among the %d bytes that requests may take "
            "(memory_bytes = %d) while it is read: such messages are read one at a time, above the limit",
            config.max_message_bytes,
            room_bytes,
            total_bytes,
        )
    return budget
