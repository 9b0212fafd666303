"""The comparison of rooms when all is quiet: at nodes, in the registry and for watchers."""

import asyncio
import time
from collections.abc import Sequence

from tools.chaos.place import Place
from tools.chaos.roaming import WATCHED, rooms_of

PATIENCE = 10.0
"""Seconds until all must agree."""


async def compare_rooms(places: Sequence[Place], names: list[str]) -> tuple[int, list[str]]:
    """How many members rooms have; and each that only the registry has, or only its node, or
    that a watcher has not."""
    deadline = time.monotonic() + PATIENCE
    while True:
        asked = [place.program.ask("rooms") for place in places]
        held = {tuple(one) for said in await asyncio.gather(*asked) for one in said}
        said = await places[0].program.ask("registered_rooms", rooms=names)
        registry = {tuple(one) for one in said}
        wrong = [
            f"{'/'.join(one)} is {'not registered' if one in held else 'a ghost'}"
            for one in sorted(held ^ registry)
        ]
        wrong += await _compare_watchers(places, registry)
        if not wrong or time.monotonic() > deadline:
            return len(held), wrong
        await asyncio.sleep(0.2)


async def _compare_watchers(places: Sequence[Place], registry: set[tuple[str, ...]]) -> list[str]:
    """The differences between the registry and what watchers know of their rooms."""
    wrong = []
    there = {one for one in registry if one[0] in rooms_of(WATCHED)}
    for place in places:
        watched = {tuple(one) for one in await place.program.ask("watched_rooms")}
        wrong += [
            f"{'/'.join(one)} is {'unknown' if one in there else 'a ghost'} to {place.node}"
            for one in sorted(watched ^ there)
            if watched or there
        ]
    return wrong
