"""The sections `[api.NAME]` of the configuration."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from sluiceway_runtime.errors import ConfigurationError

__all__ = ["PLACEHOLDER", "ApiConfig", "DetectionOption", "Network", "Pointer", "Proxy", "load_apis", "require_secrets"]

# `{name}` stands for a declared parameter, `{secret.NAME}` for a secret; anything else in braces is left alone, so that
# JSON bodies need no escaping.
PLACEHOLDER = re.compile(r"\{(secret\.)?([A-Za-z_][A-Za-z0-9_]*)\}")
_API_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
# A class of the user's own makes its requests itself; of all that describes one it would hear nothing.
_KEYS_OF_CALLERS = ("caller", "config", "timeout_s", "max_in_flight", "breaker_failures", "breaker_open_s")
_RENAMED = {"metadata": "values"}


def _network(text: str) -> str:
    ipaddress.ip_network(text)
    return text


Network = Annotated[str, AfterValidator(_network)]
Proxy = Annotated[str, Field(pattern=r"^https?://[^/@\s]+/?$")]
Pointer = Annotated[str, Field(pattern=r"^(/([^~]|~[01])*)?$")]
DetectionOption = Literal["confidence", "iou", "classes", "max_detections", "image_size", "scale"]


class _Faults(ValueError):
    """What is wrong with a table, each fault with its key ("" for the table as a whole)."""

    def __init__(self, faults: list[tuple[str, str]]) -> None:
        super().__init__("; ".join(f"{key}: {text}" if key else text for key, text in faults))
        self.faults = faults


class ApiConfig(BaseModel):
    """One external API that sources and steps may call by name: described here, or a class of the user's own."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    caller: str | None = Field(None, description="`module:Class`, or the name of a `sluiceway.callers` entry point.")
    config: Mapping[str, Any] = Field({}, description="Handed to the `setup` of the caller as it is.")
    url: str | None = Field(None, description="URL with {param} in its path or query, never in its host.")
    params: tuple[str, ...] = Field((), description="Names of the parameters that a call has to give.")
    method: Literal["GET", "POST", "PUT"] = Field("GET", description="Of the request.")
    headers: Mapping[str, str] = Field({}, description="May hold {secret.NAME} and {param}.")
    body: str | None = Field(None, description="Body with {param}, escaped for JSON, or for a form if headers say so.")
    secrets: Mapping[str, str] = Field({}, description="NAME of a secret to the environment variable that holds it.")
    timeout_s: float = Field(10, gt=0, le=600, description="For one attempt, all of its redirects included.")
    retries: int = Field(2, ge=0, le=10, description="Further attempts, for idempotent calls only.")
    idempotent: bool | None = Field(None, description="Default: GET is, other methods are not.")
    hedge_after_s: float | None = Field(
        None, gt=0, description="Send a second request when the first (idempotent) one has not answered by then."
    )
    image: Literal["body", "base64", "url", "none"] = Field(
        "body", description="The answer is the image, holds it, names its URL, or has values alone."
    )
    image_pointer: Pointer | None = Field(
        None,
        description="RFC 6901 pointer to the base64 text, the URL, or a list of URLs (the first good one is taken).",
    )
    values: Mapping[str, Pointer] = Field({}, description="Value handed to the client to its JSON pointer.")
    detection: Mapping[DetectionOption, Pointer] = Field(
        {},
        description="Detection option that the answer chooses (`confidence`, `iou`, `classes`, `max_detections`, "
        "`image_size`, `scale`) to its JSON pointer.",
    )
    allow_hosts: tuple[str, ...] = Field(("*",), description="Hosts that URLs in the answer, and redirects, may name.")
    allow_cidrs: tuple[Network, ...] = Field((), description="Non-public addresses that they may lead to.")
    proxy: Proxy | None = Field(None, description="What its requests go through, such as http://proxy:3128.")
    max_in_flight: int = Field(64, ge=1, description="Calls of this API at once.")
    breaker_failures: int = Field(8, ge=1, description="Failures in a row that stop calls for a while.")
    breaker_open_s: float = Field(5, gt=0, description="How long they are stopped before one is tried.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.caller is None) == (self.url is None):
            faults = [("", "exactly one of `caller` and `url` must be given")]
        elif self.url is None:
            faults = self._faults_of_caller()
        else:
            faults = [*_faults_of_url(self.url), *self._faults_of_answer(), *self._faults_of_placeholders(self.url)]
        if faults:
            raise _Faults(faults)
        return self

    def _faults_of_caller(self) -> list[tuple[str, str]]:
        faults = []
        for key in sorted(self.model_fields_set.difference(_KEYS_OF_CALLERS)):
            why = "a caller names its parameters in its class" if key == "params" else "a caller does not hear of it"
            faults.append((key, f"{why}; beside `caller` there may be {', '.join(_KEYS_OF_CALLERS[1:])}"))
        return faults

    def _faults_of_answer(self) -> list[tuple[str, str]]:
        faults = []
        if "config" in self.model_fields_set:
            faults.append(("config", "only a caller is given it"))
        if (self.image in ("base64", "url")) != (self.image_pointer is not None):
            faults.append(("image_pointer", "needed for image = base64 or url, and only there"))
        if self.image == "body":
            for key, table in (("values", self.values), ("detection", self.detection)):
                if table:
                    faults.append((key, "an answer that is the image itself has no fields"))
        # URLs that the answer names are fetched with GET, and as often as these say.
        if not self.safe_to_repeat and self.image != "url":
            once = "a call that is not idempotent is made once"
            faults += [(key, once) for key in ("retries", "hedge_after_s") if getattr(self, key) and self._says(key)]
        return faults

    def _faults_of_placeholders(self, url: str) -> list[tuple[str, str]]:
        faults, used = [], set()
        texts = [("url", url), ("body", self.body or ""), *((f"headers.{k}", v) for k, v in self.headers.items())]
        for key, text in texts:
            for secret, name in PLACEHOLDER.findall(text):
                used.add((bool(secret), name))
                if secret and name not in self.secrets:
                    faults.append((key, f"{{secret.{name}}}: no such secret"))
                if not secret and name not in self.params:
                    faults.append((key, f"{{{name}}}: no such parameter"))
        nowhere = "stands nowhere in the request"
        faults += [("params", f"{{{name}}} {nowhere}") for name in self.params if (False, name) not in used]
        faults += [(f"secrets.{name}", nowhere) for name in self.secrets if (True, name) not in used]
        return faults

    def _says(self, key: str) -> bool:
        return key in self.model_fields_set

    @property
    def safe_to_repeat(self) -> bool:
        """Whether a call may be sent again, or twice at once."""
        return self.method == "GET" if self.idempotent is None else self.idempotent


def _faults_of_url(url: str) -> list[tuple[str, str]]:
    match = re.match(r"https?://([^/?#]+)", url, re.IGNORECASE)
    if match is None:
        return [("url", "must start with http:// or https:// and a host")]
    faults = []
    if PLACEHOLDER.search(match[1]):
        faults.append(("url", "the host must be fixed, or a client could choose where secrets are sent"))
    if "@" in match[1]:
        faults.append(("url", "a user name in it is never sent; use headers and secrets"))
    return faults


def load_apis(tables: Mapping[str, Any]) -> dict[str, ApiConfig]:
    """Read every `[api.NAME]`.

    Args:
        tables: the whole configuration, as `sluiceway_runtime.config.read_file` returned it.

    Raises:
        ConfigurationError: with every fault of every API, each naming its key.
    """
    apis: dict[str, ApiConfig] = {}
    faults: list[str] = []
    section = tables.get("api", {})
    if not isinstance(section, Mapping):
        raise ConfigurationError("api: must hold a table for each API")
    for name, table in section.items():
        if not _API_NAME.fullmatch(name):
            faults.append(f"api.{name}: a name has letters, digits, '_', '.', '-', at most 64")
            continue
        try:
            apis[name] = ApiConfig.model_validate(table)
        except ValidationError as error:
            for fault in error.errors(include_url=False, include_input=False):
                faults += _lines(name, fault["loc"], fault["type"], fault["msg"], fault.get("ctx", {}).get("error"))
    if faults:
        raise ConfigurationError("\n".join(faults))
    return apis


def require_secrets(apis: Mapping[str, ApiConfig], environment: Mapping[str, str]) -> None:
    """Refuse APIs whose secrets are not there.

    Raises:
        ConfigurationError: every secret that is missing, one a line, by key.
    """
    lines = [
        f"api.{name}.secrets.{secret}: {variable} is not set"
        for name, api in apis.items()
        for secret, variable in api.secrets.items()
        if variable not in environment
    ]
    if lines:
        raise ConfigurationError("\n".join(lines))


def _lines(name: str, place: tuple[int | str, ...], kind: str, message: str, error: object) -> list[str]:
    """One fault of pydantic's as lines, each beginning with its key."""
    if isinstance(error, _Faults):
        return [f"{'.'.join(filter(None, ('api', name, key)))}: {text}" for key, text in error.faults]
    if kind == "extra_forbidden":
        renamed = _RENAMED.get(str(place[-1])) if len(place) == 1 else None
        message = f"is called `{renamed}` now" if renamed else "unknown key"
    # Where the key of a table is at fault, the place ends in a word of pydantic's own.
    keys = (str(part) for part in place if part != "[key]")
    return [f"{'.'.join(('api', name, *keys))}: {message}"]
