"""Each call is answered in time, truly, and in order, whatever other callers do."""

import asyncio
import contextlib
import math
from typing import Any

import pytest
import uvloop

from cluster_pool import (
    BackplaneUnavailableError,
    ClusterPoolError,
    InvalidValueError,
    NodeState,
    Publisher,
    SendResult,
    Timing,
)
from cluster_pool.backplane.command_connection import ScriptCall
from cluster_pool.core.config import LONGEST_TIMEOUT, check_timeout
from cluster_pool.testing import FAST
from tests.clusters import Backend, Pool
from tests.servers import RedisServer
from tests.support import async_test, eventually, run_alone

QUICK = Timing(timeout=0.5, lease=3.0, heartbeat=1.0, probe=0.5, linger=0.2, close=1.0)


async def answers(calls: list[asyncio.Task[Any]], seconds: float) -> list[Any]:
    """The result or error of every call; fails when one of them is not answered in time."""
    done, unanswered = await asyncio.wait(calls, timeout=seconds)
    for call in unanswered:
        call.cancel()
    await asyncio.gather(*unanswered, return_exceptions=True)
    assert not unanswered, f"{len(unanswered)} of {len(calls)} calls have no answer"
    return [call.exception() or call.result() for call in done]


@async_test
async def test_sends_after_an_outage_in_which_one_expired_are_answered(
    own_server: RedisServer,
) -> None:
    """One send expired in the queue, and a local send passed it: later sends are answered."""
    async with (
        own_server.network() as path,
        Pool(path.url, node_id="a", timing=QUICK) as one,
        Pool(own_server.url, node_id="b", timing=QUICK) as two,
    ):
        await one.host("room", "alice")
        bob = await two.host("room", "bob")
        await path.refuse()
        await eventually(lambda: not one._parts.backplane.shard.up)
        with pytest.raises(BackplaneUnavailableError):
            await one.send("room", "bob", "expires")
        assert await one.send("room", "alice", "local") is SendResult.DELIVERED
        calls: list[asyncio.Task[Any]] = [
            asyncio.create_task(one.send("room", "bob", "x", confirm=bool(at % 2), timeout=10))
            for at in range(100)
        ]
        calls.append(asyncio.create_task(one.broadcast_message("room", "y", timeout=10)))
        await path.accept()
        assert all(await answers(calls, 30))
        await bob.wait_sent(101)
        assert one.statistics()["pending"] == 0
        assert not list(one._parts.backplane.outbound._lanes.queues())


@async_test
async def test_every_call_of_sparse_traffic_is_answered(own_server: RedisServer) -> None:
    """Many namespaces, most queues empty, local and remote mixed, links cut past the time-out."""
    async with (
        own_server.network() as path,
        Pool(path.url, node_id="a", timing=QUICK) as one,
        Pool(own_server.url, node_id="b", timing=QUICK) as two,
    ):
        names = [f"room-{at}" for at in range(40)]
        for name in names:
            await one.host(name, "here")
            await two.host(name, "there")
        calls: list[asyncio.Task[Any]] = []
        for turn in range(3):
            await path.refuse()
            await eventually(lambda: not one._parts.backplane.shard.up)
            for at in range(240):
                name, id = names[(at * 7 + turn) % 40], ("here", "there", "nowhere")[at % 3]
                calls.append(asyncio.create_task(one.send(name, id, "x", confirm=at % 5 == 0)))
                if at % 11 == 0:
                    calls.append(asyncio.create_task(one.broadcast_message(name, "y")))
                await asyncio.sleep(0.004)
                if at == 200:
                    await path.accept()
            await eventually(lambda: one.ready)
        ends = await answers(calls, QUICK.timeout * 3)
        assert len(ends) == len(calls)
        assert one.statistics()["pending"] == 0
        assert not list(one._parts.backplane.outbound._lanes.queues())


@async_test
async def test_a_cancelled_send_does_not_hold_up_local_ones(own_server: RedisServer) -> None:
    """The cancelled send is still queued while Redis is away, but local sends ignore it."""
    async with own_server.network() as path, Pool(path.url) as one:
        await one.host("room", "alice")
        await path.refuse()
        await eventually(lambda: not one._parts.backplane.shard.up)
        waiting = one.send_nowait("room", "bob", "x", timeout=60)
        waiting.cancel()
        assert await one.send("room", "alice", "local") is SendResult.DELIVERED
        assert one.statistics()["pending"] == 0


@pytest.mark.parametrize("timeout", [0, -1, math.nan, True, "2", b"2"])
@async_test
async def test_an_invalid_timeout_is_refused_by_every_call(timeout: Any) -> None:
    """The error comes before anything is done, also when the member is on this node."""
    async with Backend(None).pools(1) as (one,):
        alice = await one.host("n", "alice")
        calls = [
            one.send("n", "alice", "x", timeout=timeout),
            one.send_json("n", "alice", 1, timeout=timeout),
            one.send_then_close("n", "alice", "x", timeout=timeout),
            one.close("n", "alice", timeout=timeout),
            one.broadcast_message("n", "x", timeout=timeout),
            one.close_all("n", timeout=timeout),
            one.count("n", timeout=timeout),
            anext(one.members("n", timeout=timeout)),
            one.namespaces(timeout=timeout),
            one.nodes(timeout=timeout),
            one.locate("n", "alice", timeout=timeout),
            one.drains(timeout=timeout),
            one.drain_node("node-2", timeout=timeout),
            one.host("n", "bob", timeout=timeout),
            one.remove_connection(alice.connection, timeout=timeout),  # type: ignore[attr-defined]
        ]
        for call in calls:
            with pytest.raises(InvalidValueError, match="timeout"):
                await call
        with pytest.raises(InvalidValueError, match="timeout"):
            one.send_nowait("n", "alice", "x", timeout=timeout)
        assert alice.sent == []
        assert alice.closed is None


@async_test
async def test_an_endless_timeout_lasts_an_hour_and_ends_nothing(own_server: RedisServer) -> None:
    """The calls beside it go on, and everything that was taken is given back."""
    assert check_timeout(math.inf) == LONGEST_TIMEOUT
    async with Backend(own_server).pools() as (one, two):
        for name in ("r1", "r2", "r3"):
            await two.host(name, "x")
        for name in ("r1", "r2"):
            assert await one.send(name, "x", "hi", timeout=math.inf, confirm=True)
            assert await one.broadcast_message(name, "hi", timeout=1e300)
            assert await one.count(name, timeout=math.inf) == 1
        assert await one.send("r3", "x", "hello", confirm=True)
        assert not list(one._parts.backplane.outbound._lanes.queues())
        assert one.statistics()["pending"] == 0


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_start_may_wait_without_end(new_loop: Any, own_server: RedisServer) -> None:
    """An endless wait ends when Redis is there; one that is no number is refused at once."""

    async def begin() -> None:
        own_server.kill()
        pool = Pool(own_server.url, node_id="a")
        starting = asyncio.create_task(pool.start(wait=math.inf))
        await eventually(lambda: pool.state is NodeState.STARTING)
        await eventually(lambda: pool._parts.backplane.shard.generations.last_error is not None)
        own_server.start()
        await starting
        await pool.stop()
        for wait in (-1, math.nan, "5"):
            with pytest.raises(InvalidValueError, match="wait"):
                await pool.start(wait=wait)  # type: ignore[arg-type]
        assert pool.state is NodeState.STOPPED

    run_alone(begin(), new_loop)


@async_test
async def test_a_call_that_cannot_be_written_fails_alone(
    own_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call that raises while it is written returns its resources; the next ones go out."""
    async with Backend(own_server).pools() as (one, two):
        await two.host("n", "x")
        commands = one._parts.backplane.topology.of("n").commands
        assert commands is not None
        whole = commands.script

        def broken(call: ScriptCall) -> asyncio.Future[Any]:
            if "poison" in repr(call.arguments):
                raise OverflowError("too large")
            return whole(call)

        monkeypatch.setattr(commands, "script", broken)
        for _ in range(5):
            with pytest.raises(BackplaneUnavailableError, match="too large"):
                await one.send("n", "x", "poison")
            with pytest.raises(BackplaneUnavailableError, match="too large"):
                await one.broadcast_message("n", "poison")
        assert await one.send("n", "x", "well", confirm=True) is SendResult.DELIVERED
        assert not list(one._parts.backplane.outbound._lanes.queues())
        assert one.statistics()["pending"] == 0


@async_test
async def test_a_flush_of_claims_that_raises_leaves_nothing_behind(
    own_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Claims fail, and releases are tried again with the next heartbeat."""
    async with Backend(own_server).pools(1) as (one,):
        alice = await one.host("n", "alice")
        registry = one._parts.backplane.claims
        whole_claim, whole_release = registry.claim, registry.release

        def broken(*arguments: Any, **options: Any) -> Any:
            raise OverflowError("too large")

        monkeypatch.setattr(registry, "claim", broken)
        monkeypatch.setattr(registry, "release", broken)
        with pytest.raises(ClusterPoolError):
            await one.host("n", "bob")
        with pytest.raises(BackplaneUnavailableError):
            await one.remove_connection(alice.connection, timeout=0.2)  # type: ignore[attr-defined]
        monkeypatch.setattr(registry, "claim", whole_claim)
        monkeypatch.setattr(registry, "release", whole_release)
        await one.host("n", "bob")
        await eventually(lambda: one.get_connection("n", "alice") is None)
        assert await one.count("n") == 1


@async_test
async def test_a_send_with_more_time_is_repeated_after_its_neighbour_timed_out(
    own_server: RedisServer,
) -> None:
    """Two travel in one batch: when the shorter time-out ends, the longer one is sent again."""
    backend = Backend(own_server)
    async with backend.pools() as (one, two):
        bob = await two.host("n", "bob")
        for confirm in (False, True):
            own_server.freeze()
            calls: list[asyncio.Task[Any]] = [
                asyncio.create_task(
                    one.send("n", "bob", f"{limit:g}", timeout=limit, confirm=confirm)
                )
                for limit in (5.0, 0.3, 6.0, 0.2, 7.0)
            ]
            calls.append(asyncio.create_task(one.broadcast_message("n", "all", timeout=5)))
            calls.append(asyncio.create_task(one.broadcast_message("n", "none", timeout=0.3)))
            for at in (1, 3, 6):
                with pytest.raises(BackplaneUnavailableError):
                    await calls[at]
            own_server.thaw()
            assert all(await answers([calls[at] for at in (0, 2, 4, 5)], 15))
        await bob.wait_sent(8)
        assert bob.sent == ["5", "6", "7", "all"] * 2
        assert one.statistics()["pending"] == 0


@async_test
async def test_short_time_outs_do_not_delay_other_calls(own_server: RedisServer) -> None:
    """Over a slow link most short calls expire; the others succeed at their first attempt."""
    async with (
        own_server.network() as path,
        Pool(path.url, node_id="a") as one,
        Pool(own_server.url, node_id="b") as two,
    ):
        bob, carol = await two.host("n", "bob"), await two.host("m", "carol")
        path.delay = 0.03
        ending = asyncio.Event()

        async def hasty(namespace: str) -> int:
            late = 0
            while not ending.is_set():
                with contextlib.suppress(BackplaneUnavailableError):
                    await one.send(namespace, "nobody", "x", timeout=0.02)
                    late -= 1
                late += 1
            return late

        hurried = [asyncio.create_task(hasty(name)) for name in ("n", "m") * 20]
        for at in range(10):
            calls = [one.send("n", "bob", f"{at}"), one.send("m", "carol", f"{at}")]
            assert await asyncio.gather(*calls) == [SendResult.ROUTED] * 2
        ending.set()
        assert sum(await asyncio.gather(*hurried)) > 100
        assert (await bob.wait_sent(10), await carol.wait_sent(10)) == ([*map(str, range(10))],) * 2


@async_test
async def test_a_publisher_keeps_a_deadline_for_each_call(own_server: RedisServer) -> None:
    """Calls of a publisher, which has no connections, in many namespaces at once."""
    backend = Backend(own_server)
    async with backend.pools(1) as (one,), backend.publisher() as publisher:
        sockets = [await one.host(f"n{at}", "x") for at in range(20)]
        own_server.freeze()
        short = [publisher.send_nowait(f"n{at}", "x", "short", timeout=0.3) for at in range(20)]
        long = [publisher.send_nowait(f"n{at}", "x", "long", timeout=8) for at in range(20)]
        for outcome in await asyncio.gather(*short, return_exceptions=True):
            assert isinstance(outcome, BackplaneUnavailableError)
        own_server.thaw()
        assert set(await asyncio.gather(*long)) == {SendResult.ROUTED}
        for socket in sockets:
            assert await socket.wait_sent() == ["long"]


@async_test
async def test_order_is_kept_when_the_counter_of_a_channel_begins_again(
    own_server: RedisServer,
) -> None:
    """It expired or was evicted: a local send does not overtake the broadcast before it."""
    backend = Backend(own_server)
    async with backend.pools() as (one, two):
        sockets = [await one.host(f"user:{at}", "tab") for at in range(50)]
        for at in range(50):
            await two.host(f"user:{at}", "other")
            for _ in range(3):
                await one.broadcast_message(f"user:{at}", "early")
        for key in backend.keys_of("numbers"):
            own_server.command("DEL", key)
        for at, socket in enumerate(sockets):
            await socket.wait_sent(3)
            socket.sent.clear()
            await one.broadcast_message(f"user:{at}", "1" + "x" * 200_000 * (at % 2))
            assert await one.send(f"user:{at}", "tab", "2")
            await socket.wait_sent(2)
            assert [message[0] for message in socket.sent] == ["1", "2"]


@async_test
async def test_a_claim_makes_the_ttl_of_the_counter_long_again(own_server: RedisServer) -> None:
    """The only member leaves and comes back: the counter then lives a day again."""
    backend = Backend(own_server)
    async with backend.pools(1) as (one,):
        alice = await one.host("n", "alice")
        await one.broadcast_message("n", "x")
        (key,) = [key for key in backend.keys_of("numbers") if "{n}" in key]
        await one.remove_connection(alice.connection)  # type: ignore[attr-defined]
        assert backend.keys()[key] <= 60_000
        await one.host("n", "alice")
        assert backend.keys()[key] > 80_000_000


@async_test
async def test_publishers_with_the_shortest_time_out_get_an_answer() -> None:
    """The smallest allowed time-out still ends in an answer."""
    backend = Backend(None)
    async with backend.pools(1, timing=FAST) as (one,), Publisher(backend.redis()) as publisher:
        await one.host("n", "x")
        for _ in range(20):
            try:
                assert await publisher.send("n", "x", "y", timeout=1e-9) in SendResult
            except BackplaneUnavailableError:
                continue


@async_test
async def test_a_slow_answer_to_time_does_not_delay_sends(
    own_server: RedisServer,
) -> None:
    """The earlier estimate of Redis's time stays valid; without it all sends would be late."""
    async with (
        own_server.network() as path,
        Pool(path.url, node_id="a", timing=Timing(probe=1.0)) as one,
    ):
        commands = one._parts.backplane.shard.commands
        assert commands is not None
        ask, asked = commands.call, asyncio.Event()

        def held_back(*arguments: Any) -> asyncio.Future[Any]:
            if arguments[0] == "TIME" and not asked.is_set():
                path.hold(upwards=False)
                asked.set()
            return ask(*arguments)

        commands.call = held_back  # type: ignore[method-assign]
        await asyncio.wait_for(asked.wait(), 10)
        before = one._parts.backplane.shard.clock._heard_at
        await asyncio.sleep(1.4)
        path.heal()
        await eventually(lambda: one._parts.backplane.shard.clock._heard_at > before)
        assert one._parts.backplane.shard.commands is commands
        assert await one.send("room", "nobody", "x", timeout=1.2) is SendResult.ABSENT
