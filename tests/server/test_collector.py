"""The garbage collector of a process that is a node: each case in a process of its own."""

import os
import subprocess
import sys

from cluster_pool.server.collector import MIDDLE, NEVER, YOUNG

TUNED = """
import asyncio, gc
from cluster_pool.server import collector

collector.WHOLE = 100_000
collector.tune()

def wholes():
    return gc.get_stats()[2]["collections"]
"""

SETTINGS = """
print(gc.get_freeze_count() > 10_000, *gc.get_threshold())
"""

GROWTH = """
async def main():
    kept, before = [], wholes()
    for _ in range(50):
        kept += ([] for _ in range(10_000))
        await asyncio.sleep(0)
    print(wholes() - before)

asyncio.run(main())
"""

CHURN = """
async def main():
    kept = [[] for _ in range(200_000)]
    await asyncio.sleep(0.01)
    before = wholes()
    for _ in range(100):
        burst = [[] for _ in range(20_000)]
        await asyncio.sleep(0)
    print(wholes() - before)

asyncio.run(main())
"""

CYCLES = """
class Node:
    living = 0

    def __init__(self):
        Node.living += 1
        self.cycle = self

    def __del__(self):
        Node.living -= 1

async def main():
    most = 0
    for _ in range(30):
        held = [Node() for _ in range(30_000)]
        await asyncio.sleep(0)
        del held
        most = max(most, Node.living)
    print(most)

asyncio.run(main())
"""

STORM = """
async def main():
    looked_at = []

    def look(phase, info):
        if phase == "start":
            looked_at.append(len(gc.get_objects(0)) + len(gc.get_objects(1)))

    flying = [[[] for _ in range(50)] for _ in range(2_000)]
    gc.callbacks.append(look)
    for at in range(20_000):
        if at % 100 == 0:
            await asyncio.sleep(0)
            flying[at % 2_000 : at % 2_000 + 100] = [[]] * 100
        flying[at % 2_000] = [[] for _ in range(50)]
    print(max(looked_at))

asyncio.run(main())
"""


def run(program: str, **variables: str) -> list[str]:
    """The words that a program prints which has tuned its collector."""
    command = [sys.executable, "-c", TUNED + program]
    environment = os.environ | variables
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return done.stdout.split()


def test_loaded_program_is_excluded_and_new_objects_are_collected_less_often() -> None:
    assert run(SETTINGS) == ["True", str(YOUNG), str(MIDDLE), str(NEVER)]


def test_a_growing_program_is_collected_as_a_whole_when_it_has_doubled() -> None:
    """Half a million objects are kept, and all are looked at when there are 140,000, 280,000, …;
    Python by itself does it with each quarter more."""
    (wholes,) = run(GROWTH)
    assert 1 <= int(wholes) <= 4


def test_objects_that_come_and_go_bring_no_collection_of_everything() -> None:
    """They survive collections while they live: two millions of them, in bursts."""
    (wholes,) = run(CHURN)
    assert int(wholes) <= 1


def test_cycles_that_had_survived_are_freed_all_the_same() -> None:
    """900,000 objects with a cycle each are dropped after they were excluded."""
    (most,) = run(CYCLES)
    assert int(most) < 400_000


def test_a_storm_in_which_as_many_objects_go_as_come_is_looked_at_in_parts() -> None:
    """Each batch of 100 frees its 5,000 objects and makes others, of 100,000 in flight."""
    (most,) = run(STORM)
    assert int(most) < 20_000


def test_cycles_are_freed_with_any_allocator() -> None:
    """One that Python does not count the blocks of."""
    (most,) = run(CYCLES, PYTHONMALLOC="malloc")
    assert int(most) < 400_000
