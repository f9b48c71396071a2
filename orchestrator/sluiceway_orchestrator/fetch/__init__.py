"""Where images come from: the request itself, URLs, and the APIs that the operator configured."""

from sluiceway_orchestrator.fetch.caller import Caller, FetchedImage

__all__ = ["Caller", "FetchedImage"]
