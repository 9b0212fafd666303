"""The owners that a sender knows, its handling of unknown ones, and the order of its sends."""

import asyncio
from types import SimpleNamespace
from typing import Any

from cluster_pool import Publisher, SendResult, Timing
from cluster_pool.backplane.command_connection import ScriptCall
from cluster_pool.backplane.lease_view import LeaseView
from cluster_pool.core.keys import Keys
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
async def test_the_view_ends_with_the_soonest_lease_and_goes_on_without_it() -> None:
    """Each incarnation has a line; one whose lease is over has none."""
    redis = Redis()
    view = LeaseView(Keys(), redis.clock, 3.0)
    view.read([b"a.0", b"100", b"b.0", b"200"], [b"one", b"node two"])
    assert view.for_script(LATER) == (b"\na.0 one\nb.0 node two\n", 100)
    redis.now = 100
    assert view.for_script(LATER) == (b"\nb.0 node two\n", 200)
    view.clear()
    assert view.for_script(LATER)[0] == b"\n"


@async_test
async def test_an_ended_incarnation_stays_ended_until_it_is_seen_alive() -> None:
    """Later readings that do not list it keep it ended; one that lists it does not."""
    redis: Any = Redis()
    view = LeaseView(Keys(), redis.clock, 3.0)
    answers: list[Any] = []
    view.look_up(redis, [b"a.0", b"b.0"], lambda over, error: answers.append((set(over), error)))
    redis.replies[0].set_result([[[b"c.0", b"200"], [b"three"]], [b"GONE", b"OVER"]])
    await asyncio.sleep(0)
    assert answers == [({b"b.0"}, None)]
    assert view.for_script(LATER)[0] == b"\nc.0 three\na.0 \n"
    view.read([b"c.0", b"300"], [])
    assert view.for_script(LATER)[0] == b"\nc.0 three\na.0 \n"
    view.read([b"a.0", b"300"], [b"one"])
    assert view.for_script(LATER)[0] == b"\na.0 one\n"


@async_test
async def test_the_view_is_read_before_a_send_when_it_is_older_than_a_heartbeat() -> None:
    """Once for all sends meanwhile; an answer without the owner does not repeat the send."""
    redis: Any = Redis()
    view = LeaseView(Keys(), redis.clock, 0.05)
    for _ in range(3):
        view.refresh_if_old(redis, asyncio.get_running_loop().time())
    assert len(redis.asked) == 1
    assert not view.knows([b"a.0"], 0)
    redis.replies[0].set_result([[[b"a.0", b"200"], [b"one"]], []])
    await asyncio.sleep(0)
    assert view.knows([b"a.0"], 0)
    assert not view.knows([b"a.0"], view.readings)
    assert not view.knows([b"a.0", b"b.0"], 0)
    await asyncio.sleep(0.06)
    view.refresh_if_old(redis, asyncio.get_running_loop().time())
    assert len(redis.asked) == 2


@async_test
async def test_nodes_are_read_only_when_there_are_new_ones() -> None:
    """Else a reading renews the ends of leases. One without a node is asked for once."""
    redis: Any = Redis()
    view = LeaseView(Keys(), redis.clock, 3.0)
    view.refresh(redis)
    redis.replies[-1].set_result([[[b"a.0", b"100", b"odd.0", b"100"], [b"one", None]], []])
    await asyncio.sleep(0)
    assert view.complete
    view.refresh(redis)
    redis.replies[-1].set_result([b"a.0", b"200", b"odd.0", b"200"])
    await asyncio.sleep(0)
    assert view.for_script(LATER) == (b"\na.0 one\n", 200)
    assert view.complete
    view.read([b"a.0", b"300", b"new.0", b"300"])
    assert view.for_script(LATER) == (b"\na.0 one\n", 300)
    view.refresh(redis)
    redis.replies[-1].set_result([[[b"a.0", b"400", b"new.0", b"400"], [b"one", b"two"]], []])
    await asyncio.sleep(0)
    assert view.for_script(LATER) == (b"\na.0 one\nnew.0 two\n", 400)
    assert redis.asked == ["living", "ZRANGEBYSCORE", "living"]
    view.read([b"new.0", b"500"])
    assert view.for_script(LATER) == (b"\nnew.0 two\n", 500)
    view.look_up(redis, [b"late.0"], lambda over, error: None)
    assert redis.asked[-1] == "living"
    view.clear()
    assert not view.complete


@async_test
async def test_a_heartbeat_reads_nodes_only_when_another_one_has_joined(backend: Backend) -> None:
    """In a large cluster that is most of what a heartbeat would cost."""
    async with backend.pools(2) as (one, two):
        view, readings = one._parts.backplane.leases._view, list[bool]()
        plain = view.read

        def noting(leases: Any, nodes: Any = ()) -> None:
            readings.append(bool(nodes))
            plain(leases, nodes)

        view.read = noting
        await eventually(lambda: readings[-2:] == [False, False])
        await one.join("n", "alice")
        assert await two.send("n", "alice", "x", confirm=True)
        readings.clear()
        pool = Pool(backend.redis(), node_id="later", prefix=backend.prefix, timing=one.timing)
        async with pool:
            await eventually(lambda: any(readings))
            await eventually(lambda: readings[-2:] == [False, False])
            assert one._parts.lease.living == 3
            await pool.join("n", "bob")
            assert await one.send("n", "bob", "x", confirm=True)


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
    """The first reads the view and is repeated; an owner that joined later is looked up once."""
    async with (
        backend.pools(1, timing=LASTING) as (one,),
        backend.publisher() as publisher,
    ):
        await one.join("n", "alice")
        names = written(publisher)
        assert await publisher.send("n", "alice", "first") is SendResult.ROUTED
        calls = [name for name in names if name != "publish"]
        late = ["living", "send", "living", "send"]  # the view comes from another primary
        assert calls == ["living", "send", "send"] or (backend.clustered and calls == late)
        names.clear()
        for _ in range(3):
            assert await publisher.send("n", "alice", "x") is SendResult.ROUTED
        assert await publisher.send("n", "nobody", "x") is SendResult.ABSENT
        assert [name for name in names if name != "publish"] == ["send"] * 4
        names.clear()
        pool = Pool(backend.redis(), node_id="later", prefix=backend.prefix, timing=LASTING)
        async with pool:
            await pool.join("n", "bob")
            assert await publisher.send("n", "bob", "x") is SendResult.ROUTED
            assert [name for name in names if name != "publish"] == ["send", "living", "send"]


@async_test
async def test_no_message_overtakes_one_that_waits_for_its_owner(backend: Backend) -> None:
    """Sends and broadcasts in one batch arrive in their order, also those with a known owner;
    another namespace does not wait."""
    async with backend.pools(1) as (one,), backend.publisher() as publisher:
        alice = await one.join("n", "alice")
        other = await one.join("other", "carol")
        assert await publisher.send("n", "alice", "known")
        pool = Pool(backend.redis(), node_id="later", prefix=backend.prefix, timing=LASTING)
        async with pool:
            bob = await pool.join("n", "bob")
            names = written(publisher)
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
    """The owner is looked up once; later sends are answered with one call."""
    async with backend.pools(1) as (one,), backend.publisher() as publisher:
        await one.join("n", "alice")
        with backend.sync_client() as client:
            client.hset(f"{backend.prefix}:{{n}}:members", "ghost", "gone.0:1:1")
        assert await publisher.send("n", "ghost", "x") is SendResult.ABSENT
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
