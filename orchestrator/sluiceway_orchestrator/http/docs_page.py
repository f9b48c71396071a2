"""The page `/docs`: the OpenAPI document for people, made here and complete in itself."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

from sluiceway_orchestrator.http.openapi import document

__all__ = ["PAGE_HEADERS", "page"]

_TEMPLATE = files(__package__).joinpath("docs_page.html").read_text("utf-8")
_EXAMPLES = {
    "/v1/process": (
        "curl -F file=@photo.jpg {server}/v1/process",
        "curl --data-binary @photo.jpg -H 'Accept: application/json' {server}/v1/process",
        "curl -d url=https://example.org/page.png {server}/v1/process",
    ),
    "/v1/describe": ("curl {server}/v1/describe",),
    "/v1/watch": ("curl -N {server}/v1/watch",),
    "/healthz": ("curl {server}/healthz",),
}
_LIMITS = {
    "minimum": "≥",
    "exclusiveMinimum": ">",
    "maximum": "≤",
    "multipleOf": "a multiple of",
    "maxLength": "length ≤",
}
_SERVER = "http://localhost:8080"


def _hash_of(tag: str) -> str:
    """How a browser is told which of the page's own text it may use."""
    found = re.search(rf"<{tag}>(.*?)</{tag}>", _TEMPLATE, re.DOTALL)
    assert found is not None
    return f"'sha256-{base64.b64encode(hashlib.sha256(found[1].encode()).digest()).decode()}'"


# Nothing from elsewhere, and no page of elsewhere around it.
PAGE_HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": f"default-src 'none'; style-src {_hash_of('style')}; script-src {_hash_of('script')}; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
}


@lru_cache(maxsize=1)
def page(release: str) -> str:
    """Return the page of a release."""
    plain = document(release)
    info = plain["info"]
    operations = "".join(
        _operation(path, method, operation)
        for path, methods in plain["paths"].items()
        for method, operation in methods.items()
    )
    schemas = "".join(_schema(name, schema) for name, schema in plain["components"]["schemas"].items())
    return Template(_TEMPLATE).substitute(
        title=escape(f"{info['title']} {release}"),
        name=escape(info["title"]),
        release=escape(release),
        description=escape(info["description"]),
        openapi=escape(plain["openapi"]),
        operations=operations,
        schemas=schemas,
    )


def _operation(path: str, method: str, operation: Mapping[str, Any]) -> str:
    parts = [
        f'<h2 id="{operation["operationId"]}"><span class="method">{method.upper()}</span> {escape(path)}</h2>',
        f"<p>{escape(operation['summary'])}</p>",
    ]
    examples = "\n".join(example.format(server=_SERVER) for example in _EXAMPLES.get(path, ()))
    if examples:
        parts.append(f"<pre>{escape(examples)}</pre>")
    if "parameters" in operation:
        rows = [(item["name"], _type(item["schema"]), item["description"]) for item in operation["parameters"]]
        parts += ["<h3>Parameters</h3>", _table(("name", "type", ""), rows)]
    if "requestBody" in operation:
        parts += ["<h3>Body</h3>", _contents(operation["requestBody"]["content"])]
    parts.append("<h3>Answers</h3>")
    for status, response in operation["responses"].items():
        parts.append(f"<p><code>{status}</code> {escape(response['description'])}</p>")
        if status == "200":
            parts.append(_contents(response["content"]))
    return "".join(parts)


def _contents(content: Mapping[str, Any]) -> str:
    rows = [(kind, _type(body["schema"]), body["schema"].get("description", "")) for kind, body in content.items()]
    return _table(("content type", "schema", ""), rows)


def _schema(name: str, schema: Mapping[str, Any]) -> str:
    rows = [(field, _type(item), item.get("description", "")) for field, item in schema.get("properties", {}).items()]
    text = escape(schema.get("description", ""))
    inner = f"<p>{text}</p>" + _table(("field", "type", ""), rows)
    return f'<details id="{escape(name)}"><summary><code>{escape(name)}</code></summary>{inner}</details>'


def _table(head: Sequence[str], rows: Iterable[tuple[str, str, str]]) -> str:
    """A table whose second column is HTML already."""
    titles = "".join(f"<th>{escape(title)}</th>" for title in head)
    body = "".join(
        f"<tr><td><code>{escape(name)}</code></td><td>{kind}</td><td>{escape(text)}</td></tr>"
        for name, kind, text in rows
    )
    return f"<table><tr>{titles}</tr>{body}</table>"


def _type(schema: Mapping[str, Any]) -> str:
    """A schema in a few words of HTML, with a link where it has a name."""
    if "$ref" in schema:
        name = escape(schema["$ref"].rpartition("/")[2])
        return f'<a href="#{name}">{name.rpartition(".")[2]}</a>'
    if "oneOf" in schema:
        return " or ".join(map(_type, schema["oneOf"]))
    kind = schema.get("type", "anything")
    if kind == "array":
        return f"list of {_type(schema['items'])}"
    if "enum" in schema:
        return ", ".join(f"<code>{escape(value)}</code>" for value in schema["enum"])
    if kind == "object" and isinstance(schema.get("additionalProperties"), Mapping):
        return f"object of {_type(schema['additionalProperties'])}"
    words = " or ".join(kind) if isinstance(kind, list) else kind
    limits = [f"{sign} {schema[key]}" for key, sign in _LIMITS.items() if key in schema]
    extra = schema.get("format") or ("base64" if "contentEncoding" in schema else "")
    return escape(" ".join(filter(None, (words, extra and f"({extra})", ", ".join(limits)))))
