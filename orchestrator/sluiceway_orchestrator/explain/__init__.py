"""Stories of requests: what this orchestrator remembers, and what the replicas say that it asked."""
