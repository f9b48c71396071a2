"""Reflection with comments, so that `grpcurl describe` reads like the protos.

Generated Python code carries the contract without its comments. `sluiceway/descriptors.binpb` has both; `make proto`
writes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from typing import Any, cast

from google.protobuf import descriptor_pb2, descriptor_pool

__all__ = ["documented_pool"]


class _DocumentedFile:
    """A file of the pool; what is asked of it is what the reflection servicer asks of a `FileDescriptor`."""

    def __init__(self, descriptor: Any, documented: Mapping[str, descriptor_pb2.FileDescriptorProto]) -> None:
        self._descriptor = descriptor
        self._documented = documented
        self.name: str = descriptor.name

    @property
    def dependencies(self) -> list[_DocumentedFile]:
        return [_DocumentedFile(descriptor, self._documented) for descriptor in self._descriptor.dependencies]

    def CopyToProto(self, proto: descriptor_pb2.FileDescriptorProto) -> None:  # noqa: N802 - protobuf's name
        documented = self._documented.get(self.name)
        if documented is None:
            self._descriptor.CopyToProto(proto)
        else:
            proto.CopyFrom(documented)


class _DocumentedPool:
    """The default descriptor pool; files of the contract come with their comments."""

    def __init__(self) -> None:
        self._pool = descriptor_pool.Default()
        image = descriptor_pb2.FileDescriptorSet.FromString(
            files("sluiceway").joinpath("descriptors.binpb").read_bytes()
        )
        self._documented = {file.name: file for file in image.file}

    def FindFileByName(self, name: str) -> _DocumentedFile:  # noqa: N802 - protobuf's name
        """See `DescriptorPool`."""
        return _DocumentedFile(self._pool.FindFileByName(name), self._documented)

    def FindFileContainingSymbol(self, symbol: str) -> _DocumentedFile:  # noqa: N802 - protobuf's name
        """See `DescriptorPool`."""
        return _DocumentedFile(self._pool.FindFileContainingSymbol(symbol), self._documented)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)


def documented_pool() -> descriptor_pool.DescriptorPool:
    """Return a pool for the reflection servicer."""
    # It has what that servicer uses of a pool; the class itself cannot be derived from.
    return cast("descriptor_pool.DescriptorPool", _DocumentedPool())
