"""What computes: the same model on OpenVINO or torch, behind one small interface."""

from sluiceway_recognition.backends.base import Backend
from sluiceway_recognition.backends.opening import library_of, load_backend

__all__ = ["Backend", "library_of", "load_backend"]
