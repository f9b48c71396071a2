"""Images of a folder, as a person would count them: without what systems put beside them."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

__all__ = ["IMAGE_SUFFIXES", "images_in"]

# Of images and documents that a server may read; whether it does is told by its answer.
IMAGE_SUFFIXES = frozenset(
    {
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
        *(".png", ".apng", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff", ".pdf"),
        *(".avif", ".heic", ".heif", ".jp2", ".j2k", ".jpf", ".jpx"),
    }
)
# Copies that storage servers, archives and bins keep of images, in small letters. Whatever begins with a dot is hidden:
# the halves of files that macOS leaves on other systems (`._photo.jpg`), thumbnails, bins, histories.
_FOREIGN = frozenset({"@eadir", "#recycle", "$recycle.bin", "__macosx", "system volume information", "lost+found"})


def images_in(
    folder: str,
    *,
    suffixes: Collection[str] = IMAGE_SUFFIXES,
    on_error: Callable[[OSError], object] | None = None,
) -> Iterator[str]:
    """Find the images of a folder and of those below it; links to folders are not followed.

    Args:
        folder: as it was typed; what is found is named as it begins.
        suffixes: of names that count, in small letters.
        on_error: told of folders that cannot be read.
    """
    for place, folders, names in os.walk(folder, onerror=on_error):
        folders[:] = [name for name in folders if not _is_foreign(name)]
        for name in names:
            path = os.path.join(place, name)  # noqa: PTH118 - keeps ./ as it was typed
            if _is_foreign(name) or Path(name).suffix.lower() not in suffixes:
                continue
            if os.path.isfile(path):  # noqa: PTH113 - never raises
                yield path


def _is_foreign(name: str) -> bool:
    return name.startswith(".") or name.lower() in _FOREIGN
