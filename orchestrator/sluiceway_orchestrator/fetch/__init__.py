"""Where images and values come from: the request itself, URLs, and the APIs that the operator configured."""

from sluiceway_orchestrator.fetch.caller import Answer, Call, Caller, DetectionChoice, Region

__all__ = ["Answer", "Call", "Caller", "DetectionChoice", "Region"]
