"""Readers: programs that run in environments of their own, and how they are told what to read."""
