"""Weights by name: a verified file in the cache, one that ships with Sluiceway, or the user's own path."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from sluiceway_runtime.errors import StartupError
from sluiceway_runtime.weights.download import Progress, ProgressCallback
from sluiceway_runtime.weights.registry import Entry, Registry, load_registry
from sluiceway_runtime.weights.store import Store, file_sha256

__all__ = [
    "Entry",
    "Progress",
    "ProgressCallback",
    "Weights",
    "cache_folder",
    "fault_of",
    "is_available",
    "load_registry",
    "pull",
    "pull_samples",
    "remove",
    "resolve",
]

MODEL_SUFFIXES = (".onnx", ".pt", ".pt2", ".xml", ".safetensors")


@dataclass(frozen=True, slots=True)
class Weights:
    """Weights that can be loaded now.

    Attributes:
        name: as asked for; for a path, the file's name without its suffix.
        version: the registry's; empty for the user's own file.
        sha256: of `path`.
        path: the model file.
        files: every file by role ("model", "config", ...); "model" is `path`.
        metadata: what the registry says of them: licence, source and the entry's own facts.
    """

    name: str
    version: str
    sha256: str
    path: Path
    files: Mapping[str, Path]
    metadata: Mapping[str, Any] = field(default_factory=dict)


def cache_folder(environment: Mapping[str, str] | None = None) -> Path:
    """Where pulled files lie: `$SLUICEWAY_CACHE`, else `sluiceway` in the user's cache folder.

    Workers and servers must agree on it without being told, so this is the one setting that is read from the
    environment where it is needed.
    """
    variables = os.environ if environment is None else environment
    own = variables.get("SLUICEWAY_CACHE")
    if own:
        return Path(own).expanduser().absolute()
    shared = variables.get("XDG_CACHE_HOME")
    if shared:
        return Path(shared) / "sluiceway"
    try:
        return Path.home() / ".cache" / "sluiceway"
    except RuntimeError:
        # A user id that this machine does not know, as containers are given, and no HOME.
        return _own_temporary_folder()


def _own_temporary_folder() -> Path:
    folder = Path(tempfile.gettempdir()) / f"sluiceway-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        # Compiled models are code, and anybody may make folders there.
        raise StartupError(f"{folder} belongs to somebody else: set HOME, or SLUICEWAY_CACHE to a folder of your own")
    return folder


def resolve(
    name_or_path: str,
    *,
    kind: Literal["detection", "recognition"],
    auto_pull: bool = False,
    registry: Registry | None = None,
    cache: Path | None = None,
) -> Weights:
    """Find weights.

    Args:
        name_or_path: a name of the registry, or a path to the user's own file.
        kind: what they are for; a registry name of the other kind is refused.
        auto_pull: download them if they are missing (`models.auto_pull`).
        registry: instead of the one of this release (tests).
        cache: instead of `cache_folder()`.

    Returns:
        Files that exist and whose hashes were checked just now.

    Raises:
        StartupError: unknown, of the wrong kind, not pulled yet, or damaged; says what to do.
    """
    models = (registry or load_registry()).models
    if fault := fault_of(name_or_path, kind=kind, registry=registry):
        raise StartupError(fault)
    entry = models.get(name_or_path)
    if entry is None:
        path = _path_of(name_or_path)
        return Weights(path.stem, "", file_sha256(path), path, {"model": path})
    if entry.shipped is not None:
        return _shipped(entry)
    store = Store(cache or cache_folder())
    if auto_pull:
        store.pull([entry], _silent)
    found = store.find(entry)
    if found is None:
        state = "damaged in" if store.folder(entry).exists() else "not in"
        raise StartupError(
            f"the weights {entry.name} are {state} the cache {store.root}: run `sluiceway models pull {entry.name}`"
        )
    main = found[entry.main_role]
    paths = {role: item.path for role, item in found.items()}
    return Weights(entry.name, entry.version, main.sha256, main.path, paths, _metadata(entry))


def fault_of(name_or_path: str, *, kind: Literal["detection", "recognition"], registry: Registry | None = None) -> str:
    """Say what is wrong with a name or path before anything is loaded; empty if nothing is.

    Args:
        name_or_path: as for `resolve`.
        kind: what they are for.
        registry: instead of the one of this release (tests).
    """
    models = (registry or load_registry()).models
    entry = models.get(name_or_path)
    if entry is not None:
        return "" if entry.kind == kind else f"the weights {entry.name} are for {entry.kind}, not for {kind}"
    if _path_of(name_or_path).is_file():
        return ""
    if os.sep in name_or_path or Path(name_or_path).suffix in MODEL_SUFFIXES:
        return f"the weights file {name_or_path} does not exist"
    names = ", ".join(name for name, entry in models.items() if entry.kind == kind)
    return f"no weights named {name_or_path} for {kind}; there are {names}, or give the path of a file"


def is_available(name: str, *, registry: Registry | None = None, cache: Path | None = None) -> bool:
    """Whether a registry name can be resolved without a download; hashes are not checked."""
    entry = (registry or load_registry()).models[name]
    return entry.shipped is not None or Store(cache or cache_folder()).find(entry, verify=False) is not None


def pull(
    names: str | Iterable[str],
    progress: ProgressCallback | None = None,
    *,
    registry: Registry | None = None,
    cache: Path | None = None,
) -> None:
    """Bring weights into the cache.

    Args:
        names: names of the registry.
        progress: called as it goes.
        registry: instead of the one of this release (tests).
        cache: instead of `cache_folder()`.

    Raises:
        StartupError: an unknown name, or see `Store.pull`.
    """
    models = (registry or load_registry()).models
    entries = _entries([names] if isinstance(names, str) else list(names), models, "weights")
    Store(cache or cache_folder()).pull(entries, progress or _silent)


def remove(name: str, *, registry: Registry | None = None, cache: Path | None = None) -> bool:
    """Take weights out of the cache.

    Args:
        name: of the registry.
        registry: instead of the one of this release (tests).
        cache: instead of `cache_folder()`.

    Returns:
        Whether they were there.

    Raises:
        StartupError: an unknown name, weights that ship with Sluiceway, or a disk that does not do it.
    """
    [entry] = _entries([name], (registry or load_registry()).models, "weights")
    if entry.shipped is not None:
        raise StartupError(f"the weights {name} ship with Sluiceway and are not in the cache")
    return Store(cache or cache_folder()).remove(entry)


def pull_samples(
    names: Iterable[str] = (),
    progress: ProgressCallback | None = None,
    *,
    registry: Registry | None = None,
    cache: Path | None = None,
) -> dict[str, Path]:
    """Bring sample images into the cache.

    Args:
        names: which; none means all.
        progress: called as it goes.
        registry: instead of the one of this release (tests).
        cache: instead of `cache_folder()`.

    Returns:
        The image files by name.

    Raises:
        StartupError: an unknown name, or see `Store.pull`.
    """
    samples = (registry or load_registry()).samples
    entries = _entries(list(names) or list(samples), samples, "samples")
    store = Store(cache or cache_folder())
    store.pull(entries, progress or _silent)
    return {entry.name: store.folder(entry) / entry.files[0].file_name for entry in entries}


def _entries(names: list[str], known: Mapping[str, Entry], what: str) -> list[Entry]:
    unknown = [name for name in names if name not in known]
    if unknown:
        raise StartupError(f"no {what} named {', '.join(unknown)}; there are {', '.join(known)}")
    return [known[name] for name in names]


def _path_of(text: str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError:
        # `~` of a user that this machine does not know.
        return Path(text)


def _shipped(entry: Entry) -> Weights:
    assert entry.shipped is not None
    path = Path(str(resources.files("sluiceway") / "weights" / entry.shipped))
    expected = next(file.sha256 for file in entry.files if file.role == entry.main_role)
    if not path.is_file() or file_sha256(path) != expected:
        raise StartupError(
            f"the weights {entry.name} that ship with Sluiceway are missing or damaged: install it again"
        )
    return Weights(entry.name, entry.version, expected, path, {entry.main_role: path}, _metadata(entry))


def _metadata(entry: Entry) -> dict[str, Any]:
    return {"licence": entry.licence, "source": entry.source, **entry.metadata}


def _silent(progress: Progress) -> None:
    """Report to nobody."""
