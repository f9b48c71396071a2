"""URLs as text: split, resolved, and what data: URLs hold."""

from __future__ import annotations

import pytest
from sluiceway_orchestrator.fetch.guard import host_of
from sluiceway_orchestrator.fetch.url_text import base64_bytes, data_url_bytes, resolved, split_url

BASE = "http://a/b/c/d;p?q"


@pytest.mark.parametrize(
    ("reference", "url"),
    [
        # RFC 3986, 5.4; references without a scheme, and those that stay as they are.
        ("g", "http://a/b/c/g"), ("./g", "http://a/b/c/g"), ("g/", "http://a/b/c/g/"), ("/g", "http://a/g"),
        ("//g", "http://g"), ("?y", "http://a/b/c/d;p?y"), ("g?y", "http://a/b/c/g?y"), ("#s", BASE),
        ("g#s", "http://a/b/c/g"), (";x", "http://a/b/c/;x"), ("", BASE), (".", "http://a/b/c/"),
        ("./", "http://a/b/c/"), ("..", "http://a/b/"), ("../", "http://a/b/"), ("../g", "http://a/b/g"),
        ("../..", "http://a/"), ("../../g", "http://a/g"), ("../../../g", "http://a/g"), ("/./g", "http://a/g"),
        ("/../g", "http://a/g"), ("g.", "http://a/b/c/g."), ("..g", "http://a/b/c/..g"), ("./g/.", "http://a/b/c/g/"),
        ("g;x=1/../y", "http://a/b/c/y"), ("g?y/../x", "http://a/b/c/g?y/../x"), ("g:h", "g:h"),
        # Every byte stays.
        ("a%2fb%20c d?", "http://a/b/c/a%2fb%20c d?"), ("http://x/../y?", "http://x/../y?"), (" /g\n", "http://a/g"),
        ("/a//b", "http://a/a//b"), ("/{x}", "http://a/{x}"),
    ],
)  # fmt: skip
def test_references_are_resolved_byte_for_byte(reference: str, url: str) -> None:
    assert resolved(BASE, reference) == url


@pytest.mark.parametrize(
    ("base", "reference", "url"),
    [
        ("http://a/", "g", "http://a/g"),
        ("http://a/", "?y", "http://a/?y"),
        ("http://a/?q=/x", "g", "http://a/g"),
        ("https://[::1]:8/b/c", "g", "https://[::1]:8/b/g"),
    ],
)
def test_bases_of_other_forms(base: str, reference: str, url: str) -> None:
    assert resolved(base, reference) == url


def test_a_url_is_split_and_its_target_can_be_sent() -> None:
    written = split_url("HTTPS://User@Host:1/ä b%20?c#d")
    assert (written.scheme, written.authority, written.target) == ("https", "User@Host:1", "/%C3%A4%20b%20?c")
    assert split_url("http://h?q").target == "/?q"
    assert split_url("mailto:a@b").authority is None
    for text in ("", "a/b", "//h/p", "http://h/\ud800"):
        with pytest.raises(ValueError, match=r"no scheme|surrogates"):
            split_url(text)


@pytest.mark.parametrize("text", ["", "/a", "http:///a", "http://[0]e@", "http://[::1", "http:a"])
def test_a_url_without_a_host_has_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"no host|no URL|no scheme|IPv6"):
        host_of(text)


@pytest.mark.parametrize(
    ("text", "held"),
    [
        ("data:,a%20b", b"a b"),
        ("data:text/plain;charset=utf-8,a+b", b"a+b"),
        ("data:;base64,YWI=", b"ab"),
        ("data:image/png;base64,YW\nI", b"ab"),
        ("data:image/png; BASE64 ,-_8%3D", b"\xfb\xff"),
        ("data:,", b""),
    ],
)
def test_what_a_data_url_holds(text: str, held: bytes) -> None:
    assert data_url_bytes(text) == held


@pytest.mark.parametrize(
    "text", ["data:", "data:image/png;base64", "data:;base64,a", "data:;base64,ä", "data:;base64,a b!"]
)
def test_a_data_url_that_holds_nothing(text: str) -> None:
    with pytest.raises(ValueError, match=r"base64|comma") as caught:
        data_url_bytes(text)
    assert caught.value.__cause__ is None


def test_base64_of_either_alphabet() -> None:
    assert base64_bytes(b"+/-_") == base64_bytes("-_+/") == b"\xfb\xff\xbf" + b""
