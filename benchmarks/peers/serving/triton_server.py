"""The same two models in Triton, through PyTriton: an instance of the model for each worker.

PyTriton calls all instances in threads of one process. They compute side by side as far as the libraries let go of
Python's lock, which OpenVINO and OpenCV do.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
from pytriton.model_config import DynamicBatcher, ModelConfig, QueuePolicy, Tensor
from pytriton.triton import Triton, TritonConfig
from settings import Settings, reader_of, settings


def instance_of(told: Settings) -> Callable[[list[Any]], list[dict[str, np.ndarray]]]:
    """A model that is loaded by the thread that uses it, which is pinned then."""
    readers: list[Callable[[bytes], list[str]]] = []

    def read(requests: list[Any]) -> list[dict[str, np.ndarray]]:
        if not readers:
            readers.append(reader_of(told))
        found = [readers[0](request.data["image"].tobytes()) for request in requests]
        return [{"texts": np.array([[text.encode() for text in texts] or [b""]])} for texts in found]

    return read


def serve(told: Settings) -> None:
    """Serve until told to end."""
    # Images differ in size, so nothing is gained by a batch of them.
    model = ModelConfig(max_batch_size=1)
    if told.queue:
        policy = QueuePolicy(max_queue_size=told.queue)
        model = ModelConfig(max_batch_size=1, batcher=DynamicBatcher(default_queue_policy=policy))
    config = TritonConfig(http_address="127.0.0.1", http_port=told.port, allow_grpc=False, allow_metrics=False)
    with Triton(config=config) as triton:
        triton.bind(
            model_name="reading",
            infer_func=[instance_of(told) for _ in range(told.workers)],
            inputs=[Tensor(name="image", dtype=np.uint8, shape=(-1,))],
            outputs=[Tensor(name="texts", dtype=bytes, shape=(-1,))],
            config=model,
        )
        triton.serve()


if __name__ == "__main__":
    serve(settings())
