"""Reads of the whole cluster stay right while nodes rejoin."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest

from cluster_pool import BackplaneUnavailableError, Member, Publisher
from cluster_pool.cluster.lease_keeper import Keep
from tests.clusters import Backend, Pool
from tests.servers import RedisServer
from tests.support import async_test, eventually

MEMBERS = 1200


async def rejoin(pool: Pool) -> None:
    """Cut the node's link, and wait until its old incarnation is buried."""
    former = pool.statistics()["incarnation"]
    writer = pool._parts.backplane.shard.commands.connection._writer  # type: ignore[union-attr]
    assert writer is not None
    writer.transport.abort()
    await eventually(lambda: pool.statistics()["incarnation"] != former and pool.ready, 30)

    async def buried() -> bool:
        deadline = asyncio.get_running_loop().time() + 20
        return former not in await pool._parts.backplane.leases.living(deadline)

    await eventually(buried)


def after(registry: Any, name: str, act: Callable[[], Awaitable[None]], times: int) -> None:
    """Run something after the next readings of one kind."""
    read = getattr(registry, name)
    left = times

    async def reading(*arguments: Any) -> Any:
        nonlocal left
        reply = await read(*arguments)
        if left:
            left -= 1
            await act()
        return reply

    setattr(registry, name, reading)


@async_test
async def test_every_member_that_stays_is_seen_although_its_node_rejoins(
    own_server: RedisServer,
) -> None:
    """Later pages show another incarnation than earlier ones."""
    backend = Backend(own_server)
    async with backend.pools(1) as (one,), backend.publisher() as publisher:
        await asyncio.gather(*[one.host("n", f"a{at}", timeout=20) for at in range(MEMBERS)])
        seen = set()
        async for member in publisher.members("n", timeout=20):
            seen.add(member)
            if len(seen) in (1, 600):
                await rejoin(one)
        assert seen == {Member(f"a{at}", "node-1") for at in range(MEMBERS)}


@async_test
async def test_a_member_whose_owner_changed_after_reading_is_read_again(
    own_server: RedisServer,
) -> None:
    """Its owner has died since, but it is not taken for a ghost; real ghosts are left out."""
    backend = Backend(own_server)
    async with backend.pools(1) as (one,), backend.publisher() as publisher:
        await asyncio.gather(*[one.host("n", f"a{at}", timeout=20) for at in range(20)])
        own_server.command("HSET", f"{backend.prefix}:{{n}}:members", "ghost", "gone.0:1:1")
        registry: Any = publisher._parts.backplane.directory
        pages = registry.claim_pages

        async def claim_pages(*arguments: Any) -> Any:
            async for page in pages(*arguments):
                await rejoin(one)
                yield page

        registry.claim_pages = claim_pages
        seen = {member.id async for member in publisher.members("n", timeout=20)}
        assert seen == {f"a{at}" for at in range(20)}
        own_server.command("HDEL", f"{backend.prefix}:{{n}}:members", "ghost")


@async_test
async def test_a_page_and_the_leases_behind_it_have_one_timeout(own_server: RedisServer) -> None:
    """A page that comes late leaves the rest of the time to what is read after it."""
    backend = Backend(own_server)
    now = asyncio.get_running_loop().time
    async with backend.pools(1) as (one,), backend.publisher() as publisher:
        await one.host("n", "alice")
        registry: Any = publisher._parts.backplane.directory
        pages = registry.claim_pages

        async def claim_pages(*arguments: Any) -> Any:
            async for page in pages(*arguments):
                own_server.freeze()
                await asyncio.sleep(0.9)
                yield page

        registry.claim_pages = claim_pages
        began = now()
        with pytest.raises(BackplaneUnavailableError):
            await anext(publisher.members("n", timeout=1))
        took = now() - began
        own_server.thaw()
        assert took < 1.7


@pytest.mark.parametrize("times", [1, 2])
@async_test
async def test_counts_and_locations_do_not_flicker(own_server: RedisServer, times: int) -> None:
    """A rejoin falls between reading the owners and reading the leases."""
    backend = Backend(own_server)
    async with backend.pools(1) as (one,), backend.publisher() as publisher:
        await asyncio.gather(*[one.host("n", f"a{at}", timeout=20) for at in range(20)])
        after(publisher._parts.backplane.directory, "counts", lambda: rejoin(one), times)
        assert await publisher.count("n", timeout=20) == 20
        deadline = asyncio.get_running_loop().time() + 20
        counts = await publisher._parts.backplane.directory.counts_of(["m", "n"], deadline)
        assert counts == {"m": 0, "n": 20}
        after(publisher._parts.backplane.directory, "claim_of", lambda: rejoin(one), times)
        assert await publisher.locate("n", "a7", timeout=20) == Member("a7", "node-1")
        after(publisher._parts.backplane.claims, "namespaces_of", lambda: rejoin(one), times)
        assert await publisher.namespaces(timeout=20) == ["n"]
        assert await publisher.count("nobody") == 0
        assert await publisher.locate("n", "nobody") is None


@async_test
async def test_a_node_that_rejoins_is_one_node(backend: Backend) -> None:
    """While it registers its members under the next incarnation, both incarnations live."""
    async with backend.pools() as (one, two):
        await two.host("n", "bob")
        registering, go_on = asyncio.Event(), asyncio.Event()
        register = two._parts.lease_keeper._observer.register_all

        async def slowly(incarnation: str, keep: Keep) -> None:
            registering.set()
            await go_on.wait()
            await register(incarnation, keep)

        two._parts.lease_keeper._observer.register_all = slowly  # type: ignore[method-assign]
        two._parts.lease.unsettle()
        two._parts.lease_keeper.wake()
        await registering.wait()
        assert (
            len(await one._parts.backplane.leases.living(asyncio.get_running_loop().time() + 2))
            == 3
        )
        deadline = asyncio.get_running_loop().time() + 2
        assert len(await one._parts.backplane.leases.held(deadline)) == 3
        nodes = await one.nodes()
        assert [node.id for node in nodes] == ["node-1", "node-2"]
        assert nodes[1].incarnation == two.statistics()["incarnation"]
        assert nodes[1].connections == 1
        assert await one.count("n") == 1
        assert not await one.alone()
        go_on.set()
        await eventually(lambda: two.ready)


@async_test
async def test_a_member_is_not_called_absent_while_it_may_be_registered_again() -> None:
    """A reading waits for that at first, and then says that nothing is known."""
    async with Backend(None).pools() as (one, two):
        loop = asyncio.get_running_loop()
        servers = one._parts.backplane.shard.succession
        servers.patient_until = servers.unsure_until = loop.time() + 60
        locating = asyncio.create_task(one.locate("n", "alice", timeout=10))
        await asyncio.sleep(0.05)
        assert not locating.done()
        await two.host("n", "alice")
        assert await locating == Member("alice", "node-2")
        with pytest.raises(BackplaneUnavailableError, match="no member is registered"):
            await one.locate("n", "nobody", timeout=0.3)
        servers.patient_until = 0.0
        with pytest.raises(BackplaneUnavailableError, match="no member is registered"):
            await one.locate("n", "nobody")
        servers.unsure_until = 0.0
        assert await one.locate("n", "nobody") is None


@async_test
async def test_members_are_counted_and_listed_when_they_are_registered_again() -> None:
    """After a takeover a reading waits for that, and never beyond its deadline."""
    async with Backend(None).pools() as (one, two):
        loop = asyncio.get_running_loop()
        servers = one._parts.backplane.shard.succession
        servers.patient_until = loop.time() + 0.5
        counting = asyncio.create_task(one.count("n", timeout=10))

        async def listed() -> list[Member]:
            return [member async for member in one.members("n", timeout=10)]

        listing = asyncio.create_task(listed())
        await asyncio.sleep(0.05)
        await two.host("n", "alice")
        assert await counting == 1
        assert await listing == [Member("alice", "node-2")]
        servers.patient_until = loop.time() + 60
        assert await one.count("n", timeout=0.3) == 1


def before_profiles(registry: Any, act: Callable[[], Awaitable[object]]) -> None:
    """Do something once, when the claims were read and their profiles were not."""
    read = registry._profiles
    done = False

    async def reading(*arguments: Any) -> Any:
        nonlocal done
        if not done:
            done = True
            await act()
        return await read(*arguments)

    registry._profiles = reading


@async_test
async def test_node_and_user_of_a_member_are_those_of_one_claim(backend: Backend) -> None:
    """Also when another node takes it over, or it leaves, between claim and profile."""
    for listed in (False, True):
        async with backend.pools() as (one, two), backend.publisher() as publisher:
            registry: Any = publisher._parts.backplane.directory

            async def read(listed: bool = listed, publisher: Publisher = publisher) -> list[Member]:
                if listed:
                    return [member async for member in publisher.members("n")]
                found = await publisher.locate("n", "a")
                return [] if found is None else [found]

            await one.host("n", "a", user="alice")
            before_profiles(registry, partial(two.host, "n", "a", user="bob"))
            assert await read() == [Member("a", "node-2", "bob")]
            bob = two.get_connection("n", "a")
            assert bob is not None
            before_profiles(registry, partial(two.remove_connection, bob))
            assert await read() == []
