"""The owners that a sender knows, its handling of unknown ones, and the order of its sends."""

import asyncio
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from redis.exceptions import ResponseError

from cluster_pool import BackplaneUnavailableError, Publisher, SendResult, Timing
from cluster_pool.backplane.command_connection import ScriptCall
from cluster_pool.backplane.lease_view import LeaseView
from cluster_pool.core.keys import Keys
from cluster_pool.testing import FAST
from tests.clusters import Backend, Pool
from tests.support import async_test, eventually

LASTING = Timing(lease=60.0, heartbeat=20.0)
"""No lease of these tests is near its end, however busy the machine is."""

SOON = 5_000
LATER = 1e12
"""The time at which everything must be judged anew, by Redis's clock."""


class Redis:
    """Answers questions about leases when a test says so; its clock stands at 0."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.replies: list[asyncio.Future[Any]] = []
        self.now = 0
        self.clock: Any = SimpleNamespace(
            at=lambda moment: self.now * 1000, not_before=lambda moment: self.now * 1000 + 1
        )

    def script(self, call: ScriptCall) -> asyncio.Future[Any]:
        return self.call(call.name)

    def call(self, name: str, *arguments: Any) -> asyncio.Future[Any]:
        self.asked.append(name)
        self.replies.append(asyncio.get_running_loop().create_future())
        return self.replies[-1]


@async_test
async def test_a_call_carries_only_owners_whose_lease_may_be_over() -> None:
    """However many live. The view ends with the soonest lease, which is carried from then on."""
    redis = Redis()
    view = LeaseView(Keys(), redis.clock, 3.0)
    assert view.for_script(LATER) == (b"", 0), "it knows nothing"
    many = [field for at in range(1_000) for field in (b"x%d.0" % at, b"9000")]
    view.read([b"a.0", b"100", b"b.0", b"200", *many], [], 0)
    assert view.for_script(LATER) == (b"", 100)
    assert view.living == 1_002
    redis.now = 100
    assert view.for_script(LATER) == (b"\na.0 ?\n", 200)
    view.read([b"a.0", b"9000", b"b.0", b"150", *many], [], 150)
    assert view.for_script(LATER) == (b"\nb.0 ?\n", 9_000)
    view.clear()
    assert view.for_script(LATER) == (b"", 0)


@async_test
async def test_the_view_ends_after_three_heartbeats_whatever_it_has_read() -> None:
    """Nodes that have joined since may be dead by then, and those it knows have long leases."""
    redis = Redis()
    view = LeaseView(Keys(), redis.clock, 3.0)
    view.read([b"a.0", b"1e15", b"endless.0", b"inf"], [], 500)
    assert view.for_script(LATER) == (b"", 9_500)
    redis.now = 9_500
    for _ in range(2):
        assert view.for_script(LATER) == (b"", 9_500), "it stays ended until it is read"
    view.read([b"a.0", b"1e15"], [], 9_600)
    assert view.for_script(LATER) == (b"", 18_600)


@async_test
async def test_a_gone_incarnation_is_carried_until_it_is_reaped_or_long_looked_up() -> None:
    """A reading that has it alive knows better."""
    redis: Any = Redis()
    view = LeaseView(Keys(), redis.clock, 3.0)
    answers: list[Any] = []
    view.look_up(redis, [b"a.0", b"b.0"], answers.append)
    redis.replies[0].set_result([[[b"b.0", b"0", b"c.0", b"200"], [b"d.0"], 0], [b"GONE", b"OVER"]])
    await asyncio.sleep(0)
    assert answers == [None]
    assert view.knows([b"a.0", b"b.0"], 0)
    assert view.for_script(LATER)[0] == b"\na.0 \nd.0 \nb.0 !\n"
    view.read([b"c.0", b"300"], [], 0)
    assert view.for_script(LATER)[0] == b"\na.0 \n", "the others are reaped"
    view.read([b"a.0", b"300"], [b"a.0"], 0)
    assert view.for_script(LATER)[0] == b""
    view.look_up(redis, [b"a.0"], answers.append)
    redis.replies[1].set_result([[[], [], 0], [b"GONE"]])
    await asyncio.sleep(0)
    view._gone[b"a.0"] = 0.0  # its time is over
    view.read([], [], 0)
    assert view.for_script(LATER)[0] == b""


@async_test
async def test_a_lease_that_is_over_by_the_time_of_redis_is_over_at_once() -> None:
    """Although the estimate here is behind: else a send would be repeated until it is not."""
    redis: Any = Redis()
    view = LeaseView(Keys(), redis.clock, 3.0)
    view.read([b"a.0", b"100"], [], 101)
    assert view.for_script(LATER)[0] == b"\na.0 ?\n"
    assert not view.knows([b"a.0"], 0)


@async_test
async def test_the_view_is_read_before_a_send_when_it_is_older_than_a_heartbeat() -> None:
    """Once for all sends meanwhile; a send is repeated only after a newer reading."""
    redis: Any = Redis()
    view = LeaseView(Keys(), redis.clock, 0.05)
    for _ in range(3):
        view.refresh_if_old(redis, asyncio.get_running_loop().time())
    assert redis.asked == ["ZRANGE", "HKEYS"]
    assert not view.knows([b"a.0"], 0)
    redis.replies[0].set_result([b"a.0", b"200", b"b.0", b"0"])
    redis.replies[1].set_result([])
    await asyncio.sleep(0)
    assert view.knows([b"a.0", b"new.0"], 0)
    assert not view.knows([b"a.0"], view.readings)
    assert not view.knows([b"a.0", b"b.0"], 0), "only Redis can tell whether that one is over"
    await asyncio.sleep(0.06)
    view.refresh_if_old(redis, asyncio.get_running_loop().time())
    assert len(redis.asked) == 4


@async_test
async def test_a_reading_without_those_that_are_reaped_keeps_the_known_ones() -> None:
    """Their key may have a wrong type; one without leases is none."""
    redis: Any = Redis()
    view = LeaseView(Keys(), redis.clock, 3.0)
    view.read([b"a.0", b"100"], [b"d.0"], 0)
    done = view.refresh(redis)
    redis.replies[0].set_result([b"a.0", b"200"])
    redis.replies[1].set_exception(ResponseError("WRONGTYPE"))
    await done
    assert view.for_script(LATER) == (b"\nd.0 \n", 200)
    lost = view.refresh(redis)
    redis.replies[2].set_exception(BackplaneUnavailableError("lost"))
    redis.replies[3].set_result([])
    with pytest.raises(BackplaneUnavailableError):
        await lost
    assert view.for_script(LATER) == (b"\nd.0 \n", 200)


@async_test
async def test_an_owner_that_does_not_listen_is_looked_up_if_it_is_not_known() -> None:
    """Once for all its items; nothing waits for it."""
    redis: Any = Redis()
    view = LeaseView(Keys(), redis.clock, 3.0)
    view.read([b"a.0", b"100"], [], 0)
    view.doubt(redis, [b"a.0"])
    assert redis.asked == []
    view.doubt(redis, [b"a.0", b"odd.0", b"odd.0"])
    assert redis.asked == ["living"]
    redis.replies[0].set_result([[[b"a.0", b"100"], [], 0], [b"GONE"]])
    await asyncio.sleep(0)
    assert view.for_script(LATER)[0] == b"\nodd.0 \n"


def written(publisher: Publisher) -> list[str]:
    """The names of the scripts that a publisher calls from now on."""
    names: list[str] = []

    def note(commands: Any) -> None:
        script = commands.script

        def noting(call: ScriptCall) -> Any:
            names.append(call.name)
            return script(call)

        commands.script = noting

    for shard in publisher._parts.backplane.topology.shards:
        if shard.commands is not None:
            note(shard.commands)
    return names


@async_test
async def test_a_send_to_a_known_owner_is_one_call(backend: Backend) -> None:
    """The first reads the view and is repeated; an owner that joined later is as any other."""
    async with (
        backend.pools(1, timing=LASTING) as (one,),
        backend.publisher() as publisher,
    ):
        await one.host("n", "alice")
        names = written(publisher)
        assert await publisher.send("n", "alice", "first") is SendResult.ROUTED
        calls = [name for name in names if name != "publish"]
        late = ["send", "living", "send"]  # the view comes from another primary
        assert calls == ["send", "send"] or (backend.clustered and calls == late)
        names.clear()
        for _ in range(3):
            assert await publisher.send("n", "alice", "x") is SendResult.ROUTED
        assert await publisher.send("n", "nobody", "x") is SendResult.ABSENT
        assert [name for name in names if name != "publish"] == ["send"] * 4
        names.clear()
        pool = Pool(backend.redis(), node_id="later", prefix=backend.prefix, timing=LASTING)
        async with pool:
            await pool.host("n", "bob")
            assert await publisher.send("n", "bob", "x") is SendResult.ROUTED
            assert [name for name in names if name != "publish"] == ["send"]


@async_test
async def test_an_owner_whose_lease_is_over_is_sent_nothing_though_it_listens(
    backend: Backend,
) -> None:
    """As a frozen process, whose connections Redis still has. It is unreachable until it is buried,
    and absent from then on, also for a process that never knew it."""
    async with backend.pools(2) as (one, two), backend.publisher() as publisher:
        alice = await two.host("n", "alice")
        assert await publisher.send("n", "alice", "1") is SendResult.ROUTED
        await one._parts.reaper.stop()
        await two._parts.reaper.stop()
        await two._parts.lease_keeper.stop()
        assert await alice.wait_sent() == ["1"]
        incarnation = two.statistics()["incarnation"]
        leases = f"{backend.prefix}:{{~}}:leases"

        async def over() -> bool:
            async with backend.client() as client:
                seconds, micros = await client.time()
                ends = await client.zscore(leases, incarnation)
                return bool(ends <= seconds * 1000 + micros // 1000)

        while not await over():
            await publisher.send("n", "alice", "while it may live")
            await asyncio.sleep(0.02)
        numbers = f"{backend.routed_channel('n', two)}:numbers"
        async with backend.client() as client:
            before = await client.hget(numbers, "last")
            for sender in (one, publisher):
                for _ in range(5):
                    assert await sender.send("n", "alice", "x") is SendResult.UNREACHABLE
            deadline = asyncio.get_running_loop().time() + 5
            assert await one._parts.backplane.leases.bury(incarnation, deadline, "expired")
            async with backend.publisher() as late:
                for sender in (one, publisher, late):
                    await eventually(partial(_is_absent, sender))
                    assert await sender.send("n", "alice", "x") is SendResult.ABSENT
            assert await client.hget(numbers, "last") == before, "nothing was published"
        one._parts.reaper.start()
        one._parts.reaper.wake()
        await eventually(lambda: _nobody(one))


async def _is_absent(sender: Any) -> bool:
    return await sender.send("n", "alice", "x") is SendResult.ABSENT


async def _nobody(pool: Pool) -> bool:
    return await pool.locate("n", "alice") is None and not await pool.count("n")


@async_test
async def test_no_message_overtakes_one_that_waits_for_its_owner(backend: Backend) -> None:
    """Sends and broadcasts in one batch arrive in their order, also those with a known owner;
    another namespace does not wait."""
    async with backend.pools(1) as (one,), backend.publisher() as publisher:
        alice = await one.host("n", "alice")
        other = await one.host("other", "carol")
        assert await publisher.send("n", "alice", "known")
        pool = Pool(backend.redis(), node_id="later", prefix=backend.prefix, timing=LASTING)
        async with pool:
            bob = await pool.host("n", "bob")
            names = written(publisher)
            view = publisher._parts.backplane.outbound._view
            view._leases[pool.statistics()["incarnation"].encode()] = 0.0  # as if it might be over
            view._write()
            sent = [
                publisher.send("n", "alice", "1"),
                publisher.send("n", "bob", "1"),
                publisher.broadcast_message("n", "2"),
                publisher.send("other", "carol", "1"),
                publisher.send("n", "alice", "3"),
                publisher.send("n", "bob", "3"),
                publisher.broadcast_message("n", "4"),
                publisher.send("n", "bob", "5"),
            ]
            results = await asyncio.gather(*sent)
            assert "living" in names
            assert all(results), results
            assert await alice.wait_sent(5) == ["known", "1", "2", "3", "4"]
            assert await bob.wait_sent(5) == ["1", "2", "3", "4", "5"]
            assert await other.wait_sent() == ["1"]
            await eventually(lambda: not publisher._parts.backplane.outbound._queues)


@async_test
async def test_a_send_to_a_claim_of_a_dead_owner_is_absent(backend: Backend) -> None:
    """It does not listen, and is looked up for later sends, which are answered with one call.
    One whose lease is over is looked up before anything is published."""
    long = replace(FAST, lease=60.0, heartbeat=20.0)  # a view that ends would look it up at once
    async with backend.pools(1, timing=long) as (one,), backend.publisher() as publisher:
        await one.host("n", "alice")
        with backend.sync_client() as client:
            client.hset(f"{backend.prefix}:{{n}}:members", "ghost", "gone.0:1:1")
        first = await publisher.send("n", "ghost", "x")
        assert first in (SendResult.UNREACHABLE, SendResult.ABSENT)  # if the view had just ended

        async def absent() -> bool:
            return await publisher.send("n", "ghost", "x") is SendResult.ABSENT

        await eventually(absent)
        names = written(publisher)
        assert await publisher.send("n", "ghost", "x") is SendResult.ABSENT
        assert await publisher.send("n", "alice", "x") is SendResult.ROUTED
        assert [name for name in names if name != "publish"] == ["send", "send"]
        with backend.sync_client() as client:
            client.hdel(f"{backend.prefix}:{{n}}:members", "ghost")
            now = client.time()
            over = now[0] * 1000 - SOON
            client.zadd(f"{backend.prefix}:{{~}}:leases", {"over.0": over})
            client.hset(f"{backend.prefix}:{{n}}:members", "late", "over.0:1:1")
        result = await publisher.send("n", "late", "x")
        assert result in (SendResult.UNREACHABLE, SendResult.ABSENT)  # once it is buried
        with backend.sync_client() as client:
            client.zrem(f"{backend.prefix}:{{~}}:leases", "over.0")
            client.hdel(f"{backend.prefix}:{{n}}:members", "late")
