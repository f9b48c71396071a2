"""Which connection a call takes, and when others are looked for: by a clock of the test's own."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from sluiceway.client.addresses import Place
from sluiceway.client.lines.spread import CALLS_A_LOOK, LOOK_EVERY_S, MOST_SERVERS, Spread

ONE, TWO, THREE = (Place(f"10.0.0.{number}:50051") for number in (1, 2, 3))


@pytest.fixture
def spread() -> Spread[str]:
    return Spread(random.Random(7))


def test_calls_go_to_each_server_in_turn(spread: Spread[str]) -> None:
    assert spread.take() is None
    for name in "abc":
        assert spread.met(name, f"to {name}", None)
    assert Counter(spread.take() for _ in range(30)) == {"to a": 10, "to b": 10, "to c": 10}
    spread.lost("to b")
    assert Counter(spread.take() for _ in range(30)) == {"to a": 15, "to c": 15}


def test_a_second_connection_to_a_server_is_not_kept(spread: Spread[str]) -> None:
    assert spread.met("a", "first", None)
    assert not spread.met("a", "second", ONE)
    assert spread.take() == "first"


def test_nobody_looks_before_the_first_server_is_known(spread: Spread[str]) -> None:
    assert not any(spread.look_due(float(second)) for second in range(10))


def test_looks_are_as_rare_as_they_are_fruitless(spread: Spread[str]) -> None:
    """At once after something was found or lost; else after some seconds, and some calls."""
    spread.met("a", "to a", None)
    assert spread.look_due(0)
    assert not spread.look_due(0), "one at a time"
    spread.met("b", "to b", ONE)
    spread.looked(0, found=True)
    assert spread.look_due(0)
    spread.looked(0, found=False)
    # Two servers: twice as often as with one.
    for _ in range(CALLS_A_LOOK):
        assert not spread.look_due(LOOK_EVERY_S / 2 - 0.01)
    assert spread.look_due(LOOK_EVERY_S / 2)
    spread.looked(10, found=False)
    for _ in range(CALLS_A_LOOK - 1):
        assert not spread.look_due(100)
    assert spread.look_due(100)
    spread.looked(100, found=False)
    spread.lost("to b")
    assert spread.look_due(100)


def test_a_connection_that_is_lost_while_one_looks_is_looked_for_after_that(spread: Spread[str]) -> None:
    spread.met("a", "to a", None)
    spread.met("b", "to b", None)
    assert spread.look_due(0)
    spread.lost("to b")
    spread.looked(0, found=False)
    assert spread.look_due(0)


def test_every_place_without_a_connection_is_tried_and_else_any(spread: Spread[str]) -> None:
    spread.met("a", "to a", None)
    assert spread.to_try([ONE, TWO]) == [ONE, TWO]
    # One of them turned out to be where the first one is, which had been found by the name.
    assert not spread.met("a", "again", ONE)
    assert spread.to_try([ONE, TWO, THREE]) == [TWO, THREE]
    spread.met("b", "to b", TWO)
    spread.met("c", "to c", THREE)
    tried = Counter(place for _ in range(60) for place in spread.to_try([ONE, TWO, THREE]))
    assert set(tried) == {ONE, TWO, THREE}
    assert sum(tried.values()) == 60
    assert spread.to_try([]) == []


def test_a_server_with_two_addresses_is_tried_at_neither_of_them_again(spread: Spread[str]) -> None:
    spread.met("a", "to a", ONE)
    assert not spread.met("a", "again", TWO)
    assert spread.to_try([ONE, TWO, THREE]) == [THREE]


def test_a_place_is_free_again_when_its_connection_is_lost(spread: Spread[str]) -> None:
    spread.met("a", "to a", ONE)
    spread.met("b", "to b", TWO)
    spread.lost("to b")
    assert spread.servers == ("a",)
    assert spread.to_try([ONE, TWO]) == [TWO]


def test_a_client_has_so_many_connections_at_most(spread: Spread[str]) -> None:
    places = [Place(f"10.0.1.{number}:50051") for number in range(30)]
    spread.met("0", "to 0", places[0])
    tried = spread.to_try(places)
    assert len(tried) == MOST_SERVERS - 1
    for place in tried:
        spread.met(place.address, f"to {place.address}", place)
    assert not spread.look_due(1000)
    spread.lost("to 0")
    assert spread.look_due(1000)


@pytest.mark.parametrize("servers", [2, 3, 8])
def test_every_server_behind_one_address_is_found_within_seconds(servers: int) -> None:
    """By chance, as kube-proxy has it; in a hundred clients that make 20 calls a second."""
    slowest_s = 0.0
    for seed in range(100):
        chance, spread = random.Random(seed), Spread[object](random.Random(seed))
        spread.met(str(chance.randrange(servers)), object(), None)
        now_s = 0.0
        while len(spread.servers) < servers:
            now_s += 0.05
            if spread.look_due(now_s):
                assert spread.to_try([ONE]) == [ONE]
                found = spread.met(str(chance.randrange(servers)), object(), ONE)
                spread.looked(now_s, found=found)
        slowest_s = max(slowest_s, now_s)
    print(f"the slowest of 100 clients knew all {servers} after {slowest_s:.1f} s")
    assert slowest_s < 30
