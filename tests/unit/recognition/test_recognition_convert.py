"""What is checked of a request as a whole."""

import pytest
from sluiceway_recognition.convert import check_crops, request_of
from sluiceway_runtime.errors import InvalidOption, UnknownModel

from sluiceway.common.v1 import crop_pb2
from sluiceway.recognition.v1 import recognition_pb2 as pb


def checked(*models: str, options: str = "", max_crops: int = 16) -> str:
    crops = [crop_pb2.Crop(id=number, model=model) for number, model in enumerate(models)]
    request = pb.RecognizeRequest(options=pb.RecognizeOptions(model=options), crops=crops)
    return check_crops(request_of(request), ["a", "b"], max_crops)


def test_a_request_is_for_one_model() -> None:
    assert [checked(), checked(""), checked("b"), checked("b", "", options="b")] == ["a", "a", "b", "b"]
    with pytest.raises(InvalidOption, match="several models"):
        checked("a", "b")
    with pytest.raises(InvalidOption, match="17 crops"):
        checked(*[""] * 17)


def test_an_unknown_model_is_named_but_not_at_any_length() -> None:
    with pytest.raises(UnknownModel, match="no model c is served") as caught:
        checked("c")
    assert caught.value.metadata == {"model": "c", "models": "a, b"}
    # It travels in the trailers of the call, of which gRPC takes some kilobytes.
    with pytest.raises(UnknownModel, match="no model ccc") as caught:
        checked("c" * 2**20)
    assert len(str(caught.value)) + len(str(caught.value.metadata)) < 500
