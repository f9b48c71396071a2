"""The memory of one message serves the next one, and the collector leaves alone what was there at the start."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
from sluiceway_runtime.resident import held_bytes
from sluiceway_runtime.server import memory

if sys.argv[1] == "tuned":
    memory.keep_freed_memory()

def faults(times):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        message = bytearray(b"x") * 1_500_000
        copy = bytes(message)
        del message, copy
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults(5)
print(faults(100))
"""
SETTLED = """
import gc
from sluiceway_runtime.resident import held_bytes
from sluiceway_runtime.server import memory

before = gc.get_freeze_count()
memory.settle()
assert gc.get_freeze_count() > before
class Loop:
    pass
import weakref
loop = Loop()
loop.self = loop
gone = weakref.ref(loop)
del loop
gc.collect()
assert gone() is None, "cycles made later are still collected"
"""
HOLES = """
import sys
from sluiceway_runtime.account import MemoryBudget, Phase
from sluiceway_runtime.resident import held_bytes
from sluiceway_runtime.server import memory

MIB = 2**20
memory.keep_freed_memory()
budget = MemoryBudget(512 * MIB)
if sys.argv[1] == "given":
    memory.give_back_freed(budget)
before = held_bytes()
account = budget.account()
messages = []
for _ in range(200):
    account.add(2 * MIB, Phase.SMALL)
    messages.append(bytearray(b"x") * (2 * MIB))
for number in range(0, 200, 2):
    messages[number] = None
    account.remove(2 * MIB, Phase.SMALL)
print((held_bytes() - before - budget.used_bytes) // MIB)
"""
# Of a message, and of what knows it in a circle: an error, its traceback, a frame.
CIRCLES = """
import sys
from sluiceway_runtime.account import MemoryBudget, Phase
from sluiceway_runtime.resident import held_bytes
from sluiceway_runtime.server import memory

MIB = 2**20
memory.keep_freed_memory()
memory.settle()
budget = MemoryBudget(512 * MIB)
if sys.argv[1] == "given":
    memory.give_back_freed(budget)
before = held_bytes()
account = budget.account()

def fail():
    message = bytearray(b"x") * (8 * MIB)
    try:
        raise ValueError
    except ValueError as error:
        kept = error

for _ in range(50):
    account.add(8 * MIB, Phase.SMALL)
    fail()
    account.remove(8 * MIB, Phase.SMALL)
print((held_bytes() - before) // MIB)
"""


def run(program: str, *arguments: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", program, *arguments], check=True, capture_output=True, text=True, timeout=60
    ).stdout


@pytest.mark.skipif("glibc" not in platform.libc_ver()[0], reason="other allocators are left as they are")
def test_the_memory_of_a_message_is_used_for_the_next():
    usual, tuned = int(run(FAULTS, "usual")), int(run(FAULTS, "tuned"))
    assert tuned < 100
    assert usual > 10 * tuned, "without it each message costs new pages, or this test measures nothing"


@pytest.mark.skipif("glibc" not in platform.libc_ver()[0], reason="other allocators are left as they are")
def test_memory_that_is_free_between_messages_is_given_back():
    assert int(run(HOLES, "kept")) > 180, "without it the holes stay, or this test measures nothing"
    assert int(run(HOLES, "given")) < 100


def test_what_was_there_at_the_start_is_not_searched_and_later_cycles_are():
    run(SETTLED)


@pytest.mark.skipif("glibc" not in platform.libc_ver()[0], reason="without it nobody looks")
def test_memory_that_only_circles_know_is_given_back():
    assert int(run(CIRCLES, "kept")) > 380, "without it they are kept, or this test measures nothing"
    assert int(run(CIRCLES, "given")) < 150
