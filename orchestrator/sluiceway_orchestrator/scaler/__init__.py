"""What scales stages by the orchestrator's own word: KEDA's contract for external scalers, on a port of its own."""
