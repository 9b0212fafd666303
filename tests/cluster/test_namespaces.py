"""The namespaces of a node: subscribed once for all newcomers, listed, and left together."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from cluster_pool import BackplaneUnavailableError, MembershipLimitError
from cluster_pool.cluster.namespaces import TIDIED, Namespaces
from cluster_pool.core.keys import Keys
from cluster_pool.testing import FAST
from tests.cluster.test_ownership import node_behind
from tests.servers import Cluster, RedisServer
from tests.support import async_test, eventually

FAR = 0.2
"""Seconds by which what goes to Redis, and what comes from it, is late: a subscription and the
look at its counter take four times that."""


def subscribe_calls(server: RedisServer) -> int:
    """How many SUBSCRIBE or SSUBSCRIBE its primaries have been told."""
    statistics = [client.info("commandstats") for client in server.each()]
    names = ("cmdstat_subscribe", "cmdstat_ssubscribe")
    return sum(one[name]["calls"] for one in statistics for name in names if name in one)


@async_test
async def test_a_newcomer_out_of_time_does_not_fail_another(own_server: RedisServer) -> None:
    """The first newcomer of a namespace gives up, or is cancelled: the second one joins."""
    async with node_behind(own_server, "one") as (one, proxy):
        for namespace in ("n", "m"):
            proxy.delay = FAR
            first = asyncio.create_task(one.host(namespace, "first", timeout=FAR))
            second = asyncio.create_task(one.host(namespace, "second", timeout=10))
            if namespace == "m":
                await asyncio.sleep(FAR / 2)
                first.cancel()
            outcomes = await asyncio.gather(first, second, return_exceptions=True)
            expected = BackplaneUnavailableError if namespace == "n" else asyncio.CancelledError
            assert isinstance(outcomes[0], expected)
            assert not isinstance(outcomes[1], BaseException)
            proxy.heal()
            await one.broadcast_message(namespace, "x")
            assert await outcomes[1].wait_sent() == ["x"]


@async_test
async def test_a_subscription_outlives_the_newcomers_that_asked_for_it(
    own_server: RedisServer,
) -> None:
    """The first two expire, but the subscription is made, once, and the third uses it.

    On a cluster it has two channels; each is asked for again, ever more rarely: its slot may move.
    """
    async with node_behind(own_server, "one") as (one, proxy):
        before = subscribe_calls(own_server)
        proxy.delay = FAR
        for number in range(2):
            with pytest.raises(BackplaneUnavailableError):
                await one.host("n", f"{number}", timeout=FAR)
        await eventually(lambda: one._parts.ownership._namespaces._held["n"].confirming.done())
        await one.host("n", "third", timeout=10)
        proxy.heal()
        made = subscribe_calls(own_server) - before
        assert made == 1 or (isinstance(own_server, Cluster) and made <= 8), made
        assert [member.id async for member in one.members("n", timeout=10)] == ["third"]


@async_test
async def test_a_subscription_outlives_the_link_on_which_it_was_requested(
    own_server: RedisServer,
) -> None:
    """Cut between the request and its confirmation: the newcomer waits for the next link."""
    async with node_behind(own_server, "one") as (one, proxy):
        proxy.hold(upwards=False)
        joining = asyncio.create_task(one.host("n", "alice", timeout=20))
        await eventually(
            lambda: "{n}" in own_server.command("PUBSUB", "CHANNELS", "cluster_pool:{n}")
        )
        await proxy.cut()
        proxy.heal()
        alice = await joining
        await one.broadcast_message("n", "x")
        assert await alice.wait_sent() == ["x"]


@async_test
async def test_a_namespace_that_no_member_could_join_is_forgotten(own_server: RedisServer) -> None:
    """Redis is away: newcomers fail in time, and nothing is kept of the namespace."""
    async with node_behind(own_server, "one") as (one, proxy):
        proxy.hold()
        with pytest.raises(BackplaneUnavailableError, match="Redis at"):
            await one.host("n", "alice", timeout=0.2)
        shard = one._parts.backplane.topology.of("n")
        assert shard.listens("cluster_pool:{n}")
        await proxy.refuse()
        await eventually(lambda: not shard.up)
        await eventually(lambda: not one._parts.ownership._namespaces._held)
        assert not shard.listens("cluster_pool:{n}")
        await eventually(lambda: not one._parts.ownership._namespaces._subscriptions)
        await proxy.accept()


class Registry:
    """Claims and topology of a node without Redis: notes what is listed, and what is taken out."""

    current = "links"

    def __init__(self) -> None:
        self.listed: list[list[str]] = []
        self.removed: list[list[str]] = []

    async def add_namespaces(self, links: Any, name: str, names: list[str], until: float) -> bool:
        self.listed.append(names)
        return True

    def remove_namespaces(self, links: Any, name: str, names: list[str]) -> None:
        self.removed.append(names)


@async_test
async def test_a_newcomer_waits_for_the_listing_of_its_own_namespace_alone() -> None:
    """After a rejoin there may be 100,000 others that are not listed yet."""
    registry: Any = Registry()
    namespaces = Namespaces(registry, registry, Keys(), FAST, 100)
    for name in ("one", "two", "three"):
        namespaces.enter(name)
    assert await namespaces.add_new(registry, "start.0", ["two", "two", "left"], 0)
    assert registry.listed == [["two"]]
    assert await namespaces.listed(["one", "two", "three"]) == {"two"}
    await namespaces.add_before_claims(registry, "start.0", ["one", "two"], 0)
    assert registry.listed[1:] == [["one"]]


@async_test
async def test_namespaces_of_the_library_count_in_no_limit() -> None:
    """There are no more of them than connections, in whichever order they come and go."""
    registry: Any = Registry()
    namespaces = Namespaces(registry, registry, Keys(), replace(FAST, linger=0.01), 1)
    for name in ("~user:1", "room", "~user:2"):
        namespaces.check_room(name)
        namespaces.enter(name)
    namespaces.check_room("room")
    with pytest.raises(MembershipLimitError):
        namespaces.check_room("hall")
    await namespaces.add_new(registry, "start.0", [], 0)
    for name in ("~user:1", "room"):
        namespaces.leave(name)
    await eventually(lambda: not namespaces.holds("room") and len(namespaces._held) == 1)
    namespaces.check_room("hall")
    await namespaces.stop()


@async_test
async def test_namespaces_that_become_empty_together_are_left_in_several_turns() -> None:
    """As when a node drains: each turn of the loop unsubscribes a part of them."""
    registry: Any = Registry()
    timing = replace(FAST, linger=0.01)
    namespaces = Namespaces(registry, registry, Keys(), timing, 10 * TIDIED)
    names = [f"room-{at}" for at in range(2 * TIDIED + 1)]
    for name in names:
        namespaces.enter(name)
    await namespaces.add_new(registry, "start.0", names, 0)
    for name in names:
        namespaces.leave(name)
    await eventually(lambda: sum(map(len, registry.removed)) == len(names))
    assert max(map(len, registry.removed)) == TIDIED
    assert not namespaces._held
    await namespaces.stop()
