"""What can be processed: a path, bytes, a picture in memory, a URL, or a call of an API that the server knows."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable
from urllib.parse import parse_qsl, urlsplit

from PIL import Image, ImageOps

from sluiceway.client.files import MAX_SOURCE_BYTES, read_file, require_size
from sluiceway.errors import InvalidImage, InvalidInput, SluicewayError

__all__ = [
    "ApiCall",
    "ArrayLike",
    "LoadedSource",
    "Source",
    "SourceLike",
    "describe_source",
    "load_source",
    "path_of",
    "with_calls",
]

ChannelOrder = Literal["bgr", "rgb"]

# Schemes are written in either case.
_URLS = ("http://", "https://", "data:")
_API = "api:"
# Safely below the 32 MiB that a server takes unless told otherwise; a photograph of 12 megapixels has 36 MB.
MAX_BMP_BYTES = 24 * 2**20
# The fastest: photographs come out little larger than at the highest level, in a fraction of its time.
PNG_LEVEL = 1


@runtime_checkable
class ArrayLike(Protocol):
    """What numpy arrays have, so that numpy need not be installed."""

    @property
    def __array_interface__(self) -> dict[str, Any]:
        """Shape, type and address of the elements."""


@dataclass(frozen=True, slots=True)
class ApiCall:
    """A call of an API that the operator configured.

    As a source, its answer holds the image or says where it is; as a further call of a source, it may say anything.

    Attributes:
        api: name of the API.
        params: its declared parameters by name.
        name: of its answer in `Result.values`; empty takes that of the API, numbered where it is called several times.
    """

    api: str
    params: Mapping[str, str] = field(default_factory=dict)
    name: str = ""

    @classmethod
    def parse(cls, text: str) -> ApiCall:
        """Read `api:NAME?key=value&key=value`.

        Raises:
            InvalidInput: no name, or text that does not start with `api:`.
        """
        try:
            parts = urlsplit(text)
        except ValueError:
            parts = urlsplit("")
        if parts.scheme != "api" or not parts.path:
            raise InvalidInput(f"{text} is not of the form api:NAME?key=value")
        return cls(parts.path, dict(parse_qsl(parts.query, keep_blank_values=True)))

    def __str__(self) -> str:
        query = "&".join(f"{key}={value}" for key, value in self.params.items())
        return f"api:{self.api}?{query}" if query else f"api:{self.api}"


Content = str | os.PathLike[str] | bytes | bytearray | memoryview | Image.Image | ArrayLike | ApiCall


@dataclass(frozen=True, slots=True)
class Source:
    """A source with what belongs to it alone.

    Attributes:
        content: the image; None if one of the calls, or of the pipeline's own, brings it.
        calls: further APIs to ask before detection, all at once; their answers are in `Result.values`.
        params: for the call steps of the pipeline, by name.
        channels: order of the channels, if the image is an array and another than the client's.
    """

    content: Content | None = None
    calls: Sequence[ApiCall] = ()
    params: Mapping[str, str] = field(default_factory=dict)
    channels: ChannelOrder | None = None


SourceLike = Content | Source


@dataclass(frozen=True, slots=True)
class LoadedSource:
    """A source as it goes on the wire: at most one of image, url and call is set."""

    name: str
    image: bytes | None = None
    url: str | None = None
    call: ApiCall | None = None
    calls: tuple[ApiCall, ...] = ()
    params: Mapping[str, str] = field(default_factory=dict)


def with_calls(source: SourceLike, calls: Sequence[ApiCall], params: Mapping[str, str] | None) -> SourceLike:
    """Add further calls and parameters to a source; its own parameters win."""
    if not calls and not params:
        return source
    whole = source if isinstance(source, Source) else Source(source)
    return replace(whole, calls=(*whole.calls, *calls), params={**(params or {}), **whole.params})


def describe_source(source: SourceLike) -> str:
    """Name a source the way a person would."""
    if isinstance(source, Source):
        if source.content is not None:
            return describe_source(source.content)
        return " ".join(map(str, source.calls)) or "nothing but parameters"
    if isinstance(source, Image.Image):
        return f"picture {source.width}x{source.height}"
    if isinstance(source, bytes | bytearray | memoryview):
        return f"{len(source)} bytes"
    if isinstance(source, str) and source[:5].lower() == "data:":
        # Not the picture itself, which may be megabytes of text.
        return f"{source[:64].partition(',')[0]},… ({len(source)} characters)"
    if isinstance(source, str | os.PathLike | ApiCall):
        return str(source)
    if isinstance(source, ArrayLike):
        interface: dict[str, Any] = source.__array_interface__
        return "array " + "x".join(map(str, interface["shape"]))
    return type(source).__name__


def path_of(source: SourceLike) -> Path | None:
    """Say which file a source is in; None if it is in none."""
    content = source.content if isinstance(source, Source) else source
    if isinstance(content, str):
        return None if _is_url(content) or content.startswith(_API) else Path(content)
    return Path(content) if isinstance(content, os.PathLike) else None


def _is_url(text: str) -> bool:
    return text[: len("https://")].lower().startswith(_URLS)


def load_source(
    source: SourceLike, *, channels: ChannelOrder = "bgr", most_bytes: int = MAX_SOURCE_BYTES
) -> LoadedSource:
    """Read or encode a source.

    Args:
        source: URLs (`http://`, `https://`, `data:`) and `api:NAME?key=value` are told from paths by how they begin.
        channels: order in three-channel arrays; what OpenCV reads is "bgr". Pillow pictures know theirs.
        most_bytes: of a larger file nothing is read.

    Returns:
        What to send. Pictures in memory are encoded without loss.

    Raises:
        ImageTooLarge: the file is larger than `most_bytes`, or nothing that is sent could hold the image.
        InvalidImage: the file or the picture cannot be read, or the array is not uint8 [H, W], [H, W, 3] or [H, W, 4].
    """
    name = describe_source(source)
    match source:
        case Source():
            content = LoadedSource(name)
            if source.content is not None:
                content = load_source(source.content, channels=source.channels or channels, most_bytes=most_bytes)
            return replace(content, calls=tuple(source.calls), params=dict(source.params))
        case ApiCall():
            return LoadedSource(name, call=source)
        case bytes() | bytearray() | memoryview():
            return LoadedSource(name, image=_sized(bytes(source)))
        case Image.Image():
            with _unreadable_pictures():
                return LoadedSource(name, image=_sized(_encode(ImageOps.exif_transpose(source))))
        case str() if _is_url(source):
            return LoadedSource(name, url=source)
        case str() if source.startswith(_API):
            return LoadedSource(name, call=ApiCall.parse(source))
        case str() | os.PathLike():
            return LoadedSource(name, image=read_file(Path(source), most_bytes))
        case ArrayLike():
            with _unreadable_pictures():
                return LoadedSource(name, image=_sized(_encode(_picture(source, channels))))
    raise InvalidInput(
        f"cannot process a {type(source).__name__}: give a path, bytes, array, picture, URL, ApiCall or Source"
    )


def _sized(image: bytes) -> bytes:
    require_size("the image", len(image))
    return image


@contextmanager
def _unreadable_pictures() -> Iterator[None]:
    """Pillow reads a file when its pixels are wanted, that is here, and each of its decoders raises what it likes."""
    try:
        yield
    except SluicewayError:
        raise
    except Exception as error:  # of any kind: one picture must not end a run of many
        raise InvalidImage(f"cannot read the picture: {error}") from error


def _picture(array: ArrayLike, channels: ChannelOrder) -> Image.Image:
    interface = array.__array_interface__
    shape, kind = interface["shape"], interface["typestr"]
    flat = len(shape) == 2 or (len(shape) == 3 and shape[2] in (3, 4))
    if kind != "|u1" or not flat or 0 in shape:
        raise InvalidImage(f"an array must be uint8 [H, W], [H, W, 3] or [H, W, 4], not {kind} {list(shape)}")
    picture = Image.fromarray(array)
    if channels == "bgr" and len(shape) == 3:
        blue, green, red, *alpha = picture.split()
        return Image.merge("RGBA" if alpha else "RGB", (red, green, blue, *alpha))
    return picture


def _encode(picture: Image.Image) -> bytes:
    """Encode without loss, as BMP: some twenty times faster than PNG, and the wire is rarely the narrow place.

    What would be too large for a server goes as PNG, and so does what BMP does not have: 16 bits a channel, and
    transparency, of which the server sees to the ground.
    """
    if picture.mode != "I;16" and picture.mode.startswith(("I", "F")):
        # Converted, all above 255 would be white.
        raise InvalidImage(f"a picture of mode {picture.mode} has no known range: scale it to 255 and convert it to L")
    transparent = _is_transparent(picture)
    if transparent and picture.mode in ("La", "RGBa", "PA"):
        picture = picture.convert("LA" if picture.mode == "La" else "RGBA")
    elif not transparent and picture.mode not in ("L", "RGB", "I;16"):
        picture = picture.convert("RGB")
    buffer = io.BytesIO()
    if (
        transparent
        or picture.mode == "I;16"
        or picture.width * picture.height * len(picture.getbands()) > MAX_BMP_BYTES
    ):
        picture.save(buffer, format="PNG", compress_level=PNG_LEVEL)
    else:
        picture.save(buffer, format="BMP")
    return buffer.getvalue()


def _is_transparent(picture: Image.Image) -> bool:
    """Whether anything of a picture can be seen through; an alpha channel may be opaque everywhere."""
    if picture.mode in ("LA", "La", "PA", "RGBA", "RGBa"):
        least, _ = picture.getchannel(picture.getbands()[-1]).getextrema()
        return least != 255
    return "transparency" in picture.info
