"""What computes a detection model. Each module imports its library only when a worker opens it."""

from sluiceway_detection.backends.base import Backend, BackendSpec
from sluiceway_detection.backends.opening import open_backend

__all__ = ["Backend", "BackendSpec", "open_backend"]
