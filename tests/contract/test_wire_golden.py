"""The wire form of every message, byte by byte: what an older or newer peer sends and understands.

`golden/NAME.json` says what a message holds, `golden/NAME.binpb` how it was once written; `NAME.1`, `NAME.2` are
further choices of its `oneof`, `NAME+FIELD` a field that came later. A file that is there never changes: peers out
there write just that. `python tests/contract/test_wire_golden.py` writes what is missing.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory, unknown_fields
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from sluiceway.common.v1 import crop_pb2, error_pb2, geometry_pb2, model_pb2, notice_pb2, value_pb2
from sluiceway.detection.v1 import detection_pb2
from sluiceway.pipeline.v1 import pipeline_pb2
from sluiceway.recognition.v1 import recognition_pb2
from sluiceway.recorder.v1 import recorder_pb2
from sluiceway.watch.v1 import sample_pb2, watch_pb2

GOLDEN = Path(__file__).parent / "golden"
BASELINE = Path(__file__).parents[2] / "protos" / "image.binpb"
FILES = (
    crop_pb2, error_pb2, geometry_pb2, model_pb2, notice_pb2, value_pb2, detection_pb2, pipeline_pb2, recognition_pb2,
    recorder_pb2, sample_pb2, watch_pb2,
)  # fmt: skip


def messages() -> Iterator[Descriptor]:
    for module in FILES:
        yield from module.DESCRIPTOR.message_types_by_name.values()


def cases(descriptor: Descriptor) -> Iterator[str]:
    """Names of the golden files of a message: one, and one for each further choice of its widest `oneof`."""
    widest = max((len(oneof.fields) for oneof in real_oneofs(descriptor)), default=1)
    for choice in range(widest):
        yield descriptor.full_name + (f".{choice}" if choice else "")


def real_oneofs(descriptor: Descriptor) -> list[Any]:
    # `optional` fields have one of their own, whose name begins with an underscore.
    return [oneof for oneof in descriptor.oneofs if not oneof.name.startswith("_")]


def example(descriptor: Descriptor, choice: int = 0, depth: int = 0) -> Message:
    """A message with every field set; of each `oneof` the given choice."""
    message = message_factory.GetMessageClass(descriptor)()
    if descriptor.full_name == "google.protobuf.Struct":
        # It can hold itself. One entry: how maps are ordered is no part of the wire form.
        message.update({"key": ["é", 1.5, True, None]})  # type: ignore[attr-defined]
        return message
    for field in descriptor.fields:
        oneof = field.containing_oneof
        if (
            oneof is not None
            and not oneof.name.startswith("_")
            and oneof.fields[choice % len(oneof.fields)] is not field
        ):
            continue
        fill(message, field, depth)
    return message


def fill(message: Message, field: FieldDescriptor, depth: int) -> None:
    value: Any
    nested = field.message_type
    if nested is not None and nested.GetOptions().map_entry:
        values = getattr(message, field.name)
        if nested.fields_by_name["value"].message_type is not None:
            values["key"].CopyFrom(example(nested.fields_by_name["value"].message_type, depth=depth + 1))
        else:
            values["key"] = "value"
    elif nested is not None:
        assert depth < 8, "messages must not nest without end"
        inner = example(nested, depth=depth + 1)
        if field.is_repeated:
            getattr(message, field.name).append(inner)
        else:
            getattr(message, field.name).CopyFrom(inner)
    else:
        if field.enum_type is not None:
            value = field.enum_type.values[-1].number
        else:
            # Differs from field to field, so that two swapped numbers show.
            value = {
                FieldDescriptor.CPPTYPE_STRING: f"é{field.number}"
                if field.type == FieldDescriptor.TYPE_STRING
                else None,
                FieldDescriptor.CPPTYPE_BOOL: True,
                FieldDescriptor.CPPTYPE_FLOAT: field.number + 0.25,
                FieldDescriptor.CPPTYPE_DOUBLE: field.number + 0.1,
                FieldDescriptor.CPPTYPE_INT32: 300 + field.number,
                FieldDescriptor.CPPTYPE_INT64: 2**36 + field.number,
            }[field.cpp_type]
            if field.type == FieldDescriptor.TYPE_BYTES:
                value = bytes([0, 255, field.number])
        if field.is_repeated:
            getattr(message, field.name).extend([value, value])
        else:
            setattr(message, field.name, value)


def by_name(name: str) -> Descriptor:
    return descriptor_pool.Default().FindMessageTypeByName(name)


def golden_files() -> list[Path]:
    return sorted(GOLDEN.glob("*.binpb"))


def message_name(path: Path) -> str:
    name = path.name.removesuffix(".binpb").split("+")[0]
    return name.rsplit(".", 1)[0] if name[-1].isdigit() and name.rsplit(".", 1)[1].isdigit() else name


def missing_fields(descriptor: Descriptor) -> set[str]:
    """Fields that no golden file of the message has."""
    kind = message_factory.GetMessageClass(descriptor)
    contents = [path.read_bytes() for path in golden_files() if message_name(path) == descriptor.full_name]
    seen = {field.name for wire in contents for field, _ in kind.FromString(wire).ListFields()}
    return {field.name for field in descriptor.fields} - seen


@pytest.mark.parametrize("path", golden_files(), ids=lambda path: path.stem)
def test_is_written_as_ever(path: Path) -> None:
    kind = message_factory.GetMessageClass(by_name(message_name(path)))
    wire = path.read_bytes()
    message = kind.FromString(wire)
    assert not list(unknown_fields.UnknownFieldSet(message))
    assert message == json_format.Parse(path.with_suffix(".json").read_text(encoding="utf-8"), kind())
    assert message.SerializeToString(deterministic=True) == wire


def test_every_message_and_field_has_a_golden_file() -> None:
    """A new field fails here until a golden file has it."""
    names = {message_name(path) for path in golden_files()}
    assert names == {descriptor.full_name for descriptor in messages()}
    assert not [(item.full_name, missing_fields(item)) for item in messages() if missing_fields(item)]


def test_every_protoc_takes_the_names() -> None:
    # Older ones, as distributions have them, refuse fields that differ in case and underscores alone.
    for descriptor in messages():
        names = [field.name.replace("_", "").lower() for field in descriptor.fields]
        assert len(names) == len(set(names)), descriptor.full_name


@pytest.fixture(scope="module")
def old() -> descriptor_pool.DescriptorPool:
    """The contract as it was when the baseline was accepted: what a peer of then is built from."""
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(BASELINE.read_bytes()).file:
        pool.Add(file)
    return pool


@pytest.mark.parametrize("path", golden_files(), ids=lambda path: path.stem)
def test_an_old_peer_reads_what_it_knows_and_keeps_the_rest(path: Path, old: descriptor_pool.DescriptorPool) -> None:
    name, original = message_name(path), path.read_bytes()
    try:
        descriptor = old.FindMessageTypeByName(name)
    except KeyError:
        return  # younger than the baseline
    kind = message_factory.GetMessageClass(descriptor)
    # Field 999, length-delimited: something that will be added one day.
    wire = original + b"\xba\x3e\x06future"
    message = kind.FromString(wire)
    known = {field.name: value for field, value in message.ListFields()}
    now = message_factory.GetMessageClass(by_name(name)).FromString(original)
    for field, value in now.ListFields():
        if field.name in descriptor.fields_by_name and field.message_type is None:
            assert known[field.name] == value
    # Handed on, for example by an older orchestrator, nothing is lost.
    again = message_factory.GetMessageClass(by_name(name)).FromString(message.SerializeToString())
    assert [field.field_number for field in unknown_fields.UnknownFieldSet(again)] == [999]
    again.DiscardUnknownFields()
    assert again == now


def test_a_value_that_an_enum_does_not_know_survives() -> None:
    request = pipeline_pb2.ProcessRequest.FromString(
        pipeline_pb2.ProcessRequest(options=pipeline_pb2.ProcessOptions(priority=99)).SerializeToString()  # type: ignore[arg-type]
    )
    assert request.options.priority == 99
    assert pipeline_pb2.ProcessRequest.FromString(request.SerializeToString()).options.priority == 99


def test_crops_pass_from_detection_to_recognition_by_bytes() -> None:
    """The two messages give crops one number, on which the orchestrator relies."""
    crops = [crop_pb2.Crop(id=1, raw=crop_pb2.RawImage(height=1, width=1, data=b"abc"))]
    detected = detection_pb2.DetectResponse(crops=crops).SerializeToString()
    assert list(recognition_pb2.RecognizeRequest.FromString(detected).crops) == crops


def write(name: str, message: Message) -> None:
    (GOLDEN / f"{name}.binpb").write_bytes(message.SerializeToString(deterministic=True))
    text = json_format.MessageToJson(message, preserving_proto_field_name=True, ensure_ascii=False, indent=1)
    (GOLDEN / f"{name}.json").write_text(text + "\n", encoding="utf-8")


def main() -> None:
    GOLDEN.mkdir(exist_ok=True)
    for descriptor in messages():
        name = descriptor.full_name
        if not (GOLDEN / f"{name}.binpb").exists():
            for choice, case in enumerate(cases(descriptor)):
                write(case, example(descriptor, choice))
        for field in sorted(missing_fields(descriptor)):
            message = message_factory.GetMessageClass(descriptor)()
            fill(message, descriptor.fields_by_name[field], 0)
            write(f"{name}+{field}", message)


if __name__ == "__main__":
    main()
