"""What the orchestrator shows to Prometheus."""
