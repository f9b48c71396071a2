"""The schema of a result: what `sluiceway run --json` prints for a source."""

from __future__ import annotations

from typing import Any

__all__ = ["RESULT_SCHEMAS"]


def _object(required: dict[str, Any], optional: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"type": "object", "required": list(required), "properties": {**required, **(optional or {})}}


def _list(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


def _of(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


_TEXT, _NUMBER, _INTEGER = {"type": "string"}, {"type": "number"}, {"type": "integer"}
_ANY_OBJECT = {"type": "object", "additionalProperties": True}
_POINT = {"type": "array", "items": _NUMBER, "minItems": 2, "maxItems": 2}
_BOX = {
    "type": "array", "items": _NUMBER, "minItems": 4, "maxItems": 4,
    "description": "Left, top, right, bottom, in pixels of the page.",
}  # fmt: skip

RESULT_SCHEMAS: dict[str, dict[str, Any]] = {
    "Failure": _object({"code": _TEXT, "reason": _TEXT, "message": _TEXT}),
    "ResultRegion": _object(
        {
            "id": _INTEGER,
            "parent": {"type": ["integer", "null"], "description": "The region that it was found in."},
            "step": _TEXT,
            "box": _BOX,
            "class": _TEXT,
            "confidence": _NUMBER,
            "text": {"type": ["string", "null"], "description": "null where nothing reads this class."},
            "text_confidence": {"type": ["number", "null"]},
        },
        {
            "outline": {**_list(_POINT), "description": "Corners clockwise, where they are not those of the box."},
            "page": {**_INTEGER, "description": "Where there are several."},
            "labels": _list(_object({"class": _TEXT, "confidence": _NUMBER})),
            "embedding": _list(_NUMBER),
            "values": {**_ANY_OBJECT, "description": "What APIs said of it, by step."},
            "error": _of("Failure"),
        },
    ),
    "Result": {
        **_object(
            {"source": _TEXT, "status": {"type": "string", "enum": ["ok", "failed"]}},
            {
                "request_id": {**_TEXT, "description": "On the command line; over HTTP it is the header x-request-id."},
                "width": _INTEGER,
                "height": _INTEGER,
                "regions": {**_list(_of("ResultRegion")), "description": "In reading order."},
                "values": {**_ANY_OBJECT, "description": "What APIs said of the source, by call."},
                "value_errors": {"type": "object", "additionalProperties": _of("Failure")},
                "pages": {
                    **_list(_object({"index": _INTEGER, "width": _INTEGER, "height": _INTEGER})),
                    "description": "Where there are several.",
                },
                "lines": _list(_object({"regions": _list(_INTEGER), "page": _INTEGER})),
                "blocks": _list(_object({"lines": _list(_INTEGER), "page": _INTEGER})),
                "notices": _list(_object({"reason": _TEXT, "message": _TEXT})),
                "models": _list(_object({"name": _TEXT, "version": _TEXT, "weights_sha256": _TEXT})),
                "timings_ms": {"type": "object", "additionalProperties": _NUMBER},
                "error": _of("Failure"),
            },
        ),
        "description": "What became of a source, as `sluiceway run --json` prints it. A source that failed has "
        "`error` and nothing that was found.",
    },
}
