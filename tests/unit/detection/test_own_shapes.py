"""Which shapes are compiled for themselves."""

import math

from sluiceway_detection.backends.own_shapes import MOST_SHAPES, SAVED_SHARE, OwnShapes
from sluiceway_detection.inputs.shapes import InputShape

A, B, LARGE = (640, 480), (480, 640), (1280, 1280)


class Machine:
    """Computing an image takes a second in the general model, and compiling as long as `make_s`."""

    def __init__(self, make_s: float = 2.9, most_px: int = 10**9) -> None:
        self.now_s, self.make_s = 0.0, make_s
        self.made: list[InputShape] = []
        self.shapes = OwnShapes("general", self.make, make_s=make_s, most_px=most_px, clock=lambda: self.now_s)

    def make(self, shape: InputShape) -> str:
        self.now_s += self.make_s
        self.made.append(shape)
        return f"own {shape}"

    def run(self, shape: InputShape, count: int = 1) -> list[str]:
        def compute(request: str) -> None:
            self.now_s += 1.0

        return [self.shapes.infer(shape, compute) for _ in range(count)]


def test_a_shape_is_compiled_when_that_would_have_paid() -> None:
    machine = Machine()
    patience = math.ceil(machine.make_s / SAVED_SHARE)
    assert machine.run(A, patience) == ["general"] * patience
    assert machine.run(B) == ["general"]
    assert machine.made == []
    assert machine.run(A, 2) == [f"own {A}"] * 2
    assert machine.run(B) == ["general"]
    assert machine.made == [A]


def test_of_too_many_the_one_that_was_not_used_for_longest_goes() -> None:
    machine = Machine(make_s=0.1)
    shapes = [(32 * side, 64) for side in range(2, 3 + MOST_SHAPES)]
    for shape in shapes[:-1]:
        machine.run(shape, 2)
    machine.run(shapes[0])
    machine.run(shapes[-1], 2)
    assert len(machine.shapes.shapes) == MOST_SHAPES
    assert shapes[1] not in machine.shapes.shapes
    assert shapes[0] in machine.shapes.shapes
    assert machine.run(shapes[1]) == ["general"], "it has to pay once more"


def test_pixels_are_bounded() -> None:
    machine = Machine(make_s=0.1, most_px=2 * A[0] * A[1])
    machine.run(LARGE, 20)
    assert machine.made == [], "one that is larger than all may be is never compiled"
    for shape in (A, B, (320, 640)):
        machine.run(shape, 2)
    assert machine.shapes.shapes == (B, (320, 640))


def test_compiling_costs_no_more_than_was_lost_without_it() -> None:
    machine = Machine(most_px=A[0] * A[1])
    for _ in range(100):
        machine.run(A)
        machine.run(B)
    spent_s = machine.make_s * len(machine.made)
    assert spent_s <= SAVED_SHARE * 200 + machine.make_s
