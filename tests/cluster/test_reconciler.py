"""How soon a comparison finds a wrong entry of the registry, and what counts as drift."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from cluster_pool import Timing
from cluster_pool.backplane.topology import Links
from cluster_pool.cluster import reconciler
from tests.clusters import Backend
from tests.servers import RedisServer
from tests.support import async_test, eventually

SHORT = Timing(timeout=9.0, lease=4.0, heartbeat=0.3, probe=0.3, linger=0.1, close=1.0)


def now() -> float:
    """The time of the loop."""
    return asyncio.get_running_loop().time()


@pytest.mark.parametrize("key", ["members", "owners"])
@async_test
async def test_a_lost_hash_is_found_within_ten_heartbeats(
    backend: Backend, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many namespaces a node has: it compares a tenth of them, or some, at each."""
    monkeypatch.setattr(reconciler, "AT_LEAST", 3)
    monkeypatch.setattr(reconciler, "CALL", 5)
    async with backend.pools(1, timing=SHORT) as (one,), backend.client() as client:
        names = [f"n{at}" for at in range(60)]
        await asyncio.gather(*[one.host(name, "x") for name in names])
        parts: list[int] = []
        next_part = one._parts.reconciler._next_part

        async def counted() -> list[str]:
            part = await next_part()
            parts.append(len(part))
            return part

        monkeypatch.setattr(one._parts.reconciler, "_next_part", counted)
        await eventually(lambda: parts)
        parts.clear()
        await client.delete(f"{backend.prefix}:{{n7}}:{key}")
        await eventually(lambda: one.statistics()["repaired"] == 1, 3 * 12 * SHORT.heartbeat)
        assert len(parts) <= reconciler.HEARTBEATS + 1
        assert max(parts) <= 60 / reconciler.HEARTBEATS
        await eventually(lambda: one.ready)
        assert await client.hlen(f"{backend.prefix}:{{n7}}:members") == 1
        assert await one.count("n7") == 1


@async_test
async def test_a_node_is_not_ready_while_it_knows_of_a_difference(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the second look at it until it is repaired."""
    async with backend.pools(1, timing=SHORT) as (one,), backend.client() as client:
        await one.host("n", "x")
        repair, going = one._parts.reconciler._repair, asyncio.Event()

        async def held_up(*arguments: Any) -> None:
            await going.wait()
            await repair(*arguments)

        monkeypatch.setattr(one._parts.reconciler, "_repair", held_up)
        await client.delete(f"{backend.prefix}:{{n}}:members", f"{backend.prefix}:{{n}}:owners")
        await eventually(lambda: not one.ready)
        going.set()
        await one.wait_ready()
        assert await one.count("n") == 1


@async_test
async def test_claims_on_their_way_are_no_drift(backend: Backend) -> None:
    """A namespace into which and out of which members go all the time is left alone."""
    async with backend.pools(timing=SHORT) as pools:
        end = asyncio.get_running_loop().time() + 4 * SHORT.heartbeat

        async def come_and_go(number: int) -> None:
            while asyncio.get_running_loop().time() < end:
                socket = await pools[number % 2].host("n", f"x{number}")
                await asyncio.sleep(0.01)
                await pools[number % 2].remove_connection(socket.connection)  # type: ignore[attr-defined]

        await asyncio.gather(*[come_and_go(number) for number in range(20)])
        assert [pool.statistics()["repaired"] for pool in pools] == [0, 0]


@async_test
async def test_a_release_that_redis_has_not_answered_is_no_difference(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis is ahead of the table by that release."""
    async with backend.pools(1, timing=SHORT) as (one,):
        sockets = await asyncio.gather(*[one.host("n", f"x{at}") for at in range(5)])
        generation = await one._parts.backplane.topology.connected(now() + 5)
        written = asyncio.Event()
        script = generation.script

        def sent(*arguments: Any) -> Any:
            written.set()
            return script(*arguments)

        monkeypatch.setattr(type(generation), "script", lambda _, *arguments: sent(*arguments))
        leaving = one.remove_connection(sockets[0].connection)  # type: ignore[attr-defined]
        task = asyncio.create_task(leaving)
        await written.wait()
        assert len(one._parts.ownership.owned("n")) == 5
        assert await one._parts.reconciler._difference(generation, "n") is None
        await task


@async_test
async def test_counts_are_not_corrected_for_changes_under_way(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A namespace is repaired while members come and go: its count was right, and stays so."""
    async with backend.pools(1, timing=SHORT) as (one,):
        generation = await one._parts.backplane.topology.connected(now() + 5)
        reconciler = one._parts.reconciler
        corrected: list[tuple[Any, ...]] = []

        async def correct(*arguments: Any) -> None:
            corrected.append(arguments)

        monkeypatch.setattr(reconciler._upkeep, "correct", correct)
        over = asyncio.Event()

        async def come_and_go(number: int) -> None:
            while not over.is_set():
                socket = await one.host("n", f"x{number}")
                await asyncio.sleep(0.002)
                await one.remove_connection(socket.connection)  # type: ignore[attr-defined]

        crowd = [asyncio.create_task(come_and_go(number)) for number in range(50)]
        await one.host("n", "stays")
        for _ in range(20):
            await reconciler._repair(generation, "n")
        over.set()
        await asyncio.gather(*crowd)
        assert corrected == []
        assert await one.count("n") == 1


@async_test
async def test_namespaces_that_were_left_are_not_noted_again(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A round takes several heartbeats: a namespace it is to visit may have been left meanwhile."""
    monkeypatch.setattr(reconciler, "AT_LEAST", 2)
    async with backend.pools(1, timing=SHORT) as (one,), backend.client() as client:
        stays = await one.host("stays", "x")
        names = [f"n{at}" for at in range(30)]
        sockets = await asyncio.gather(*[one.host(name, "x") for name in names])
        await eventually(lambda: len(one._parts.reconciler._to_visit) > 10)
        leaving = [one.remove_connection(each.connection) for each in sockets]  # type: ignore[attr-defined]
        await asyncio.gather(*leaving)
        await eventually(lambda: not one._parts.reconciler._to_visit)
        noted = f"{backend.prefix}:{{~}}:namespaces:{one.statistics()['incarnation']}"

        async def struck() -> bool:
            return await client.smembers(noted) == {b"stays"}

        await eventually(struck)
        assert stays.closed is None


@async_test
async def test_a_member_that_leaves_while_its_claim_is_lost_is_not_counted(
    backend: Backend,
) -> None:
    """Its node has no member there any more, and other nodes see that node as a living one."""
    async with backend.pools(timing=SHORT) as (one, two), backend.client() as client:
        await one.host("n", "x")
        gone = await two.host("n", "y")
        await client.delete(f"{backend.prefix}:{{n}}:members")
        await one.host("n", "z")
        await two.remove_connection(gone.connection)  # type: ignore[attr-defined]

        async def right() -> bool:
            owners = await client.hgetall(f"{backend.prefix}:{{n}}:owners")
            theirs = f"{two.statistics()['incarnation']}".encode()
            members = {member.id async for member in one.members("n")}
            counted = await one.count("n") == 2 and not {theirs, theirs + b"#"} & owners.keys()
            return counted and members == {"x", "z"}

        await eventually(right, 3 * 4 * SHORT.heartbeat)
        await eventually(lambda: one.ready and two.ready)


@async_test
async def test_a_correction_that_redis_makes_too_late_is_not_made_twice(
    own_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis freezes when the first one is sent; the next comparison makes it once more, once."""
    backend = Backend(own_server)
    brief = replace(SHORT, timeout=0.5)
    async with backend.pools(1, timing=brief) as (one,), backend.client() as client:
        await one.host("n", "x")
        upkeep = one._parts.reconciler._upkeep
        correct, key = upkeep.correct, f"{backend.prefix}:{{n}}:owners"
        incarnation = one._parts.lease.incarnation
        counts: list[list[int]] = []

        async def frozen(links: Links, *arguments: Any) -> None:
            before = int(await client.hget(key, incarnation))
            if not counts:
                own_server.freeze()
            try:
                await correct(links, *arguments)
            finally:
                own_server.thaw()
                after = int(await links.commands(key).call("HGET", key, incarnation))
                counts.append([before, after])

        monkeypatch.setattr(upkeep, "correct", frozen)
        await client.hincrby(key, incarnation, 3)
        await eventually(lambda: len(counts) == 2, 30)
        assert counts == [[4, 4], [4, 1]]
        await eventually(lambda: one.ready, 30)
        assert await one.count("n") == 1
