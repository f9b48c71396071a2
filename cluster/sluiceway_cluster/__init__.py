"""The whole pipeline on one machine: what `sluiceway up` and `sluiceway run` start. Needs the server extras."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sluiceway_cluster.cluster import Cluster, ClusterError, ServerState
    from sluiceway_cluster.plan import ClusterPlan, plan_cluster
    from sluiceway_cluster.process import ServerSpec

__all__ = ["Cluster", "ClusterError", "ClusterPlan", "ServerSpec", "ServerState", "plan_cluster"]

_MODULES = {
    "Cluster": "cluster",
    "ClusterError": "cluster",
    "ServerState": "cluster",
    "ClusterPlan": "plan",
    "plan_cluster": "plan",
    "ServerSpec": "process",
}


def __getattr__(name: str) -> object:
    """Load what is asked for: the commands stand in this package and must not import servers to show their help."""
    if name in _MODULES:
        return getattr(importlib.import_module(f"sluiceway_cluster.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
