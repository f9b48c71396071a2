"""Which graphs there are, which of them are compiled, and how crops are made up into batches."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from sluiceway_recognition.backends.batches import BatchSizes, GraphSettings, compile_order, graph_sizes
from sluiceway_recognition.inputs.buckets import DEFAULT_BUCKETS


def test_wide_batches_are_cut_to_the_pixels_that_a_batch_may_have() -> None:
    sizes = graph_sizes(GraphSettings(batches=(1, 8, 128), max_px=128 * 48 * 640), (320, 1920), 48)
    assert sizes == [(1, 320), (8, 320), (128, 320), (1, 1920), (8, 1920), (42, 1920)]
    assert graph_sizes(GraphSettings(batches=(4, 8), max_px=100), (64,), 48) == [(1, 64)]


def test_full_batches_of_words_and_a_small_one_are_compiled_first() -> None:
    sizes = graph_sizes(GraphSettings(), DEFAULT_BUCKETS, 48)
    order = compile_order(sizes)
    assert sorted(order) == sorted(sizes)
    assert order[:8] == [*((128, width) for width in (64, 96, 128, 160, 192, 256, 320)), (8, 320)]
    # A classifier has one width, be it ever so wide.
    assert compile_order([(1, 640), (8, 640), (128, 640)])[:2] == [(128, 640), (1, 640)]


def test_crops_are_made_up_of_the_cheapest_batches() -> None:
    batches = BatchSizes({320: {1: 0.4, 8: 0.6, 32: 2.0, 128: 7.0}})
    assert [batches.first(320, count) for count in (1, 2, 8, 9, 33, 120, 128, 129, 500)] == [
        1, 8, 8, 8, 32, 128, 128, 128, 128,
    ]  # fmt: skip


def made_up(batches: BatchSizes, width: int, count: int) -> list[int]:
    made = []
    while count > 0:
        made.append(batches.first(width, count))
        count -= made[-1]
    return made


@given(
    st.dictionaries(st.sampled_from([1, 2, 3, 8, 32, 128]), st.floats(0.01, 100), min_size=1),
    st.integers(1, 600),
)
def test_any_number_is_made_up_and_never_dearer_than_of_one_kind(costs: dict[int, float], count: int) -> None:
    batches = BatchSizes({64: costs})
    made = made_up(batches, 64, count)
    assert sum(made) >= count > sum(made[:-1])
    if count < 2 * max(costs):
        least = min(cost * -(-count // size) for size, cost in costs.items())
        assert sum(costs[size] for size in made) <= least * (1 + 1e-9)


def test_a_batch_without_memory_is_not_used_again_nor_a_larger_one() -> None:
    batches = BatchSizes({64: {1: 1.0, 8: 2.0, 32: 3.0}})
    assert batches.first(64, 20) == 32
    assert batches.drop(64, 8)
    assert made_up(batches, 64, 3) == [1, 1, 1]
    assert not batches.drop(64, 1)
    assert batches.first(64, 3) == 1
