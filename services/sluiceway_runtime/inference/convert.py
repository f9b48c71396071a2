"""Between the protocol's messages and tensors."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from math import prod
from typing import NamedTuple

from sluiceway_runtime.errors import InvalidOption
from sluiceway_runtime.inference import open_inference_pb2 as pb
from sluiceway_runtime.inference.classification import classified
from sluiceway_runtime.inference.stage import Parameter
from sluiceway_runtime.inference.tensors import ELEMENT_BYTES, LETTERS, ModelCard, Tensor, TensorSpec, unpack_bytes
from sluiceway_runtime.priority import Priority

__all__ = ["NO_SHARED_MEMORY", "Asked", "asked_of", "config_of", "inputs_of", "metadata_of", "response_of", "wanted_of"]

NO_SHARED_MEMORY = "shared memory is not supported: send tensors in the request"
# Of the protocol, for models with a memory and for servers with traces.
_PASSED_OVER = frozenset(("sequence_id", "sequence_start", "sequence_end", "binary_data_output"))
# What clients set for servers that answer one request several times.
_RESERVED = "triton_"
_PRIORITIES = (Priority.NORMAL, Priority.INTERACTIVE, Priority.NORMAL, Priority.BULK)
_MAX_ECHO = 100

# By datatype: the field of its typed contents and struct's letter for an element. FP16 and BF16 have no such field.
_TYPED = {
    "BOOL": ("bool_contents", "?"),
    **{name: ("uint_contents", LETTERS[name]) for name in ("UINT8", "UINT16", "UINT32")},
    **{name: ("int_contents", LETTERS[name]) for name in ("INT8", "INT16", "INT32")},
    "UINT64": ("uint64_contents", "Q"),
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
        versions=[card.version],
        platform=card.platform,
        inputs=specs(card.inputs),
        outputs=specs(card.outputs),
        properties=dict(card.properties),
    )


def config_of(card: ModelCard) -> pb.ModelConfigResponse:
    """Return what `ModelConfig` says of a model."""
    config = pb.ModelConfig(
        name=card.name,
        platform=card.platform,
        backend="sluiceway",
        max_batch_size=card.max_batch,
        dynamic_batching=pb.ModelDynamicBatching(),
    )
    skip = 1 if card.max_batch else 0
    for spec in card.inputs:
        config.input.add(name=spec.name, data_type=_type_of(spec), dims=spec.shape[skip:])
    for spec in card.outputs:
        config.output.add(name=spec.name, data_type=_type_of(spec), dims=spec.shape[skip:])
    return pb.ModelConfigResponse(config=config)


def _type_of(spec: TensorSpec) -> pb.DataType.ValueType:
    return pb.DataType.Value("TYPE_STRING" if spec.datatype == "BYTES" else f"TYPE_{spec.datatype}")


class Asked(NamedTuple):
    """The parameters of a request: those of the model, and those that every request may have.

    Attributes:
        timeout_s: after which the answer is of no use; None if it always is.
    """

    parameters: Mapping[str, Parameter]
    priority: Priority = Priority.NORMAL
    timeout_s: float | None = None


def asked_of(request: pb.ModelInferRequest, card: ModelCard) -> Asked:
    """Return the request's parameters.

    Of the protocol's own, `priority` is 1 (first) to 3 (last) and 0 leaves it to the server, as no priority does;
    `timeout` is in microseconds; those of sequences say nothing to models without a memory.

    Raises:
        InvalidOption: the model has no such parameter, or a value is out of range.
    """
    parameters: dict[str, Parameter] = {}
    priority, timeout_s = Priority.NORMAL, None
    for name, parameter in request.parameters.items():
        kind = parameter.WhichOneof("parameter_choice")
        if kind is None:
            raise InvalidOption(f"parameters: {name[:_MAX_ECHO]} has no value")
        value = getattr(parameter, kind)
        if name in card.parameters:
            parameters[name] = value
        elif name == "priority":
            level = _whole(name, value)
            priority = _PRIORITIES[min(level, len(_PRIORITIES) - 1)]
        elif name == "timeout":
            timeout_s = _whole(name, value) / 1e6 or None
        elif name not in _PASSED_OVER and not name.startswith(_RESERVED):
            known = ", ".join(card.parameters) or "none"
            raise InvalidOption(
                f"parameters: {name[:_MAX_ECHO]} is no parameter of {card.name}", metadata={"parameters": known}
            )
    return Asked(parameters, priority, timeout_s)


def _whole(name: str, value: Parameter) -> int:
    try:
        number = int(value) if not isinstance(value, bool | float) else -1
    except ValueError:
        number = -1
    if number < 0:
        raise InvalidOption(f"parameters: {name} must be a whole number of 0 or more")
    return number


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
        refuse_shared_memory(message.parameters)
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


def wanted_of(request: pb.ModelInferRequest, card: ModelCard) -> dict[str, int]:
    """Return the outputs that the request asks for, and how many elements of each are to be ranked; 0 gives it whole.

    Raises:
        InvalidOption: the model has no such output, or it cannot be given so.
    """
    known = [spec.name for spec in card.outputs]
    wanted: dict[str, int] = {}
    for output in request.outputs:
        if output.name not in known:
            raise InvalidOption(f"outputs: {card.name} gives {', '.join(known)}, and no {output.name[:_MAX_ECHO]!r}")
        refuse_shared_memory(output.parameters)
        wanted[output.name] = _ranks_of(output) if "classification" in output.parameters else 0
    return wanted or dict.fromkeys(known, 0)


def response_of(
    request: pb.ModelInferRequest, card: ModelCard, wanted: Mapping[str, int], outputs: Sequence[Tensor]
) -> pb.ModelInferResponse:
    """Return the answer: the outputs that were asked for, raw if the inputs were.

    Raises:
        InvalidOption: an output is to be ranked that has no order.
    """
    by_name: Mapping[str, Tensor] = {tensor.name: tensor for tensor in outputs}
    response = pb.ModelInferResponse(model_name=card.name, model_version=card.version, id=request.id)
    for name, ranks in wanted.items():
        tensor = classified(by_name[name], ranks) if ranks else by_name[name]
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


def refuse_shared_memory(parameters: Mapping[str, pb.InferParameter]) -> None:
    """Raise InvalidOption if a tensor is to lie in shared memory."""
    if "shared_memory_region" in parameters:
        raise InvalidOption(NO_SHARED_MEMORY)


def _ranks_of(output: pb.ModelInferRequest.InferRequestedOutputTensor) -> int:
    parameter = output.parameters["classification"]
    count = _whole("classification", getattr(parameter, parameter.WhichOneof("parameter_choice") or "bool_param"))
    if count == 0:
        raise InvalidOption("parameters: classification must be 1 or more")
    return count


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
