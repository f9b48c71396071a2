"""What each ONNX operator is in torch. Importing this fills the table."""

from sluiceway_runtime.onnx_torch.operators import (  # noqa: F401 - they register themselves
    convolution,
    elementwise,
    indexing,
    layout,
    matrix,
    pooling,
    reduction,
    resize,
    tensors,
)
