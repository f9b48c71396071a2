"""A cluster in memory on virtual time: the orchestrator's own asyncio code, the runtime's own doors, servers and pools.

Nothing here decides anything that a cluster decides. What is put in place of the real thing is time
(`virtual_time`), gRPC (`network`), worker processes (`stages`), and the people around: clients, faults, arrivals.
"""
