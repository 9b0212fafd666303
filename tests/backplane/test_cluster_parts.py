"""The place of a shard's primary, and whether its state may be lost."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from redis.exceptions import NoPermissionError

from cluster_pool import BackplaneUnavailableError
from cluster_pool.backplane.cluster_parts import (
    WHILE_OPENING,
    ClusterPart,
    HomePlace,
    MappedPrimary,
    Nowhere,
)
from cluster_pool.backplane.slots import HOME_SLOT, SLOTS, Group, slot_of
from cluster_pool.core.identity import Identity
from cluster_pool.core.keys import Keys
from tests.support import async_test

A, B = ("10.0.0.1", 1), ("10.0.0.2", 2)
ADDRESS: Any = SimpleNamespace(
    shown="redis+cluster://here",
    announced=lambda where: SimpleNamespace(
        shown=f"redis://{where[0]}:{where[1]}", watch=None, login=None
    ),
)


class Map:
    """A map with prepared groups."""

    def __init__(self, *groups: Group) -> None:
        self.groups = groups
        self.away = False

    async def fresh(self, doubted: object = ()) -> None:
        if self.away:
            raise BackplaneUnavailableError("nobody answers")


class Redis:
    """Knows scripts, as a running process does."""

    def __init__(self) -> None:
        self.known: set[str] = set()
        self.refuses = False

    async def call(self, *words: str) -> Any:
        if self.refuses:
            raise NoPermissionError("no")
        if words[1] == "EXISTS":
            return [int(bool(self.known))]
        self.known.add(words[2])
        return b"digest"


def part_of(map: Any, group: Group) -> ClusterPart:
    """A part for a start."""
    return ClusterPart(ADDRESS, map, Keys(), Identity(Keys()), group)


@async_test
async def test_home_follows_its_slot() -> None:
    """Also when no node answers any more; without an owner of the slot there is no home."""
    map: Any = Map(Group(("a",), (A,), ((0, HOME_SLOT),)), Group(("b",), (B,), ((16000, 16383),)))
    home = HomePlace(ADDRESS, map)
    assert (await home.primary()).shown == "redis://10.0.0.1:1"
    map.away = True
    assert (await home.primary()).shown == "redis://10.0.0.1:1"
    map.groups = map.groups[1:]
    with pytest.raises(BackplaneUnavailableError, match="no node of the cluster has slot"):
        await home.primary()
    map.groups = ()
    with pytest.raises(BackplaneUnavailableError, match="nobody answers"):
        await home.primary()


@async_test
async def test_slots_without_an_owner_are_reported() -> None:
    """The error has their number and the remedy."""
    map: Any = Map(Group(("a",), (A,), ((0, SLOTS - 11),)))
    with pytest.raises(BackplaneUnavailableError, match=r"^10 slots .* belong to no node"):
        await Nowhere(map).primary()


@async_test
async def test_the_probe_stays_in_the_slots_of_its_shard() -> None:
    """Its channel changes when its slot moves away, and only then."""
    map: Any = Map()
    part = part_of(map, Group(("a",), (A,), ((100, 200),)))
    channel = part.probe_channel()
    assert 100 <= slot_of(channel) <= 200
    part.group = Group(("a",), (A,), ((50, 300),))
    assert part.probe_channel() == channel
    part.group = Group(("a",), (A,), ((7000, 7000),))
    assert slot_of(part.probe_channel()) == 7000


@async_test
async def test_the_probe_avoids_a_slot_that_is_on_its_way_elsewhere() -> None:
    """As long as the shard has another one."""
    part = part_of(Map(), Group(("a",), (A,), ((100, 200),)))
    channel = part.probe_channel()
    part.avoid(channel)
    other = part.probe_channel()
    assert slot_of(other) != slot_of(channel)
    part.avoid(channel)
    assert part.probe_channel() == other
    part.group = Group(("a",), (A,), ((7000, 7000),))
    part.avoid(part.probe_channel())
    assert slot_of(part.probe_channel()) == 7000


@async_test
async def test_state_is_lost_with_the_process() -> None:
    """It is not lost with a link; where that cannot be known it counts as lost. Of a server that
    has taken over nothing is known yet."""
    group = Group(("a", "b"), (A, B), ((0, 1),))
    map: Any = Map(group)
    part, first, second = part_of(map, group), Redis(), Redis()
    primary = await part.primary()
    assert (primary.shown, primary.server) == ("redis://10.0.0.1:1", "a")
    commands: Any = first
    assert await part.state_lost(commands) is False
    assert await part.state_lost(commands) is False
    first.known.clear()
    assert await part.state_lost(commands) is True
    part.group = Group(("b", "a"), (B, A), ((0, 1),))
    await part.primary()
    commands = second
    assert await part.state_lost(commands) is False
    assert await part.state_lost(commands) is False
    second.refuses = True
    assert await part.state_lost(commands) is True
    await asyncio.sleep(0)


@async_test
async def test_a_primary_that_lets_nobody_in_is_left_for_its_successor() -> None:
    """The map is read while it is opened; a socket that comes in time is used."""
    where, reads = [A], [0]

    async def read() -> None:
        reads[0] += 1
        where[0] = B

    async def never() -> Any:
        await asyncio.Event().wait()

    async def at_once() -> Any:
        return "socket"

    frozen: Any = SimpleNamespace(shown="", watch=None, login=None, open=never)
    began = asyncio.get_running_loop().time()
    with pytest.raises(BackplaneUnavailableError, match=r"10\.0\.0\.2:2 now"):
        await MappedPrimary(frozen, "a", A, lambda: where[0], read).open()
    assert asyncio.get_running_loop().time() - began < 2 * WHILE_OPENING
    alive: Any = SimpleNamespace(shown="", watch=None, login=None, open=at_once)
    assert await MappedPrimary(alive, "b", B, lambda: where[0], read).open() == "socket"
    assert reads == [1]


@async_test
async def test_state_is_lost_with_a_process_that_begins_again_at_another_address() -> None:
    """As a container does: its name in the cluster stays the same."""
    group = Group(("a",), (A,), ((0, 1),))
    part, redis = part_of(Map(group), group), Redis()
    commands: Any = redis
    await part.primary()
    assert await part.state_lost(commands) is False
    redis.known.clear()
    part.group = Group(("a",), (B,), ((0, 1),))
    await part.primary()
    assert await part.state_lost(commands) is True
    assert await part.state_lost(commands) is False
