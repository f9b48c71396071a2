"""Open a backend by name. Apart from their interface, which every backend imports: imports go one way."""

from __future__ import annotations

from sluiceway_detection.backends.base import Backend, BackendName, BackendSpec

__all__ = ["open_backend"]


def open_backend(name: BackendName, spec: BackendSpec) -> Backend:
    """Load a model; its shapes are compiled and warm when this returns.

    Raises:
        StartupError: unreadable weights, another task, a precision or shape that the backend or model does not have.
    """
    if name == "openvino":
        from sluiceway_detection.backends.openvino import OpenVinoBackend  # noqa: PLC0415 - only where it is used

        return OpenVinoBackend(spec)
    if name == "onnx":
        from sluiceway_detection.backends.onnx import OnnxBackend  # noqa: PLC0415

        return OnnxBackend(spec)
    from sluiceway_detection.backends.torch import TorchBackend  # noqa: PLC0415

    return TorchBackend(spec)
