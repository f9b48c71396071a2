"""What a server says of itself while somebody watches: read when it is asked for, and at no other time."""

from sluiceway_runtime.watch.durations import Durations
from sluiceway_runtime.watch.sample import FrontSample, GpuSample, ServerSample
from sluiceway_runtime.watch.sampler import Sampler

__all__ = ["Durations", "FrontSample", "GpuSample", "Sampler", "ServerSample"]
