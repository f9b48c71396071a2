"""Networks as safetensors: converted once, then loaded in milliseconds, and nothing in the file can run."""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from sluiceway_runtime.errors import StartupError

from sluiceway_recognition.nets.recognisers import NETS, TextNet

__all__ = ["convert", "load", "save"]

logger = logging.getLogger(__name__)

# Counts up when the modules are named or ordered otherwise, so that files of an older release are made again.
LAYOUT: Final = "1"
_NET, _LAYOUT, _CLASSES = "sluiceway.net", "sluiceway.layout", "sluiceway.classes"


def save(net: TextNet, name: str, path: Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write a network, at once or not at all.

    Args:
        net: of `NETS[name]`.
        name: of the network.
        path: where to; its folder is made.
        metadata: kept beside the weights, such as the characters.
    """
    facts = {**(metadata or {}), _NET: name, _LAYOUT: LAYOUT, _CLASSES: str(net.classes)}
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".part")
    os.close(handle)
    try:
        save_file({key: value.contiguous() for key, value in net.state_dict().items()}, temporary, facts)
        # Several workers may convert at the same time; each replaces the file by an equal one.
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def load(path: Path) -> tuple[str, TextNet, dict[str, str]]:
    """Read a network.

    Returns:
        Its name, the network (float32, evaluation mode), and the metadata of the file.

    Raises:
        StartupError: damaged, of another layout, or not one of ours.
    """
    try:
        with safe_open(path, framework="pt") as file:
            facts = dict(file.metadata() or {})
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - this is no mapping
    except (OSError, SafetensorError) as error:
        raise StartupError(f"{path} cannot be read as safetensors: {error}") from error
    build = NETS.get(facts.get(_NET, ""))
    if build is None or facts.get(_LAYOUT) != LAYOUT:
        raise StartupError(f"{path} holds no network of this release")
    net = build(int(facts[_CLASSES]))
    try:
        net.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise StartupError(f"{path} does not fit the network {facts[_NET]}: {error}") from error
    return facts[_NET], net.eval(), facts


def convert(source: Path, cached: Path) -> tuple[str, TextNet, dict[str, str]]:
    """Read a network from its cached conversion, and make that first if it is missing or of no use.

    Args:
        source: ONNX file.
        cached: where its conversion lies, named by the hash of the source.

    Returns:
        As `load` does. Where the cache cannot be written to, the network comes from the source alone.

    Raises:
        StartupError: the source holds none of our networks.
    """
    if cached.is_file():
        # What is of no use is replaced below.
        with contextlib.suppress(StartupError):
            return load(cached)
    # Only here: a server that finds the conversion in its cache needs no onnx.
    import onnx  # noqa: PLC0415

    from sluiceway_recognition.nets.onnx_weights import load_net  # noqa: PLC0415

    name, net = load_net(source)
    metadata = {item.key: item.value for item in onnx.load(source, load_external_data=False).metadata_props}
    try:
        save(net, name, cached, metadata)
    except (OSError, SafetensorError) as error:  # the latter where the disk is full
        # A container's cache is read-only, and the network is here already; only the next start has to convert again.
        logger.info("%s is served from its ONNX file, its conversion cannot be kept: %s", source.name, error)
        return name, net.eval(), metadata
    return load(cached)
