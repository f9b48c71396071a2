"""Faults of `[api.NAME]` are found at start, all at once, by key."""

from __future__ import annotations

from typing import Any

import pytest
from sluiceway_orchestrator.config import OrchestratorConfig
from sluiceway_orchestrator.config.apis import ApiConfig, load_apis
from sluiceway_orchestrator.fetch.fetcher import Fetcher
from sluiceway_runtime.errors import ConfigurationError

GOOD = {"url": "https://example.org/{id}", "params": ["id"]}
PLAIN = {"url": "https://e.org/"}
JSON = {**PLAIN, "image": "none"}
POST = {**JSON, "method": "POST"}
CALLER = {"caller": "m:C"}


@pytest.mark.parametrize(
    ("table", "key", "words"),
    [
        ({}, "", "exactly one"),
        ({**PLAIN, **CALLER}, "", "exactly one"),
        ({"url": "ftp://e.org/"}, "url", "http"),
        ({"url": "https://{host}/", "params": ["host"]}, "url", "host must be fixed"),
        ({"url": "https://user:word@e.org/"}, "url", "user name"),
        ({"url": "https://e.org/{id}"}, "url", "no such parameter"),
        ({**PLAIN, "headers": {"A": "{secret.x}"}}, "headers.A", "no such secret"),
        ({**PLAIN, "image": "base64"}, "image_pointer", "needed for"),
        ({**PLAIN, "image_pointer": "/a"}, "image_pointer", "needed for"),
        ({**PLAIN, "image": "url", "image_pointer": "a"}, "image_pointer", "match pattern"),
        ({**PLAIN, "values": {"a": "/a"}}, "values", "no fields"),
        ({**PLAIN, "detection": {"iou": "/a"}}, "detection", "no fields"),
        ({**PLAIN, "allow_cidrs": ["10.0.0.1/8"]}, "allow_cidrs.0", "host bits"),
        ({**PLAIN, "timeout": 3}, "timeout", "unknown key"),
        ({**PLAIN, "method": "DELETE"}, "method", "GET"),
        # What has changed its name, and what has no effect.
        ({**JSON, "metadata": {"a": "/a"}}, "metadata", "is called `values` now"),
        ({**JSON, "detection": {"colour": "/a"}}, "detection.colour", "'confidence'"),
        ({**JSON, "config": {"a": 1}}, "config", "only a caller"),
        ({**POST, "retries": 3}, "retries", "made once"),
        ({**POST, "hedge_after_s": 1}, "hedge_after_s", "made once"),
        ({**JSON, "idempotent": False, "retries": 3}, "retries", "made once"),
        ({**PLAIN, "params": ["id"]}, "params", "stands nowhere"),
        ({**PLAIN, "secrets": {"t": "TOKEN"}}, "secrets.t", "stands nowhere"),
        ({**CALLER, "params": ["q"]}, "params", "in its class"),
        ({**CALLER, "secrets": {"k": "NOT_SET"}}, "secrets", "does not hear of it"),
        ({**CALLER, "retries": 5}, "retries", "does not hear of it"),
        ({**CALLER, "hedge_after_s": 1}, "hedge_after_s", "does not hear of it"),
        ({**CALLER, "headers": {"A": "b"}}, "headers", "does not hear of it"),
        ({**CALLER, "values": {"a": "/a"}}, "values", "does not hear of it"),
        ({**CALLER, "detection": {"iou": "/a"}}, "detection", "does not hear of it"),
        ({**CALLER, "image": "none"}, "image", "does not hear of it"),
        ({**CALLER, "image_pointer": "/x"}, "image_pointer", "does not hear of it"),
        ({**CALLER, "method": "PUT"}, "method", "does not hear of it"),
        ({**CALLER, "body": "{}"}, "body", "does not hear of it"),
        ({**CALLER, "idempotent": True}, "idempotent", "does not hear of it"),
        ({**CALLER, "allow_hosts": ["a.b"]}, "allow_hosts", "does not hear of it"),
        ({**CALLER, "allow_cidrs": ["10.0.0.0/8"]}, "allow_cidrs", "does not hear of it"),
    ],
)
def test_faulty_apis(table: dict[str, Any], key: str, words: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_apis({"api": {"photos": table}})
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"api.photos.{key}: " if key else "api.photos: ")
    assert words in line


@pytest.mark.parametrize(
    "table",
    [
        {**CALLER, "config": {"any": {"thing": 1}}, "timeout_s": 1, "max_in_flight": 2},
        {**CALLER, "breaker_failures": 3, "breaker_open_s": 4},
        {**POST, "retries": 0},
        {**POST, "idempotent": True, "retries": 3, "hedge_after_s": 1},
        {**PLAIN, "method": "POST", "image": "url", "image_pointer": "/u", "retries": 3, "hedge_after_s": 1},
        {**PLAIN, "body": "{}", "allow_hosts": ["cdn.e.org"]},
        {**JSON, "detection": {"confidence": "/a", "iou": "/b", "classes": "/c"}},
        {**JSON, "detection": {"max_detections": "", "image_size": "/d"}},
    ],
)  # fmt: skip
def test_keys_that_have_an_effect(table: dict[str, Any]) -> None:
    load_apis({"api": {"photos": table}})


def test_all_faults_come_at_once() -> None:
    apis = {
        "a": {"timeout_s": -1, "url": "https://e.org/"},
        "b c": GOOD,
        "d": {"colour": 1, **GOOD},
        "e": {**CALLER, "retries": 1, "body": ""},
        "f": {**PLAIN, "params": ["x"], "body": "{y}"},
    }
    with pytest.raises(ConfigurationError) as caught:
        load_apis({"api": apis})
    assert [line.split(":")[0] for line in str(caught.value).splitlines()] == [
        "api.a.timeout_s",
        "api.b c",
        "api.d.colour",
        "api.e.body",
        "api.e.retries",
        "api.f.body",
        "api.f.params",
    ]


def test_missing_secrets_stop_the_start_and_name_the_variable() -> None:
    api = ApiConfig.model_validate({**GOOD, "headers": {"A": "{secret.t}"}, "secrets": {"t": "PHOTO_TOKEN"}})
    with pytest.raises(ConfigurationError, match="PHOTO_TOKEN"):
        Fetcher(OrchestratorConfig(), {"photos": api}, {})


def test_braces_of_json_are_left_alone() -> None:
    ApiConfig.model_validate({**GOOD, "method": "POST", "body": '{"query": {"id": "{id}"}, "n": {}}'})


def test_what_an_api_brings_is_known_before_it_is_called() -> None:
    tables = {
        "photo": GOOD,
        "facts": {**JSON, "values": {"a": "/a"}},
        "both": {**PLAIN, "image": "url", "image_pointer": "/u", "values": {"a": "/a"}},
        "choice": {**JSON, "detection": {"iou": "/a"}},
    }
    fetcher = Fetcher(OrchestratorConfig(), load_apis({"api": tables}), {})
    assert {name: (api.brings_image, api.brings_values, api.params) for name, api in fetcher.apis.items()} == {
        "photo": (True, False, ("id",)),
        "facts": (False, True, ()),
        "both": (True, True, ()),
        "choice": (False, False, ()),
    }
