"""Requests that are described in the configuration, filled in with the parameters of a call."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from urllib.parse import quote

from sluiceway_runtime.errors import ConfigurationError, InvalidOption

from sluiceway_orchestrator.config.apis import PLACEHOLDER, ApiConfig
from sluiceway_orchestrator.fetch.http import Request

__all__ = ["RequestTemplate"]


class RequestTemplate:
    """The request of one API, with its secrets.

    Raises:
        ConfigurationError: a secret is not in the environment.
    """

    def __init__(self, name: str, config: ApiConfig, environment: Mapping[str, str]) -> None:
        assert config.url is not None
        self._config = config
        self._url = config.url
        absent = [variable for variable in config.secrets.values() if variable not in environment]
        if absent:
            raise ConfigurationError(f"api.{name}.secrets: not in the environment: {', '.join(sorted(absent))}")
        self._secrets = {key: environment[variable] for key, variable in config.secrets.items()}
        self._secret_headers = frozenset(
            header.lower() for header, text in config.headers.items() if "{secret." in text
        )

    def fill(self, params: Mapping[str, str]) -> Request:
        """The request for these parameters, of which none escapes from its place. Raises InvalidOption."""
        config = self._config
        path, mark, query = self._url.partition("?")
        url = self._fill(path, params, _path_text) + mark + self._fill(query, params, _quoted)
        headers = {name: self._fill(text, params, _header_value) for name, text in config.headers.items()}
        body = None
        if config.body is not None:
            content_type = next((text for name, text in headers.items() if name.lower() == "content-type"), None)
            if content_type is None:
                content_type = headers["Content-Type"] = "application/json"
            escape = _json_text if "json" in content_type else _quoted
            body = self._fill(config.body, params, escape).encode()
        return Request(url, config.method, headers, body, self._secret_headers)

    def _fill(self, template: str, params: Mapping[str, str], escape: Callable[[str, str], str]) -> str:
        return PLACEHOLDER.sub(
            lambda match: escape(match[2], self._secrets[match[2]] if match[1] else params[match[2]]), template
        )


def _path_text(name: str, value: str) -> str:
    if value in (".", ".."):
        # Percent-encoding does not protect dots: servers read them as a step in the path.
        raise InvalidOption(f"api_call.params.{name}: must not be a path step")
    return _quoted(name, value)


def _quoted(_name: str, value: str) -> str:
    return quote(value, safe="")


def _json_text(_name: str, value: str) -> str:
    return json.dumps(value)[1:-1]


def _header_value(name: str, value: str) -> str:
    if any(ord(character) < 0x20 or ord(character) == 0x7F for character in value):
        raise InvalidOption(f"api_call.params.{name}: must not hold control characters")
    return value
