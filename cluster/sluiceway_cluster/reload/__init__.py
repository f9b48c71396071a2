"""New servers in the place of running ones, on one machine, without losing a request: see ADR 0030."""

from __future__ import annotations

from sluiceway_cluster.reload.addresses import AddressFiles
from sluiceway_cluster.reload.control import NobodyThere, ask, controlled
from sluiceway_cluster.reload.reloading import Reloading
from sluiceway_cluster.reload.successors import replaceable

__all__ = ["AddressFiles", "NobodyThere", "Reloading", "ask", "controlled", "replaceable"]
