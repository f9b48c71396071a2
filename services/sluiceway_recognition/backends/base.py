"""The interface of a backend."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["Backend"]


class Backend(Protocol):
    """A loaded network with its normalisation before and its reduction behind it.

    Attributes:
        name: of the library.
        precision: arithmetic in use.
        device: where it computes.
        output_size: classes of a text model or classifier, or length of an embedding.
        metadata: what the model file says of itself, by key.
    """

    name: Literal["openvino", "torch"]
    precision: str
    device: str
    output_size: int
    metadata: Mapping[str, str]

    def warm(self, widths: Sequence[int]) -> None:
        """Compile for these widths and compute each once."""

    def alone(self, precision: str, crops: Sequence[NDArray[np.uint8]]) -> tuple[NDArray[Any], ...]:
        """What some crops of one width give in a precision, each by itself; nothing of it is kept. See `launch`."""
        ...

    def launch(self, crops: Sequence[NDArray[np.uint8]], width: int) -> Callable[[], tuple[NDArray[Any], ...]]:
        """Start to compute crops that share a bucket.

        Args:
            crops: uint8 [H, w_i, 3] with 1 <= w_i <= width; not needed any more when this returns.
            width: they are padded to this, with zeros after normalising.

        Returns:
            A function that waits for the end and returns arrays of its own, with a row for each crop: text: int32
            [N, T] most probable classes and float32 [N, T] their probabilities; classify: float32 [N, C]
            probabilities; embed: float32 [N, D].
        """
        ...
