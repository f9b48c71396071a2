"""The OpenAPI document, its schemas made from the contract itself so that the two cannot disagree."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from sluiceway_orchestrator.http.convert import DESCRIPTORS, QUERY
from sluiceway_orchestrator.http.result_schema import RESULT_SCHEMAS
from sluiceway_orchestrator.watch.watching import DEFAULT_S, LONGEST_S, SHORTEST_S

__all__ = ["document"]

_SCALARS: dict[int, dict[str, Any]] = {
    FieldDescriptor.CPPTYPE_INT32: {"type": "integer", "format": "int32"},
    FieldDescriptor.CPPTYPE_UINT32: {"type": "integer", "format": "uint32", "minimum": 0},
    # JSON's numbers are too small for these: the JSON form of protobuf writes them as text.
    FieldDescriptor.CPPTYPE_INT64: {"type": "string", "format": "int64"},
    FieldDescriptor.CPPTYPE_UINT64: {"type": "string", "format": "uint64"},
    FieldDescriptor.CPPTYPE_FLOAT: {"type": "number", "format": "float"},
    FieldDescriptor.CPPTYPE_DOUBLE: {"type": "number", "format": "double"},
    FieldDescriptor.CPPTYPE_BOOL: {"type": "boolean"},
    FieldDescriptor.CPPTYPE_STRING: {"type": "string"},
}
# Messages whose JSON form is not an object of their fields.
_WELL_KNOWN: dict[str, dict[str, Any]] = {
    "google.protobuf.Duration": {"type": "string", "pattern": r"^-?\d+(\.\d{1,9})?s$"},
    "google.protobuf.Struct": {"type": "object", "additionalProperties": True},
}
_PARAMETERS: dict[str, dict[str, Any]] = {
    "job_id": {"type": "string", "maxLength": 128},
    "pipeline": {"type": "string", "maxLength": 64},
    "confidence": {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
    "iou": {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
    "classes": {"type": "array", "items": {"type": "string"}},
    "max_detections": {"type": "integer", "minimum": 1, "maximum": 10000},
    "image_size": {"type": "integer", "multipleOf": 32},
    "scale": {"type": "string", "description": "auto, fast, or a factor above 0, at most 4."},
    "class_agnostic": {
        "type": "boolean",
        "description": "Whether regions of different classes are compared for overlap, too.",
    },
    "characters": {"type": "boolean"},
    "words": {"type": "boolean"},
    "top_k": {"type": "integer", "minimum": 1, "maximum": 1000},
    "priority": {"type": "string", "enum": ["interactive", "normal", "bulk"]},
    "detect_only": {"type": "boolean"},
    "text_layer": {"type": "string", "enum": ["ignore", "prefer"]},
}
_PROBLEM: dict[str, Any] = {
    "type": "object",
    "description": "RFC 9457. `reason`, `code` and `metadata` are those of google.rpc.ErrorInfo in gRPC.",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"type": "string", "description": "Name of the gRPC status code."},
        "reason": {"type": "string", "description": "Stable and machine-readable."},
        "metadata": {"type": "object", "additionalProperties": {"type": "string"}},
        "request_id": {"type": "string"},
        "retry_after_ms": {"type": "integer", "description": "Trying again makes sense after this long."},
    },
}
_PLAIN = {"text/plain": {"schema": {"type": "string"}}}
_RESULT = {"$ref": "#/components/schemas/Result"}
_RESULTS = {"oneOf": [_RESULT, {"type": "array", "items": _RESULT}]}
_FORM: dict[str, Any] = {
    "type": "object",
    "description": "Files under any name, URLs under `url`, and the query parameters as fields, `timeout_s` too.",
    "properties": {
        "file": {"type": "array", "items": {"type": "string", "format": "binary"}},
        "url": {"type": "array", "items": {"type": "string"}},
    },
    "additionalProperties": {"type": "string"},
}
_PROBLEMS = {
    "400": "INVALID_ARGUMENT or FAILED_PRECONDITION",
    "401": "No valid token",
    "403": "Not allowed",
    "406": "None of the answer's types is accepted",
    "413": "More bytes or pixels than the limits allow",
    "415": "Neither an image nor JSON nor a form",
    "421": "The server does not go by the name in Host",
    "429": "Queue full or over a client's limit; see Retry-After",
    "503": "Starting or draining; see Retry-After",
    "504": "The time ran out before the body was here",
}


@lru_cache(maxsize=1)
def document(release: str) -> dict[str, Any]:
    """Return the document of a release."""
    schemas: dict[str, Any] = {"Problem": _PROBLEM, **RESULT_SCHEMAS}
    references = {name: _message(descriptor, schemas) for name, descriptor in DESCRIPTORS.items()}
    timeout = {"type": "number", "exclusiveMinimum": 0}
    parameters = [_parameter("timeout_s", timeout, "Deadline of the job in seconds; the server has a greatest one.")]
    parameters += [_parameter(name, _PARAMETERS[name], "For images and forms; see ProcessOptions.") for name in QUERY]
    problems = {code: _problem(text) for code, text in _PROBLEMS.items()}
    # Where one document is asked for and its only source failed, the status is that of the failure.
    failed = {"schema": _RESULT}
    for code in ("400", "403", "413", "429", "500", "503", "504"):
        problems.setdefault(code, _problem("The only source failed"))["content"]["application/json"] = failed
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Sluiceway",
            "version": release,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            "description": "Images in; regions and their text out, as they become ready. The schemas are the JSON form "
            "of sluiceway.pipeline.v1 and sluiceway.watch.v1, whose comments say what each field means.",
        },
        "security": [{}, {"token": []}],
        "paths": {
            "/v1/process": {
                "post": {
                    "operationId": "process",
                    "summary": "Run one job and stream its events.",
                    "parameters": parameters,
                    "requestBody": {
                        "required": True,
                        "content": {
                            "image/*": {"schema": {"type": "string", "format": "binary"}},
                            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
                            "application/json": {"schema": references["request"]},
                            "multipart/form-data": {"schema": _FORM},
                        },
                    },
                    "responses": {
                        "200": {
                            "description": "An event a line, or a server-sent event each, named after what happened. "
                            "The last is job_done; a job that breaks off ends with an object that has `problem`. "
                            "With `Accept: application/json` one document when all is done: the result of the source, "
                            "or a list of results where there are several.",
                            "content": {
                                "application/x-ndjson": {"schema": references["event"]},
                                "text/event-stream": {"schema": references["event"]},
                                "application/json": {"schema": _RESULTS},
                            },
                        },
                        **problems,
                    },
                }
            },
            "/v1/describe": {
                "get": {
                    "operationId": "describe",
                    "summary": "Say what can be asked of this server.",
                    "responses": {
                        "200": {
                            "description": "Models, limits, APIs, stages.",
                            "content": {"application/json": {"schema": references["description"]}},
                        },
                        "401": problems["401"],
                    },
                }
            },
            "/v1/watch": {
                "get": {
                    "operationId": "watch",
                    "summary": "Say again and again how the cluster is, and what limits it.",
                    "parameters": [
                        _parameter(
                            "interval_s",
                            {"type": "number", "minimum": SHORTEST_S, "maximum": LONGEST_S, "default": DEFAULT_S},
                            "Seconds between two lines.",
                        )
                    ],
                    "responses": {
                        "200": {
                            "description": "An object a line, each about the last seconds before it.",
                            "content": {"application/x-ndjson": {"schema": references["figures"]}},
                        },
                        **{code: problems[code] for code in ("400", "401", "503")},
                    },
                }
            },
            "/healthz": {
                "get": {
                    "operationId": "health",
                    "summary": "Say whether this server takes jobs.",
                    "security": [{}],
                    "responses": {
                        "200": {"description": "It does.", "content": _PLAIN},
                        "503": {"description": "It is draining.", "content": _PLAIN},
                    },
                }
            },
        },
        "components": {
            "schemas": schemas,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _parameter(name: str, schema: dict[str, Any], description: str) -> dict[str, Any]:
    plain = {"name": name, "in": "query", "required": False, "schema": schema, "description": description}
    if schema["type"] == "array":
        plain |= {"style": "form", "explode": False}
    return plain


def _problem(description: str) -> dict[str, Any]:
    reference = {"$ref": "#/components/schemas/Problem"}
    return {"description": description, "content": {"application/problem+json": {"schema": reference}}}


def _message(descriptor: Descriptor | None, schemas: dict[str, Any]) -> dict[str, Any]:
    """Add the schema of a message and of all that it holds; returns a reference to it."""
    assert descriptor is not None
    name = descriptor.full_name
    if name not in schemas:
        # Before its fields, which may lead back here.
        schema: dict[str, Any] = {"type": "object", "properties": {}}
        schemas[name] = schema
        schema["properties"] = {field.name: _field(field, schemas) for field in descriptor.fields}
    return {"$ref": f"#/components/schemas/{name}"}


def _field(field: FieldDescriptor, schemas: dict[str, Any]) -> dict[str, Any]:
    entry = field.message_type
    if entry is not None and entry.GetOptions().map_entry:
        return {"type": "object", "additionalProperties": _single(entry.fields_by_name["value"], schemas)}
    single = _single(field, schemas)
    return {"type": "array", "items": single} if field.is_repeated else single


def _single(field: FieldDescriptor, schemas: dict[str, Any]) -> dict[str, Any]:
    if field.type == FieldDescriptor.TYPE_BYTES:
        return {"type": "string", "contentEncoding": "base64"}
    if field.message_type is not None and field.message_type.full_name in _WELL_KNOWN:
        return dict(_WELL_KNOWN[field.message_type.full_name])
    if field.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE:
        return _message(field.message_type, schemas)
    if field.enum_type is not None:
        return {"type": "string", "enum": [value.name for value in field.enum_type.values]}
    return dict(_SCALARS[field.cpp_type])
