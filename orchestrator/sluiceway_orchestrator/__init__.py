"""The orchestrator: brings images, sends them through the stages, streams the results."""
