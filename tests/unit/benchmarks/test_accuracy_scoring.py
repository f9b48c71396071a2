"""How `make accuracy` counts: words, characters, neighbours, intervals and bars."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from benchmarks.accuracy import bars
from benchmarks.accuracy.bootstrap import difference, f_score, interval
from benchmarks.accuracy.matching import neighbours, tally, wrong_characters
from benchmarks.accuracy.picture import Stored
from benchmarks.accuracy.readings import Reading
from benchmarks.accuracy.scoring import score_class, word_boxes
from benchmarks.accuracy.words import characters_of, words_of

LINES = ["the harbour lets water down", "before noon and every lock", "keeper writes 1,204.50 paid"]


def test_signs_that_look_alike_are_the_same_and_case_is_not() -> None:
    assert words_of("“Don’t” — 3–4 Ｔｅｓｔ ﬁre") == ['"Don\'t"', "-", "3-4", "Test", "fire"]  # noqa: RUF001
    assert words_of("Gate") != words_of("gate")


def test_each_character_of_a_script_without_spaces_is_a_word() -> None:
    assert words_of("第7章、港口 ok。") == ["第", "7", "章", ",", "港", "口", "ok."]
    assert words_of("りんごを 二つ") == list("りんごを二つ")


def test_words_count_as_often_as_they_are_there() -> None:
    found = tally(["a", "a", "b"], ["a", "c"])
    assert found == {"a": (2, 1), "b": (1, 0), "c": (0, 1)}
    assert f_score([found]) == pytest.approx(2 * 1 / 5)
    assert f_score([tally([], [])]) == 1.0


def test_neighbours_are_pairs_in_their_order() -> None:
    assert neighbours(list("abcd"), list("abdc")) == (1, 3)
    assert neighbours(["a"], ["a"]) == (0, 0)


def characters(lines: list[str]) -> list[str]:
    return [characters_of(line) for line in lines]


@pytest.mark.parametrize(
    ("read", "wrong"),
    [
        (LINES, 0),
        (LINES[::-1], 0),  # order is judged elsewhere
        ([" ".join(LINES)], 0),  # one reader's line is another's three
        ([word for line in LINES for word in line.split()][::-1], 0),
        ([LINES[0].replace("harbour", "harb0ur"), *LINES[1:]], 1),
        ([LINES[0].replace("harbour", "harbur"), *LINES[1:]], 1),
        (LINES[1:], 23),
        ([*LINES, "noise"], 5),
        ([], 69),
    ],
)
def test_wrong_characters(read: list[str], wrong: int) -> None:
    assert wrong_characters(characters(LINES), characters(read)) == wrong


def test_a_crumb_is_laid_where_the_rest_of_its_word_is() -> None:
    # The first line has a 1 as well, and its own text is read with a fault.
    assert wrong_characters(["article10large", "1"], ["artlcle10large", "1"]) == 1


def plain_distance(first: str, second: str) -> int:
    row = list(range(len(second) + 1))
    for place, one in enumerate(first, 1):
        left, row[0] = row[0], place
        for column, other in enumerate(second, 1):
            left, row[column] = row[column], min(row[column] + 1, row[column - 1] + 1, left + (one != other))
    return row[-1]


def test_one_line_with_faults_costs_what_the_plain_algorithm_says() -> None:
    chance = random.Random(3)
    for _ in range(200):
        line = "".join(chance.choice("abcdefghij") for _ in range(chance.randint(30, 90)))
        read = list(line)
        for _ in range(chance.randint(0, 3)):
            read[chance.randrange(len(read))] = chance.choice(["", "x", "xy"])

        assert wrong_characters([line], ["".join(read)]) == plain_distance(line, "".join(read))


def test_intervals_hold_the_figure_and_are_the_same_each_time() -> None:
    words = [f"w{number}" for number in range(100)]
    tallies = [tally(words, words[: 90 + number]) for number in range(4)]
    found = interval(tallies)
    assert found == interval(tallies)
    assert found.low < found.value < found.high
    assert found.high - found.low < 0.06


def test_a_picture_that_failed_as_a_whole_widens_the_interval() -> None:
    words = [f"w{number}" for number in range(100)]
    even = [tally(words, words[:75])] * 4
    uneven = [tally(words, words)] * 3 + [tally(words, [])]
    narrow, wide = interval(even), interval(uneven)
    assert wide.high - wide.low > 2 * (narrow.high - narrow.low)


def test_readers_are_compared_on_the_same_draws() -> None:
    words = [f"w{number}" for number in range(300)]
    chance = random.Random(1)
    theirs = [chance.sample(words, 240) for _ in range(3)]
    # Ours reads what they read and ten words more: alone, the intervals of the two overlap.
    ours = [[*found, *[word for word in words if word not in found][:10]] for found in theirs]
    pairs = [[tally(words, found) for found in side] for side in (ours, theirs)]
    assert interval(pairs[0]).low < interval(pairs[1]).high
    assert difference(*pairs).low > 0
    assert difference(pairs[0], pairs[0]).low == difference(pairs[0], pairs[0]).high == 0


def stored(*lines: str) -> Stored:
    boxes = [[(10.0 * place, 0.0, 10.0 * place + 8, 10.0) for place in range(len(line.split()))] for line in lines]
    return Stored(Path("none.png"), lines, boxes)


def results(ours: list[str], theirs: list[str], *, lines: tuple[str, ...] = tuple(LINES)) -> dict[str, Any]:
    readings = {"sluiceway": [Reading(tuple(ours), cpu_s=0.2)], "turboocr": [Reading(tuple(theirs), cpu_s=0.4)]}
    score = score_class([stored(*lines)], readings, bars.PAIRS).to_dict()
    return {"classes": {"signs": score | {"least_f": 0.99, "least_neighbours": 0.98, "small_only": False}}}


def test_all_read_passes_every_bar() -> None:
    found = results(LINES, LINES)
    assert json.loads(json.dumps(found)) is not None
    assert bars.faults(bars.judge(found)) == []
    assert bars.ratios(found) == {
        "f.sluiceway_to_turboocr.signs": 1.0,
        "cpu.sluiceway_to_turboocr.signs": pytest.approx(0.5),
    }


def test_what_is_missed_is_told_by_name() -> None:
    found = bars.faults(bars.judge(results(LINES[:1], LINES)))
    names = {fault.split(" ")[0] for fault in found}
    assert names == {
        "f.signs",
        "neighbours.signs",
        "not_below.sluiceway_turboocr.signs",
        "share_ahead.sluiceway_turboocr",
    }


def test_scripts_that_the_tiny_models_do_not_know_are_not_held_against_them() -> None:
    found = results(LINES[:1], LINES)
    found["classes"]["signs"] |= {"small_only": True, "least_f": None, "least_neighbours": None}
    assert bars.judge(found) == []


def test_order_is_judged_by_neighbours_alone() -> None:
    found = results(LINES[::-1], LINES)["classes"]["signs"]["readers"]["sluiceway"]
    assert (found["f"]["value"], found["wrong"]) == (1.0, 0.0)
    assert found["neighbours"] == pytest.approx(11 / 13)


def test_a_picture_that_was_refused_counts_as_unread() -> None:
    readings = {"sluiceway": [Reading(error="INVALID_ARGUMENT")]}
    score = score_class([stored(*LINES)], readings, ()).readers["sluiceway"]
    assert (score.f.value, score.wrong, score.failed, score.cpu_s) == (0.0, 1.0, 1, None)


def test_boxes_of_words_are_laid_on_those_that_were_drawn() -> None:
    picture = stored("a b")
    exact = Reading(("a b",), words=(("a", (0, 0, 8, 10)), ("b", (10, 0, 18, 10))))
    moved = Reading(("a b",), words=(("a", (4, 0, 12, 10)), ("b", (14, 0, 22, 10))))
    best, shifted = word_boxes([picture], [exact]), word_boxes([picture], [moved])
    assert best is not None
    assert shifted is not None
    assert (best.words, best.median, best.share_above_60) == (2, 1.0, 1.0)
    assert shifted.median == pytest.approx((4 / 12 + 4 / 12) / 2)
    assert word_boxes([picture], [Reading(("a b",))]) is None
