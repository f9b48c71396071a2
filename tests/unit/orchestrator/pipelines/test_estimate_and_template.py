"""How large an answer is expected to be; parameters of calls as text with placeholders."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sluiceway_orchestrator.pipelines.estimate import Estimate
from sluiceway_orchestrator.pipelines.template import fill, placeholders


def test_the_first_answer_replaces_what_was_assumed() -> None:
    estimate = Estimate(16e6)
    assert estimate.expected_bytes == 16_000_000
    estimate.learn(1000)
    assert 1000 <= estimate.expected_bytes <= 2000


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=50))
def test_it_is_never_negative_and_never_far_beyond_the_largest(sizes: list[int]) -> None:
    estimate = Estimate(10**6)
    for size in sizes:
        estimate.learn(size)
        assert 0 <= estimate.expected_bytes <= 4 * max(sizes) + 1


def test_most_answers_are_within_it_and_it_follows_them() -> None:
    source = random.Random(1)
    estimate = Estimate(10**9)
    for mean in (10**6, 10**7, 10**5):
        within = 0
        for number in range(400):
            size = max(0, round(source.gauss(mean, mean / 10)))
            within += size <= estimate.expected_bytes
            estimate.learn(size)
            if number == 100:
                within = 0
        assert within >= 0.9 * 299
        assert estimate.expected_bytes < 2 * mean


def test_equal_answers_are_expected_to_be_equal() -> None:
    estimate = Estimate(10**6)
    for _ in range(200):
        estimate.learn(5000)
    assert estimate.expected_bytes == 5000


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("", []),
        ("plain", []),
        ("{text}", ["text"]),
        ("{param.item-1}/{values}", ["param.item-1", "values"]),
        ("{ text } {} {1} {\"a\": 1}", []),
        ("{{text}}", ["text"]),
    ],
)  # fmt: skip
def test_placeholders(template: str, words: list[str]) -> None:
    assert list(placeholders(template)) == words


def test_texts_are_put_in_as_they_are_and_other_facts_as_json() -> None:
    facts = {"text": '{class} ä"', "class": "car", "values": {"a": [1, None, "ü"]}}
    assert fill("{text}|{values}|{unknown}|{param.id}|{param.no}", facts, {"id": "{text}"}) == (
        '{class} ä"|{"a":[1,null,"ü"]}||{text}|'
    )
