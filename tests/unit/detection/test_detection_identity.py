"""Which replicas are of one version."""

from dataclasses import replace

from sluiceway_detection.front.identity import Identity, group_of
from sluiceway_detection.worker.handler import DetectionFacts

IDENTITY = Identity("finder", "1", "a" * 64)
OWN = Identity("shop:Detector", "1", "")


def test_a_group_is_the_same_on_every_machine() -> None:
    assert group_of(IDENTITY, ("x", "y"), 640) == "c7bca69c0ab7e810"


def test_a_group_tells_what_differs() -> None:
    groups = [
        group_of(IDENTITY, ("x", "y"), 640),
        group_of(replace(IDENTITY, name="other"), ("x", "y"), 640),
        group_of(replace(IDENTITY, weights_sha256="b" * 64), ("x", "y"), 640),
        group_of(IDENTITY, ("y", "x"), 640),
        group_of(IDENTITY, ("x,y",), 640),
        group_of(IDENTITY, ("x", "y"), 1280),
        group_of(OWN, ("x", "y"), 1280),
        group_of(replace(OWN, version="2"), ("x", "y"), 1280),
    ]
    assert len(set(groups)) == len(groups)


def test_what_the_weights_say_needs_no_version() -> None:
    assert group_of(replace(IDENTITY, version="2"), ("x",), 640) == group_of(IDENTITY, ("x",), 640)


def test_a_detector_is_given_no_larger_regions_than_it_looks_at() -> None:
    facts = DetectionFacts("onnx", "f32", "cpu", ("x",), (640, 1280), ((480, 640), (1280, 1280)))
    assert facts.crop_longest_px == 640
    assert replace(facts, backend="user", image_sizes=(), shapes=()).crop_longest_px == 1280
