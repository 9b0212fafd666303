"""Comparing the registry with a node's members, and repairing it, on each kind of server."""

import asyncio

import pytest

from cluster_pool import BackplaneUnavailableError
from cluster_pool.backplane.calls import deadline_in
from cluster_pool.backplane.topology import Links
from cluster_pool.backplane.upkeep import Holding, Upkeep
from cluster_pool.core.claims import CHECKSUM_MODULUS
from tests.clusters import Backend, Pool
from tests.servers import RedisServer
from tests.support import async_test


def parts_of(pool: Pool) -> tuple[Upkeep, Links, float]:
    """The upkeep as this node has it, the links that are up, and a deadline."""
    backplane, setup = pool._parts.backplane, pool._parts.setup
    upkeep = Upkeep(backplane.topology, setup.keys, backplane.identity, setup.histories)
    links = backplane.topology.current
    assert links is not None
    return upkeep, links, asyncio.get_running_loop().time() + 5


def holding_of(pool: Pool, namespace: str) -> Holding:
    """The node's claims in a namespace, all of them in the sample."""
    held = pool._parts.ownership.owned(namespace)
    checksum = sum(one.claimed_at % CHECKSUM_MODULUS for one in held)
    sample = [(one.id, one.claim) for one in held if one.claim]
    return Holding(namespace, len(held), checksum, sample)


@async_test
async def test_a_namespace_that_lost_a_claim_is_named(backend: Backend) -> None:
    """Count and checksum are unchanged: the sample finds it. The other namespace is right."""
    async with backend.pools(1) as (one,), backend.client() as client:
        for namespace in ("whole", "hurt"):
            await one.host(namespace, "alice")
        upkeep, links, deadline = parts_of(one)
        held = [holding_of(one, name) for name in ("whole", "hurt")]
        incarnation = one._parts.lease.incarnation
        assert await upkeep.compare(links, incarnation, held, deadline) == ([], [incarnation])
        await client.hdel(f"{backend.prefix}:{{hurt}}:members", "alice")
        different, _ = await upkeep.compare(links, incarnation, held, deadline)
        assert different == ["hurt"]
        found = await upkeep.look(links, incarnation, held[1], deadline)
        assert (found.size, found.unaccounted, found.absent) == (1, -1, True)


@async_test
async def test_only_incarnations_without_any_trace_are_unknown(backend: Backend) -> None:
    """A living one is known, and so is one that waits to be reaped, which is said."""
    async with backend.pools(1) as (one,), backend.client() as client:
        upkeep, links, deadline = parts_of(one)
        await client.hset(f"{backend.prefix}:{{~}}:dead", "dying.0", "node-9")
        asked = [one._parts.lease.incarnation, "dying.0", "never.0"]
        assert await upkeep.unknown(links, asked, deadline) == ({"never.0"}, True)
        del asked[1]
        assert await upkeep.unknown(links, asked, deadline) == ({"never.0"}, False)
        assert await upkeep.unknown(links, [], deadline) == (set(), False)
        await client.delete(f"{backend.prefix}:{{~}}:dead")


@async_test
async def test_garbage_is_removed_unless_it_has_changed_since(backend: Backend) -> None:
    """The listed entry is compared with the current one: a claim that came meanwhile stays."""
    async with backend.pools(1) as (one,), backend.client() as client:
        await one.host("n", "alice")
        upkeep, links, deadline = parts_of(one)
        key = f"{backend.prefix}:{{n}}:members"
        await client.hset(key, mapping={"junk": "oops", "changed": "oops"})
        listed = [entry async for entry in upkeep.entries_of("n", 5)]
        assert {id for id, _ in listed} == {b"alice", b"junk", b"changed"}
        garbage = [entry for entry in listed if entry[1] == b"oops"]
        await client.hset(key, "changed", "another")
        await upkeep.discard(links, "n", garbage, deadline)
        left = {id for id, _ in [entry async for entry in upkeep.entries_of("n", 5)]}
        assert left == {b"alice", b"changed"}
        await client.hdel(key, "changed")


@async_test
async def test_a_wrong_count_is_right_after_the_difference_is_added(backend: Backend) -> None:
    """Count and checksum are corrected together; fields that are no counts are removed."""
    async with backend.pools(1) as (one,), backend.client() as client:
        await one.host("n", "alice")
        upkeep, links, deadline = parts_of(one)
        incarnation, key = one._parts.lease.incarnation, f"{backend.prefix}:{{n}}:owners"
        before = await client.hgetall(key)
        await client.hset(key, "x y", "z")
        until = one._parts.backplane.topology.of("n").clock.at(deadline)
        await upkeep.correct(links, "n", incarnation, 2, 5, until, deadline)
        assert await one.count("n") == 3
        await upkeep.correct(links, "n", incarnation, -2, -5, until, deadline)
        await upkeep.forget_counts(links, "n", [b"x y"], deadline)
        assert await client.hgetall(key) == before


@async_test
async def test_a_correction_is_made_in_time_or_not_at_all(own_server: RedisServer) -> None:
    """Redis stands still: the difference will be found again, and must not be added twice."""
    backend = Backend(own_server)
    async with backend.pools(1) as (one,):
        await one.host("n", "alice")
        upkeep, links, _ = parts_of(one)
        incarnation, key = one._parts.lease.incarnation, f"{backend.prefix}:{{n}}:owners"
        clock = one._parts.backplane.topology.of("n").clock

        async def count_after(seconds: float, *difference: int) -> None:
            deadline = deadline_in(seconds)
            try:
                await upkeep.correct(
                    links, "n", incarnation, *difference, clock.at(deadline), deadline
                )
            finally:
                own_server.thaw()
                found = links.commands(key).call("HGET", key, incarnation)  # behind the correction
                counts.append(await found)

        counts: list[bytes] = []
        own_server.freeze()
        with pytest.raises(BackplaneUnavailableError):
            await count_after(0.3, 2, 5)
        await count_after(20, 2, 5)
        await count_after(20, -2, -5)
        assert counts == [b"1", b"3", b"1"]
