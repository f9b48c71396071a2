"""The whole pipeline on one machine: what `sluiceway up` and `sluiceway run` start. Needs the server extras."""

from sluiceway_cluster.cluster import Cluster, ClusterError, ServerState
from sluiceway_cluster.plan import ClusterPlan, plan_cluster
from sluiceway_cluster.process import ServerSpec

__all__ = ["Cluster", "ClusterError", "ClusterPlan", "ServerSpec", "ServerState", "plan_cluster"]
