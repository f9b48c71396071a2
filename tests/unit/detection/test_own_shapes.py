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


# One more than are kept, all of as many pixels.
ALIKE = [(32 * 2**power, 32 * 2 ** (MOST_SHAPES - power)) for power in range(MOST_SHAPES + 1)]


def test_one_that_is_clearly_worth_more_takes_the_place_of_the_one_that_saves_least() -> None:
    machine = Machine(make_s=0.1)
    *usual, new = ALIKE
    for shape in usual:
        machine.run(shape, 4)
    machine.run(usual[0], 4)
    assert set(machine.shapes.shapes) == set(usual)
    assert machine.run(new, 4) == ["general"] * 4, "it has saved no more than each of the others"
    assert machine.run(new, 8)[-1] == f"own {new}"
    assert len(machine.shapes.shapes) == MOST_SHAPES
    assert usual[0] in machine.shapes.shapes
    assert usual[1] not in machine.shapes.shapes, "it was not used for longest"
    assert machine.run(usual[1]) == ["general"], "it has to pay once more"


def test_what_comes_in_turns_stays_compiled() -> None:
    """Whatever is dropped for another would be wanted again before it has paid."""
    machine = Machine(make_s=0.1)
    for _ in range(100):
        for shape in ALIKE:
            machine.run(shape)
    assert machine.made == ALIKE[:MOST_SHAPES]


def test_what_was_used_long_ago_counts_little() -> None:
    machine = Machine(make_s=0.1, most_px=A[0] * A[1])
    machine.run(A, 500)
    answers = machine.run(B, 200)
    assert answers[-1] == f"own {B}"
    assert machine.made == [A, B]


def test_pixels_are_bounded_and_the_small_save_more_for_each() -> None:
    machine = Machine(make_s=0.1, most_px=2 * A[0] * A[1])
    machine.run(LARGE, 20)
    assert machine.made == [], "one that is larger than all may be is never compiled"
    half = (320, 480)
    for shape in (A, B, half):
        machine.run(shape, 4)
    assert machine.shapes.shapes == (A, B)
    machine.run(half, 2)
    assert machine.shapes.shapes == (B, half)


def test_compiling_costs_no_more_than_was_lost_without_it() -> None:
    machine = Machine(most_px=A[0] * A[1])
    answers = [
        answer for length in (5, 9, 20, 90, 200, 200, 9, 300) for s in (A, B) for answer in machine.run(s, length)
    ]
    lost_s = SAVED_SHARE * answers.count("general")
    assert len(machine.made) > 2
    assert machine.make_s * len(machine.made) <= lost_s
