"""The whole pipeline on one machine: what `sluiceway up` and `sluiceway run` start. Needs the server extras."""

from sluiceway.cluster.cluster import Cluster, ClusterError, ServerState
from sluiceway.cluster.plan import ClusterPlan, plan_cluster
from sluiceway.cluster.process import ServerSpec

__all__ = ["Cluster", "ClusterError", "ClusterPlan", "ServerSpec", "ServerState", "plan_cluster"]
