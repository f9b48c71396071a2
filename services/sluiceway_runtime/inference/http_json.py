"""The HTTP form of the protocol: JSON, and tensors as bytes behind it (the binary data extension)."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from google.protobuf.message import Message

from sluiceway_runtime.errors import InvalidOption
from sluiceway_runtime.inference import open_inference_pb2 as pb
from sluiceway_runtime.inference.tensors import ELEMENT_BYTES, LETTERS, pack_bytes, unpack_bytes

__all__ = ["HEADER", "HttpRequest", "body_of", "plain", "request_of"]

# How many bytes of a body are JSON, where tensors follow it.
HEADER = "Inference-Header-Content-Length"
_MAX_PARAMETERS = 64


class HttpRequest(NamedTuple):
    """A request to run a model.

    Attributes:
        message: with raw contents.
        binary: outputs that the client wants as bytes, by name.
        binary_by_default: whether it wants all others so.
    """

    message: pb.ModelInferRequest
    binary: Mapping[str, bool]
    binary_by_default: bool


def request_of(body: bytes | bytearray, header: str | None, name: str, version: str) -> HttpRequest:
    """Read the body of a request.

    Args:
        body: all of it.
        header: the value of `HEADER`, if the request has it.
        name: of the model.
        version: of the model; empty lets the server choose.

    Raises:
        InvalidOption: it does not say what the protocol says.
    """
    length = len(body)
    if header is not None:
        if not (header.isascii() and header.isdecimal() and int(header) <= len(body)):
            raise InvalidOption(f"{HEADER}: must be the length of the JSON in the body")
        length = int(header)
    try:
        document = json.loads(bytes(memoryview(body)[:length]))
    except (ValueError, RecursionError):
        raise InvalidOption("body: it is not JSON") from None
    inputs = _list_of(document, "inputs")
    message = pb.ModelInferRequest(model_name=name, model_version=version, id=_text(document.get("id", ""), "id"))
    own = _table(document, "parameters")
    _set_parameters(message.parameters, {key: value for key, value in own.items() if key != "binary_data_output"})
    rest = memoryview(body)[length:]
    for item in inputs:
        rest = _add_input(message, item, rest)
    if rest:
        raise InvalidOption("body: there are more bytes behind the JSON than the inputs say")
    binary: dict[str, bool] = {}
    for item in _list_of(document, "outputs", optional=True):
        parameters = _table(item, "parameters")
        wanted = message.outputs.add(name=_text(item.get("name"), "outputs: name"))
        if "binary_data" in parameters:
            binary[wanted.name] = parameters.pop("binary_data") is True
        _set_parameters(wanted.parameters, parameters)
    return HttpRequest(message, binary, own.get("binary_data_output") is True)


def body_of(request: HttpRequest, response: pb.ModelInferResponse) -> tuple[bytes, int | None]:
    """Write the body of an answer, and the value of `HEADER`, if bytes follow the JSON."""
    outputs: list[dict[str, Any]] = []
    behind: list[bytes] = []
    for output, raw in zip(response.outputs, response.raw_output_contents, strict=True):
        told: dict[str, Any] = {"name": output.name, "datatype": output.datatype, "shape": list(output.shape)}
        if request.binary.get(output.name, request.binary_by_default):
            told["parameters"] = {"binary_data_size": len(raw)}
            behind.append(raw)
        else:
            told["data"] = _elements(output, raw)
        outputs.append(told)
    document = {"model_name": response.model_name, "model_version": response.model_version, "outputs": outputs}
    if response.id:
        document["id"] = response.id
    head = json.dumps(document, ensure_ascii=False).encode()
    return b"".join((head, *behind)), len(head) if behind else None


def plain(message: Message) -> dict[str, Any]:
    """A message as JSON of this protocol: names as in the proto, every field there, numbers as numbers."""
    return {field.name: _plain_field(message, field) for field in message.DESCRIPTOR.fields}


def _plain_field(message: Message, field: Any) -> Any:
    value = getattr(message, field.name)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return dict(value)
    if field.is_repeated:
        return [_plain_value(field, item) for item in value]
    return _plain_value(field, value)


def _plain_value(field: Any, value: Any) -> Any:
    if field.message_type is not None:
        return plain(value)
    return field.enum_type.values_by_number[value].name if field.enum_type is not None else value


def _add_input(message: pb.ModelInferRequest, item: Mapping[str, Any], rest: memoryview) -> memoryview:
    """Add an input; returns what is left of the bytes behind the JSON."""
    name, datatype = _text(item.get("name"), "inputs: name"), _text(item.get("datatype"), "inputs: datatype")
    shape = item.get("shape")
    if not isinstance(shape, list) or not all(type(side) is int and 0 <= side < 2**31 for side in shape):
        raise InvalidOption(f"{name[:100]}: the shape must be a list of whole numbers")
    parameters = _table(item, "parameters")
    tensor = message.inputs.add(name=name, datatype=datatype, shape=shape)
    size = parameters.pop("binary_data_size", None)
    content_type = parameters.pop("content_type", None)
    _set_parameters(tensor.parameters, parameters)
    if size is not None:
        if type(size) is not int or not 0 <= size <= len(rest):
            raise InvalidOption(f"{name[:100]}: there are fewer bytes behind the JSON than it says")
        message.raw_input_contents.append(bytes(rest[:size]))
        return rest[size:]
    if "shared_memory_region" in parameters:
        # What is wrong with it is told where all of that is.
        message.raw_input_contents.append(b"")
        return rest
    message.raw_input_contents.append(_packed(name, datatype, item.get("data"), in_base64=content_type == "base64"))
    return rest


def _packed(name: str, datatype: str, data: Any, *, in_base64: bool) -> bytes:
    values = list(_flat(data)) if isinstance(data, list) else []
    try:
        if datatype == "BYTES":
            return pack_bytes([_bytes(value, in_base64=in_base64) for value in values])
        if datatype == "BOOL":
            return bytes(value is True for value in values)
        return struct.pack(f"<{len(values)}{LETTERS[datatype]}", *values)
    except (KeyError, ValueError, TypeError, struct.error):
        raise InvalidOption(f"{name[:100]}: its data are no {datatype[:20]}") from None


def _bytes(value: Any, *, in_base64: bool) -> bytes:
    if not isinstance(value, str):
        raise TypeError("no text")
    return base64.b64decode(value, validate=True) if in_base64 else value.encode()


def _flat(data: list[Any]) -> Iterator[Any]:
    for item in data:
        if isinstance(item, list):
            yield from _flat(item)
        else:
            yield item


def _elements(output: pb.ModelInferResponse.InferOutputTensor, raw: bytes) -> list[Any]:
    count = 1
    for side in output.shape:
        count *= side
    if output.datatype == "BYTES":
        return [element.decode(errors="replace") for element in unpack_bytes(raw, count)]
    if output.datatype == "BOOL":
        return [byte != 0 for byte in raw]
    if output.datatype not in LETTERS:
        raise InvalidOption(f"{output.name}: {output.datatype} travels as binary data only")
    return list(struct.unpack(f"<{len(raw) // ELEMENT_BYTES[output.datatype]}{LETTERS[output.datatype]}", raw))


def _set_parameters(target: Any, parameters: Mapping[str, Any]) -> None:
    if len(parameters) > _MAX_PARAMETERS:
        raise InvalidOption(f"parameters: more than {_MAX_PARAMETERS}")
    for name, value in parameters.items():
        match value:
            case bool():
                target[name].bool_param = value
            case int() if -(2**63) <= value < 2**63:
                target[name].int64_param = value
            case int() | float():
                target[name].double_param = float(value)
            case str():
                target[name].string_param = value
            case _:
                raise InvalidOption(f"parameters: {name[:100]} must be a number, a text or a truth")


def _list_of(document: Any, key: str, *, optional: bool = False) -> list[dict[str, Any]]:
    found = document.get(key, [] if optional else None) if isinstance(document, dict) else None
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise InvalidOption(f"{key}: must be a list of tables")
    return found


def _table(document: Mapping[str, Any], key: str) -> dict[str, Any]:
    found = document.get(key) or {}
    if not isinstance(found, dict):
        raise InvalidOption(f"{key}: must be a table")
    return dict(found)


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str):
        raise InvalidOption(f"{what}: must be a text")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidOption(f"{what}: must be a text of whole characters") from None
    return value
