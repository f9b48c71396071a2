"""A public HTTP port, of the orchestrator or of a stage: who may call, bodies, and failures in the form of HTTP."""
