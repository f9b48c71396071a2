"""How peers are asked over HTTP: each as its own documentation sends an image."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass, field

__all__ = ["BENTOML", "KSERVE", "LITSERVE", "MOSEC", "RAY", "Wire"]


@dataclass(frozen=True)
class Wire:
    """Requests and answers of one framework.

    Attributes:
        path: where images are posted.
        body: of a request, for an image file.
        texts: from the body of an answer.
        headers: of every request, for a body.
    """

    path: str
    body: Callable[[bytes], bytes]
    texts: Callable[[bytes], list[str]]
    headers: Callable[[bytes], dict[str, str]] = field(default=lambda _: {"Content-Type": "application/octet-stream"})


def _plain(answer: bytes) -> list[str]:
    return list(json.loads(answer)["texts"])


def _as_json(image: bytes) -> bytes:
    return json.dumps({"image": base64.b64encode(image).decode()}).encode()


_BOUNDARY = "b3c1f0f7a2d94e5c"


def _form(image: bytes) -> bytes:
    head = f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="image"\r\n\r\n'
    return head.encode() + image + f"\r\n--{_BOUNDARY}--\r\n".encode()


def _inference(image: bytes) -> bytes:
    """The Open Inference Protocol with its binary extension: JSON, then the tensor."""
    return _inference_head(len(image)) + image


def _inference_head(size: int) -> bytes:
    tensor = {"name": "image", "shape": [1, size], "datatype": "UINT8", "parameters": {"binary_data_size": size}}
    return json.dumps({"inputs": [tensor]}).encode()


def _inference_headers(body: bytes) -> dict[str, str]:
    # The JSON ends at the first bracket that closes it; no image byte stands before that.
    length = body.index(b"}]}") + 3
    return {"Inference-Header-Content-Length": str(length), "Content-Type": "application/octet-stream"}


def _inferred(answer: bytes) -> list[str]:
    return [text for text in json.loads(answer)["outputs"][0]["data"] if text]


LITSERVE = Wire("/predict", _as_json, _plain, lambda _: {"Content-Type": "application/json"})
MOSEC = Wire("/inference", lambda image: image, _plain)
RAY = Wire("/", lambda image: image, _plain)
BENTOML = Wire("/read", _form, _plain, lambda _: {"Content-Type": f"multipart/form-data; boundary={_BOUNDARY}"})
KSERVE = Wire("/v2/models/reading/infer", _inference, _inferred, _inference_headers)
