"""Data of vanished nodes are removed, by any node and once."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from functools import partial
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest

from cluster_pool import BackplaneUnavailableError, SendResult, Timing
from cluster_pool.cluster.reaper import Reaper
from cluster_pool.core.statistics import Counters
from cluster_pool.testing import FAST
from tests.clusters import Backend, Pool, abandon, vanish
from tests.servers import RedisServer
from tests.support import async_test, eventually

BRIEF = Timing(timeout=2.0, lease=0.4, heartbeat=0.1, probe=0.1)


class Registry:
    """Stands for Redis before a reaper: its answers, and a record of the reaper's calls.

    Attributes:
        ended: incarnations whose lease has ended; ``orphans`` have none.
        members: of dead incarnations by namespace; one without any says that Redis is away.
    """

    def __init__(self) -> None:
        self.ended: list[str] = []
        self.orphans: list[str] = []
        self.members: dict[str, dict[str, int]] = {}
        self.buried: list[tuple[str, str]] = []
        self.forgotten: list[str] = []
        self.looked_at: list[str] = []
        self.sweeps = 0
        self.alive: list[str] = []
        self.living_on: list[bool] = []
        self.away: set[str] = set()
        """Namespaces whose shard is down."""
        self.registered = True

    def is_registered(self) -> bool:
        return self.registered

    def releases_in(self, namespace: str) -> bool:
        return namespace == "n"

    async def expired(self, deadline: float) -> list[str]:
        return self.ended

    async def bury(self, incarnation: str, deadline: float, why: str) -> bool:
        self.buried.append((incarnation, why))
        self.orphans = [one for one in self.orphans if one != incarnation]
        return True

    async def next_end(self, deadline: float) -> int:
        return 0

    async def sweep(self, ttl: float, cursors: Any, deadline: float) -> tuple[Any, list[str]]:
        self.sweeps += 1
        return cursors, self.orphans

    async def dead(self, deadline: float) -> dict[str, str]:
        return {name: "node" for name in self.members if name not in self.forgotten}

    async def namespaces_of(self, incarnation: str, deadline: Callable[[], float]) -> list[str]:
        if not self.members[incarnation]:
            raise BackplaneUnavailableError("away")
        return list(self.members[incarnation])

    async def reachable(self, namespaces: list[str]) -> list[str]:
        return [name for name in namespaces if name not in self.away]

    async def left_by(self, incarnation: str, page: list[str], deadline: float) -> list[str]:
        return [name for name in page if self.members[incarnation][name]]

    async def living(self, deadline: float) -> dict[str, str]:
        return dict.fromkeys(self.alive, "node")

    async def clear(
        self,
        namespace: str,
        incarnation: str,
        node_id: str,
        timeout: float,
        *,
        counted: bool,
        lives_on: bool,
    ) -> tuple[int, bool]:
        self.living_on.append(lives_on)
        gone, self.members[incarnation][namespace] = self.members[incarnation][namespace], 0
        return gone, True

    async def forget(self, incarnation: str, deadline: float) -> None:
        self.forgotten.append(incarnation)


@contextlib.asynccontextmanager
async def reaper_of(
    registry: Any, *, judges: bool = True, on_empty: Callable[[str], None] = len
) -> AsyncIterator[tuple[Reaper, Counters]]:
    """The running reaper of a node ``two``, which may judge other nodes or not."""
    lease: Any = SimpleNamespace(may_judge=lambda: judges, incarnation="two.1")
    counters = Counters()
    reaper = Reaper(
        *(lease, registry, registry, registry, BRIEF, counters, on_empty),
        *(registry.is_registered, registry.releases_in, registry.looked_at.append),
    )
    reaper.start()
    try:
        yield reaper, counters
    finally:
        await reaper.stop()


@async_test
async def test_a_node_with_a_young_lease_reaps_only_incarnations_buried_by_others() -> None:
    """Redis may have lost all leases: a node that has just joined cannot tell."""
    registry = Registry()
    registry.ended, registry.members = ["late.0"], {"dead.0": {"n": 3, "m": 0}}
    emptied: list[str] = []
    async with reaper_of(registry, judges=False, on_empty=emptied.append) as (reaper, counters):
        reaper.wake()
        await eventually(lambda: registry.forgotten == ["dead.0"])
    assert (registry.buried, registry.sweeps) == ([], 0)
    assert (counters.reaped, emptied) == (3, ["n"])
    assert sorted(registry.looked_at) == ["m", "n"]


@async_test
async def test_members_of_a_node_that_goes_on_under_another_lease_are_removed_by_itself() -> None:
    """Once it has registered again what it owns; its release of one may come later."""
    registry = Registry()
    registry.members = {"one.0": {"n": 1}, "two.0": {"n": 1, "m": 1}, "three.0": {"n": 1}}
    registry.alive, registry.registered = ["two.1", "three.1"], False
    registry.ended = ["one.0", "two.0", "three.0"]
    async with reaper_of(registry) as (reaper, _):
        reaper.wake()
        await eventually(lambda: registry.forgotten == ["one.0"])
        assert registry.buried == [("one.0", "expired")]
        registry.registered = True
        reaper.wake()
        await eventually(lambda: registry.forgotten == ["one.0", "two.0"])
        registry.alive.remove("three.1")
        reaper.wake()
        await eventually(lambda: registry.forgotten == ["one.0", "two.0", "three.0"])
    assert sorted(registry.living_on[1:3]) == [False, True]
    assert (registry.living_on[0], registry.living_on[3:]) == (False, [False])


@async_test
async def test_a_release_that_comes_after_the_reaper_knows_that_it_was_the_last_one(
    backend: Backend,
) -> None:
    """A node that was cut off takes a new lease, and another node may remove what the old one had
    before the release of a connection, which waited for Redis, has come there."""
    async with backend.pools() as (one, two):
        alice, bob = await one.host("n", "alice"), await one.host("n", "bob")
        batcher = one._parts.ownership._claim_batcher
        kept: list[Any] = []
        emptied: list[str] = []
        with patch.object(batcher, "release", kept.append):
            for name, member in (("alice", alice), ("bob", bob)):
                with pytest.raises(BackplaneUnavailableError):
                    await one.remove_connection(
                        member.connection, partial(emptied.append, name), timeout=0.1
                    )
        incarnation = str(one.statistics()["incarnation"])
        removed = await two._parts.reaper._reaping.clear(
            "n", incarnation, "one", 5.0, counted=True, lives_on=True
        )
        assert removed == (2, True)
        for membership in kept:
            batcher.release(membership)
        await eventually(lambda: one.get_connection("n", "alice") is None and emptied)
        await eventually(lambda: not one._parts.table.namespaces())
        assert len(emptied) == 1


@async_test
async def test_an_incarnation_without_a_lease_is_buried_after_a_while() -> None:
    """At first it may be one that is joining; one whose lease has ended is buried at once."""
    registry = Registry()
    registry.ended, registry.orphans = ["late.0"], ["lost.0"]
    async with reaper_of(registry) as (reaper, _):
        reaper.wake()
        await eventually(lambda: registry.sweeps == 1)
        assert registry.buried == [("late.0", "expired")]
        registry.ended = []

        def buried() -> bool:
            reaper.wake()
            return len(registry.buried) > 1

        await eventually(buried)
    assert registry.buried == [("late.0", "expired"), ("lost.0", "orphan")]
    assert registry.sweeps > 2


@async_test
async def test_an_incarnation_that_cannot_be_reaped_does_not_delay_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It waits for the next look, and the log says so."""
    registry = Registry()
    registry.members = {"away.0": {}, "dead.0": {"n": 2}}
    async with reaper_of(registry) as (reaper, _):
        reaper.wake()
        await eventually(lambda: registry.forgotten == ["dead.0"])
        assert "'away.0' is not reaped yet: away" in caplog.text
        registry.members["away.0"] = {"n": 1}
        reaper.wake()
        await eventually(lambda: registry.forgotten == ["dead.0", "away.0"])


@async_test
async def test_members_at_a_shard_that_is_down_are_reaped_when_it_is_up() -> None:
    """Those at other shards are reaped at once; the incarnation is not forgotten before."""
    registry = Registry()
    registry.members, registry.away = {"dead.0": {"n": 2, "m": 3}}, {"m"}
    async with reaper_of(registry) as (reaper, counters):
        reaper.wake()
        await eventually(lambda: counters.reaped == 2)
        assert registry.members["dead.0"]["m"] == 3
        registry.away.clear()
        reaper.wake()
        await eventually(lambda: registry.forgotten == ["dead.0"])
        assert counters.reaped == 5


@async_test
async def test_a_reaper_wakes_at_the_end_of_a_lease_that_comes_before_a_heartbeat() -> None:
    """A later end is found at the next heartbeat: no timer is kept for it."""
    registry = Registry()
    async with reaper_of(registry) as (reaper, _):
        reaper.wake_in(BRIEF.heartbeat)
        await eventually(lambda: registry.sweeps == 1)
        reaper.wake_in(BRIEF.heartbeat)
        reaper.wake_in(BRIEF.heartbeat + 60)
        await asyncio.sleep(3 * BRIEF.heartbeat)
        assert registry.sweeps == 1


@async_test
async def test_a_namespace_emptied_by_a_reaper_fires_its_hook_and_no_callback(
    own_server: RedisServer,
) -> None:
    """The release never arrived, so only the ``empty`` hook of the reaping node fires."""
    backend = Backend(own_server)
    async with backend.pools(1) as (one,), own_server.network() as proxy:
        url = proxy.url
        async with Pool(url, node_id="far", timing=FAST) as far:
            empty: list[str] = []
            fired: list[str] = []
            one.on("empty", empty.append)
            alice = await far.host("hall", "alice")
            (membership,) = alice.connection._memberships
            proxy.hold()
            with contextlib.suppress(BackplaneUnavailableError):
                await far.remove_connection(
                    alice.connection, lambda: fired.append("alice"), timeout=0.2
                )
            await eventually(lambda: empty, 30)
            await proxy.cut()
            proxy.heal()
            await eventually(lambda: far.ready, 30)
            await eventually(lambda: membership.departure.over.done())
            assert (fired, empty) == ([], ["hall"])


@pytest.mark.parametrize("others", [0, 1])
@async_test
async def test_a_reaper_whose_answer_is_lost_asks_again(
    own_server: RedisServer, others: int
) -> None:
    """Another node may have finished meanwhile; the hook fires once, on one node only."""
    backend = Backend(own_server)
    async with backend.pools(others) as rest, own_server.network() as proxy:
        url = proxy.url
        async with Pool(url, node_id="far", timing=FAST) as far:
            told: list[str] = []
            for pool in (far, *rest):
                pool.on("empty", told.append)
            for pool in rest:
                await pool._parts.reaper.stop()
            gone = Pool(own_server.url, node_id="gone", timing=FAST)
            await gone.start()
            await gone.host("hall", "bob")
            step = far._parts.reconciler._reaping._reap

            async def unheard(*arguments: Any) -> Any:
                far._parts.reconciler._reaping._reap = step  # type: ignore[method-assign]
                proxy.hold(upwards=False, downwards=True)
                return await step(*arguments)

            far._parts.reconciler._reaping._reap = unheard  # type: ignore[method-assign]
            await vanish(gone)
            members = "cluster_pool:{hall}:members"
            await eventually(lambda: own_server.command("EXISTS", members) == ":0\r\n", 30)
            for pool in rest:
                pool._parts.reaper.start()
                pool._parts.reaper.wake()
                await eventually(lambda: not backend.keys_of("dead"), 30)
            await proxy.cut()
            proxy.heal()
            await eventually(lambda: told, 30)
            await eventually(lambda: not backend.keys_of("emptied"))
            assert told == ["hall"]
            gone._parts.life.state = None  # type: ignore[assignment]  # it is gone: nothing to stop
            await abandon(gone)


@pytest.mark.slow
@async_test
async def test_a_vanished_node_is_forgotten_and_reaped(own_server: RedisServer) -> None:
    """When a node vanishes, its members leave counts with its lease and the registry after."""
    backend = Backend(own_server)
    async with backend.pools() as (one, two):
        await one.host("n", "alice")
        emptied: list[str] = []
        one.on("empty", emptied.append)
        for at in range(1500):
            await two.host("n", f"b{at}", timeout=20)
        await two.host("alone", "bob", timeout=20)
        await eventually(lambda: one._parts.lease.may_judge())
        await vanish(two)
        assert await one.count("n") == 1501
        lease = one.timing.lease
        await eventually(lambda: is_count(one, 1), (lease + 1) * 3)
        assert [member.id async for member in one.members("n")] == ["alice"]
        assert await one.locate("n", "b7") is None
        assert not await one.send("n", "b7", "x")
        await eventually(lambda: backend.keys_of("members") == ["cluster_pool:{n}:members"], 15)
        assert await one.send("n", "b7", "x") is SendResult.ABSENT
        await eventually(lambda: emptied == ["alone"])
        await one.host("n", "b7", on_conflict="reject")
        two._parts.life.state = None  # type: ignore[assignment]  # it is gone: nothing to stop
        await abandon(two)


async def is_count(pool: Pool, count: int) -> bool:
    return await pool.count("n") == count


@async_test
async def test_an_id_of_a_dead_node_is_free_for_a_newcomer_at_once(own_server: RedisServer) -> None:
    """With on_conflict="reject", a ghost whose lease is over does not keep its id."""
    backend = Backend(own_server)
    async with backend.pools() as (one, two):
        await two.host("n", "bob")
        await vanish(two)
        await eventually(lambda: is_count(one, 0), 12)
        await one.host("n", "bob", on_conflict="reject")
        assert await one.count("n") == 1
        await abandon(two)
        two._parts.life.state = None  # type: ignore[assignment]  # it is gone: nothing to stop
