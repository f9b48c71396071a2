"""Pipelines: how they are configured, what they come to, and how a source goes through one."""
