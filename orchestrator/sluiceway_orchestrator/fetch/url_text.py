"""URLs as they were written. Who signs a URL signs its bytes, so that an equal one is not as good."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from urllib.parse import quote, unquote_to_bytes

__all__ = ["WrittenUrl", "base64_bytes", "data_url_bytes", "is_data_url", "resolved", "split_url"]

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*):", re.IGNORECASE)
_HOST_AND_TARGET = re.compile(r"//([^/?#]*)([^#]*)", re.DOTALL)
# All that cannot stand in the first line of a request.
_UNSENDABLE = re.compile(r"[^\x21-\x7e]+")
_WHITE_SPACE = re.compile(rb"\s+")


@dataclass(frozen=True, slots=True)
class WrittenUrl:
    """The parts of an absolute URL. The fragment is not among them: it is never sent.

    Attributes:
        scheme: lower case.
        authority: as written; None where the URL has no `//`.
        target: path and query as they are sent: spaces and what is not ASCII percent-encoded as UTF-8, else as written.
    """

    scheme: str
    authority: str | None
    target: str


def split_url(text: str) -> WrittenUrl:
    """Split an absolute URL.

    Raises:
        ValueError: it begins with no scheme, or holds half a character.
    """
    scheme = _SCHEME.match(text)
    if scheme is None:
        raise ValueError("no scheme")
    rest = _HOST_AND_TARGET.match(text, scheme.end())
    if rest is None:
        return WrittenUrl(scheme[1].lower(), None, "")
    target = _encoded(rest[2])
    return WrittenUrl(scheme[1].lower(), rest[1], target if target.startswith("/") else f"/{target}")


def resolved(base: str, reference: str) -> str:
    """The URL that a reference stands for (RFC 3986, 5.2); what is absolute already stays as it is.

    Args:
        base: the http or https URL that the reference was found at, with a path and without a fragment.
        reference: absolute, `//host/path`, `/path`, `path` or `?query`.
    """
    reference = reference.strip()
    if _SCHEME.match(reference):
        return reference
    scheme, _, rest = base.partition("://")
    if reference.startswith("//"):
        return f"{scheme}:{reference}"
    authority, slash, target = rest.partition("/")
    path, query = _parts(slash + target)
    wanted_path, wanted_query = _parts(reference.partition("#")[0])
    if not wanted_path:
        return f"{scheme}://{authority}{path}{wanted_query or query}"
    if not wanted_path.startswith("/"):
        wanted_path = path[: path.rfind("/") + 1] + wanted_path
    return f"{scheme}://{authority}{_without_dots(wanted_path)}{wanted_query}"


def is_data_url(text: str) -> bool:
    """Whether a text is a `data:` URL, which holds what it names."""
    return text[:5].lower() == "data:"


def data_url_bytes(text: str) -> bytes:
    """What a `data:` URL holds (RFC 2397).

    Raises:
        ValueError: it cannot be read; with words for people, which hold nothing of it.
    """
    kind, comma, content = text[5:].partition("#")[0].partition(",")
    if not comma:
        raise ValueError("a data: URL without a comma")
    if not kind.replace(" ", "").lower().endswith(";base64"):
        return unquote_to_bytes(content)
    return base64_bytes(unquote_to_bytes(content) if "%" in content else content)


def base64_bytes(text: str | bytes) -> bytes:
    """Decode base64 of either alphabet, with or without padding and line breaks.

    Raises:
        ValueError: it is none; with words for people, which hold nothing of it.
    """
    try:
        data = text.encode("ascii") if isinstance(text, str) else text
        data = _WHITE_SPACE.sub(b"", data).translate(bytes.maketrans(b"-_", b"+/")).rstrip(b"=")
        return base64.b64decode(data + b"=" * (-len(data) % 4), validate=True)
    except ValueError:
        raise ValueError("not base64") from None


def _encoded(target: str) -> str:
    # Of a header that is no UTF-8, bytes reach us as halves of characters. They go out as these bytes again.
    return _UNSENDABLE.sub(lambda match: quote(match[0].encode("utf-8", "surrogateescape"), safe=""), target)


def _parts(text: str) -> tuple[str, str]:
    """A path, and the query with its question mark."""
    path, mark, query = text.partition("?")
    return path, mark + query


def _without_dots(path: str) -> str:
    """Take the steps `.` and `..` of a path that begins with a slash."""
    kept: list[str] = []
    steps = path.split("/")[1:]
    for step in steps:
        if step == "..":
            kept = kept[:-1]
        elif step != ".":
            kept.append(step)
    if steps[-1] in (".", ".."):
        kept.append("")
    return "/" + "/".join(kept)
