"""Between the protocol's messages and tensors."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from math import prod

from sluiceway_runtime.errors import InvalidOption
from sluiceway_runtime.inference import open_inference_pb2 as pb
from sluiceway_runtime.inference.stage import Parameter
from sluiceway_runtime.inference.tensors import ELEMENT_BYTES, ModelCard, Tensor, TensorSpec, unpack_bytes

__all__ = ["inputs_of", "metadata_of", "parameters_of", "response_of"]

# By datatype: the field of its typed contents and struct's letter for an element. FP16 and BF16 have no such field.
_TYPED = {
    "BOOL": ("bool_contents", "?"),
    "UINT8": ("uint_contents", "B"),
    "UINT16": ("uint_contents", "H"),
    "UINT32": ("uint_contents", "I"),
    "UINT64": ("uint64_contents", "Q"),
    "INT8": ("int_contents", "b"),
    "INT16": ("int_contents", "h"),
    "INT32": ("int_contents", "i"),
    "INT64": ("int64_contents", "q"),
    "FP32": ("fp32_contents", "f"),
    "FP64": ("fp64_contents", "d"),
}


def metadata_of(card: ModelCard) -> pb.ModelMetadataResponse:
    """Return what `ModelMetadata` says of a model."""

    def specs(tensors: Iterable[TensorSpec]) -> list[pb.ModelMetadataResponse.TensorMetadata]:
        return [
            pb.ModelMetadataResponse.TensorMetadata(name=spec.name, datatype=spec.datatype, shape=spec.shape)
            for spec in tensors
        ]

    return pb.ModelMetadataResponse(
        name=card.name,
        versions=[card.version] if card.version else [],
        platform=card.platform,
        inputs=specs(card.inputs),
        outputs=specs(card.outputs),
        properties=dict(card.properties),
    )


def parameters_of(request: pb.ModelInferRequest, card: ModelCard) -> dict[str, Parameter]:
    """Return the request's parameters.

    Raises:
        InvalidOption: the model has no such parameter.
    """
    parameters: dict[str, Parameter] = {}
    for name, parameter in request.parameters.items():
        kind = parameter.WhichOneof("parameter_choice")
        if name not in card.parameters or kind is None:
            known = ", ".join(card.parameters) or "none"
            raise InvalidOption(f"parameters: {name} is no parameter of {card.name}", metadata={"parameters": known})
        parameters[name] = getattr(parameter, kind)
    return parameters


def inputs_of(request: pb.ModelInferRequest, card: ModelCard) -> dict[str, Tensor]:
    """Return the request's inputs by name.

    Raises:
        InvalidOption: they are not what the model wants.
    """
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise InvalidOption(f"raw_input_contents: {len(raw)} for {len(request.inputs)} inputs")
    specs = {spec.name: spec for spec in card.inputs}
    tensors: dict[str, Tensor] = {}
    for index, message in enumerate(request.inputs):
        spec = specs.get(message.name)
        if spec is None or message.name in tensors:
            raise InvalidOption(f"inputs: {card.name} wants {', '.join(specs)}, each once, and no {message.name!r}")
        if message.datatype != spec.datatype:
            raise InvalidOption(f"{message.name}: is {spec.datatype}, not {message.datatype}")
        if not spec.fits(message.shape) or any(length < 0 for length in message.shape):
            raise InvalidOption(f"{message.name}: the shape must be {list(spec.shape)}, not {list(message.shape)}")
        count = prod(message.shape)
        if count > card.max_elements:
            raise InvalidOption(
                f"{message.name}: at most {card.max_elements} elements in a request",
                metadata={"max_elements": str(card.max_elements)},
            )
        data = _raw(raw[index], spec, count) if raw else _typed(message.contents, spec, count)
        tensors[spec.name] = Tensor(spec.name, spec.datatype, tuple(message.shape), data)
    missing = specs.keys() - tensors.keys()
    if missing:
        raise InvalidOption(f"inputs: {', '.join(sorted(missing))} must be given")
    return tensors


def response_of(request: pb.ModelInferRequest, card: ModelCard, outputs: Sequence[Tensor]) -> pb.ModelInferResponse:
    """Return the answer: the outputs that were asked for, raw if the inputs were.

    Raises:
        InvalidOption: the model has no such output.
    """
    by_name: Mapping[str, Tensor] = {tensor.name: tensor for tensor in outputs}
    wanted = [output.name for output in request.outputs] or list(by_name)
    response = pb.ModelInferResponse(model_name=card.name, model_version=card.version, id=request.id)
    for name in wanted:
        tensor = by_name.get(name)
        if tensor is None:
            raise InvalidOption(f"outputs: {card.name} gives {', '.join(by_name)}, and no {name!r}")
        message = response.outputs.add(name=name, datatype=tensor.datatype, shape=tensor.shape)
        if request.raw_input_contents:
            response.raw_output_contents.append(tensor.raw)
        elif isinstance(tensor.data, tuple):
            message.contents.bytes_contents.extend(tensor.data)
        else:
            field, letter = _TYPED[tensor.datatype]
            count = len(tensor.data) // ELEMENT_BYTES[tensor.datatype]
            getattr(message.contents, field).extend(struct.unpack(f"<{count}{letter}", tensor.data))
    return response


def _raw(raw: bytes, spec: TensorSpec, count: int) -> bytes | tuple[bytes, ...]:
    return unpack_bytes(raw, count) if spec.datatype == "BYTES" else raw


def _typed(contents: pb.InferTensorContents, spec: TensorSpec, count: int) -> bytes | tuple[bytes, ...]:
    if spec.datatype != "BYTES" and spec.datatype not in _TYPED:
        raise InvalidOption(f"{spec.name}: {spec.datatype} travels as raw contents only")
    field, letter = _TYPED.get(spec.datatype, ("bytes_contents", ""))
    values = getattr(contents, field)
    if len(values) != count:
        raise InvalidOption(f"{spec.name}: the contents are not the {count} elements of its shape")
    if spec.datatype == "BYTES":
        return tuple(values)
    try:
        return struct.pack(f"<{len(values)}{letter}", *values)
    except struct.error:
        raise InvalidOption(f"{spec.name}: an element does not fit {spec.datatype}") from None
