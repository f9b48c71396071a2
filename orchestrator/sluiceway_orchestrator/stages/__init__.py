"""Clients of the stages: replicas, balancing, back-pressure, retries."""
