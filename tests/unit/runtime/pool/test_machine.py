"""Who is judged how: the table behind `test_scheduler_machine.py`."""

from __future__ import annotations

import math

import pytest
from named_payload import Named
from sluiceway_runtime.pool.policy.items import Item
from sluiceway_runtime.pool.policy.machine import TRIAL_ID, TRIES, Judgement, Machine
from sluiceway_runtime.pool.policy.quarantine import Quarantine, Verdict
from sluiceway_runtime.priority import Priority

NOBODY = {"witness": False, "others": False, "broken": False}


def item(name: str) -> Item:
    return Item(7, "r", 10.0, Priority.BULK, "wide", 3, 99, Named(name), owner="somebody", position=4)


@pytest.fixture
def quarantine() -> Quarantine:
    return Quarantine(600.0)


@pytest.fixture
def machine(quarantine: Quarantine) -> Machine:
    return Machine(quarantine)


@pytest.mark.parametrize(
    ("facts", "judgement", "remembered"),
    [
        ({}, Judgement.GUILTY, Verdict.GUILTY),
        ({"witness": True}, Judgement.GUILTY, Verdict.GUILTY),
        # It worked until now, whatever it says of its device.
        ({"witness": True, "broken": True}, Judgement.GUILTY, Verdict.GUILTY),
        ({"witness": True, "others": True}, Judgement.GUILTY, Verdict.GUILTY),
        ({"others": True}, Judgement.TRY_AGAIN, Verdict.INNOCENT),
        ({"others": True, "broken": True}, Judgement.TRY_AGAIN, Verdict.INNOCENT),
        ({"broken": True}, Judgement.MACHINE, Verdict.INNOCENT),
    ],
)
def test_of_a_first_culprit(machine, quarantine, facts, judgement, remembered):
    assert machine.judge(item("a"), 5.0, **NOBODY | facts) is judgement
    assert quarantine.verdict(item("a"), 6.0) is remembered
    assert machine.ill is (judgement is Judgement.MACHINE)


def test_the_second_in_a_row_is_the_machine_and_both_are_forgotten(machine, quarantine):
    assert machine.judge(item("a"), 0.0, **NOBODY) is Judgement.GUILTY
    assert machine.judge(item("a"), 0.0, **NOBODY) is Judgement.GUILTY, "the same one again is no other"
    assert machine.judge(item("b"), 0.0, **NOBODY) is Judgement.MACHINE
    assert machine.ill is True
    assert len(quarantine) == 0


def test_a_success_between_them_makes_it_two_killers(machine, quarantine):
    assert machine.ill is False
    assert machine.judge(item("a"), 0.0, **NOBODY) is Judgement.GUILTY
    machine.computed()
    assert machine.judge(item("b"), 0.0, **NOBODY) is Judgement.GUILTY
    assert len(quarantine) == 2


def test_one_that_a_witness_convicts_says_nothing_of_the_machine(machine, quarantine):
    assert machine.judge(item("a"), 0.0, **NOBODY | {"witness": True}) is Judgement.GUILTY
    assert machine.judge(item("b"), 0.0, **NOBODY) is Judgement.GUILTY


def test_an_ill_machine_is_tried_with_a_copy_a_few_times_and_then_given_work(machine, quarantine):
    original = item("a")
    assert machine.next_trial() is None
    machine.judge(original, 0.0, **NOBODY | {"broken": True})
    for _ in range(TRIES):
        trial = machine.next_trial()
        assert trial is not None
        assert (trial.id, trial.request_id, trial.deadline_s) == (TRIAL_ID, "", math.inf)
        assert (trial.priority, trial.group, trial.cost, trial.size_bytes) == (Priority.NORMAL, "wide", 3, 99)
        assert trial.payload is original.payload
        assert trial.owner is None
        assert machine.ill is True
        assert machine.judge(trial, 0.0, **NOBODY) is Judgement.MACHINE
    assert machine.next_trial() is None
    assert machine.ill is False
    assert len(quarantine) == 0
    # What was held against it is not forgotten before it computes: the next one is enough.
    assert machine.judge(item("b"), 0.0, **NOBODY) is Judgement.MACHINE


def test_a_success_ends_it_and_lets_go_of_what_it_was_tried_with(machine):
    machine.judge(item("a"), 0.0, **NOBODY | {"broken": True})
    assert machine.next_trial() is not None
    machine.computed()
    assert machine.ill is False
    assert machine.next_trial() is None
    assert machine.judge(item("b"), 0.0, **NOBODY) is Judgement.GUILTY
