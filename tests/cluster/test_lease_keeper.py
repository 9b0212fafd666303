"""A node id belongs to one living node: which node gets it, which waits, which takes another id."""

import asyncio
import logging
import signal

import pytest

from cluster_pool import BackplaneUnavailableError, NodeIdTakenError, NodeState, SendResult, Timing
from cluster_pool.cluster.pool import ClusterPool
from cluster_pool.testing import FAST
from tests.clusters import Backend, Pool
from tests.servers import RedisServer
from tests.support import async_test, eventually
from tools.harness.nodes import NodeProcess


@async_test
async def test_a_node_that_lost_its_id_keeps_its_clients(
    own_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Both are reachable then, under two ids, for good; one WARNING says so."""
    backend = Backend(own_server)
    async with own_server.network() as proxy, backend.pools(1) as (other,):
        cut_off = Pool(proxy.url, node_id="pod-0", timing=FAST)
        told: list[tuple[NodeState, str]] = []
        cut_off.on("state", lambda state: told.append((state, cut_off.node_id)))
        async with cut_off:
            alice = await cut_off.host("n", "alice")
            proxy.hold()
            async with Pool(backend.redis(), node_id="pod-0", timing=FAST) as new:
                bob = await new.host("n", "bob")
                proxy.heal()
                await eventually(lambda: cut_off.node_id != "pod-0" and cut_off.ready, 30)
                name = cut_off.node_id
                assert name.startswith("pod-0-")
                assert told[-1] == (NodeState.ACTIVE, name)
                for count in range(1, 4):
                    await asyncio.sleep(FAST.heartbeat)
                    assert await other.send("n", "alice", "a", confirm=True) is SendResult.DELIVERED
                    assert await other.send("n", "bob", "b", confirm=True) is SendResult.DELIVERED
                    assert await cut_off.send("n", "bob", "c", confirm=True) is SendResult.DELIVERED
                    assert await new.send("n", "alice", "d", confirm=True) is SendResult.DELIVERED
                    assert (alice.sent[-2:], bob.sent[-2:]) == (["a", "d"], ["b", "c"])
                    assert len(alice.sent) == 2 * count
                assert alice.closed is None
                assert await other.count("n") == 2
                assert {m.id: m.node async for m in other.members("n")} == {
                    "alice": name,
                    "bob": "pod-0",
                }
                assert [node.id for node in await other.nodes()] == ["node-1", "pod-0", name]
                assert [one.statistics()["inbox_bytes"] for one in (cut_off, new)] == [0, 0]
                assert (cut_off.node_id, new.node_id) == (name, "pod-0")
                assert new.statistics()["rejoins"] == 0
                await other.drain_node(name, 1000, announce=0)
                assert (await alice.wait_closed())[0] == 1012
                assert bob.closed is None
    (warning,) = [text for text in caplog.messages if "another node has taken" in text]
    assert name in warning
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert backend.leaked() == []


@async_test
async def test_a_lease_that_is_not_renewed_costs_no_node_its_id(backend: Backend) -> None:
    """Redis came back with the lease of a former start of this node, which ends by itself."""
    async with backend.pools(1) as (one,):
        await one.host("n", "alice")
        keys = one._setup.keys
        with backend.sync_client() as client:
            ends = client.zscore(keys.leases, one._parts.lease.incarnation)
            assert ends is not None
            client.zadd(keys.leases, {"former.0": ends})
            client.hset(keys.incarnations, "former.0", "node-1")
            client.hset(keys.nodes, "node-1", "former.0")
            client.zrem(keys.leases, one._parts.lease.incarnation)
        await eventually(lambda: not one.ready)
        await eventually(lambda: one.ready, 3 * FAST.lease)
        assert one.node_id == "node-1"
        assert await one.count("n") == 1
        with backend.sync_client() as client:
            client.hdel(keys.incarnations, "former.0")
            client.zrem(keys.leases, "former.0")


@async_test
async def test_two_processes_with_one_node_id_keep_their_answers_apart(
    own_server: RedisServer,
) -> None:
    """The cut-off one still hears the channel of the id that it lost."""
    backend = Backend(own_server)
    async with (
        own_server.network() as proxy,
        own_server.network() as mute_proxy,
        backend.pools(1) as (other,),
        Pool(mute_proxy.url, node_id="mute", timing=FAST) as mute,
        Pool(proxy.url, node_id="pod-0", timing=FAST) as one,
    ):
        await other.host("n", "bob")
        await mute.host("n", "carol")
        proxy.hold()
        async with ClusterPool(backend.redis(), node_id="pod-0", timing=FAST) as two:
            proxy.heal()
            await eventually(lambda: one._parts.backplane.shard.up and not one.ready)
            numbers = [pool._parts.replies for pool in (one, two)]
            numbers[0]._requests = numbers[1]._requests
            mute_proxy.hold(upwards=True, downwards=False)
            asked = asyncio.create_task(two.send("n", "carol", "x", confirm=True, timeout=1))
            await asyncio.sleep(0.05)
            answer = await one.send("n", "bob", "x", confirm=True, timeout=1)
            assert answer in (SendResult.DELIVERED, SendResult.TIMED_OUT)
            assert await asked is SendResult.TIMED_OUT
            mute_proxy.heal()


@async_test
async def test_a_silent_predecessor_is_not_waited_for(own_server: RedisServer) -> None:
    """Its channel has no listener for four seconds; if it still lives, it gets another node id."""
    backend = Backend(own_server)
    patient = Timing(lease=60, heartbeat=1.0)
    async with own_server.network() as proxy, backend.pools(1) as (other,):
        cut_off = Pool(proxy.url, node_id="pod-0", timing=patient)
        async with cut_off:
            alice = await cut_off.host("n", "alice")
            await proxy.refuse()
            async with Pool(backend.redis(), node_id="pod-0", timing=patient) as new:
                await new.host("n", "bob")
                await proxy.accept()
                await eventually(lambda: cut_off.node_id != "pod-0" and cut_off.ready, 30)
                assert cut_off.node_id.startswith("pod-0-")
                for sender in (other, new):
                    assert await sender.send("n", "alice", "a", confirm=True)
                    assert await sender.send("n", "bob", "b", confirm=True)
                assert alice.sent == ["a", "a"]
                assert alice.closed is None
                assert await other.count("n") == 2
    assert backend.leaked() == []


@async_test
async def test_a_predecessor_that_listens_keeps_its_lease(own_server: RedisServer) -> None:
    """A frozen process, for example: its sockets are open, and its lease will end or be renewed."""
    backend = Backend(own_server)
    with NodeProcess(own_server.url, "--node-id", "pod-0", "--lease", "9") as frozen:
        frozen.signal(signal.SIGSTOP)
        began = asyncio.get_running_loop().time()
        async with Pool(backend.redis(), node_id="pod-0", timing=FAST):
            assert asyncio.get_running_loop().time() - began > 5
            frozen.signal(signal.SIGCONT)


@async_test
async def test_a_dead_nodes_members_are_unreachable_until_its_successor_has_the_node_id(
    own_server: RedisServer,
) -> None:
    """While the successor waits for the lease, messages to those members are not handed to it."""
    backend = Backend(own_server)
    with NodeProcess(own_server.url, "--node-id", "pod-0", "--lease", "9") as node:
        async with Pool(backend.redis(), node_id="other", timing=FAST) as other:

            async def answered(expected: SendResult) -> bool:
                return await other.send("n", "alice", "x") is expected

            async with node.connect("n", "alice"):
                await eventually(lambda: answered(SendResult.ROUTED))
                node.signal(signal.SIGKILL)
                await eventually(lambda: answered(SendResult.UNREACHABLE))
            successor = Pool(backend.redis(), node_id="pod-0", timing=FAST)
            starting = asyncio.create_task(successor.start())
            said: list[SendResult] = []
            while not (successor._parts and successor._parts.lease.incarnation):
                said.append(await other.send("n", "alice", "x"))
                await asyncio.sleep(0.02)
            said.pop()  # the lease may have been taken while this was on its way
            assert not await other.send("n", "alice", "x"), "nor is it handed over afterwards"
            await starting
            async with successor:
                assert len(said) > 20, "it had to wait for the lease"
                assert set(said) == {SendResult.UNREACHABLE}
                await successor.host("n", "alice")
                assert await other.send("n", "alice", "x", confirm=True) is SendResult.DELIVERED


@async_test
async def test_a_node_probes_itself_over_the_channel_of_its_node_id_once_it_has_it(
    own_server: RedisServer,
) -> None:
    """That of its start, over which it probed itself until then, is kept for its members."""
    backend = Backend(own_server)
    async with Pool(backend.redis(), node_id="pod-0", timing=FAST) as one:
        shard = one._parts.backplane.shard
        assert shard.subscriptions.probed == "cluster_pool:{~}:node:pod-0"

        def channels() -> list[str]:
            reply = own_server.command("PUBSUB", "CHANNELS", "cluster_pool:{~}:*")
            return sorted(reply.split("\r\n")[2::2])

        own = ["cluster_pool:{~}:node:pod-0", f"cluster_pool:{{~}}:start:{shard.start_name}"]
        await eventually(lambda: shard.subscriptions._former is None)
        assert channels() == own
        heard = one.statistics()["heard"]
        await eventually(lambda: one.statistics()["heard"] > heard + 2)
        assert one.statistics()["generation"] == 1


@async_test
async def test_a_node_id_in_use_is_refused(backend: Backend) -> None:
    """A second node with the id of a live one does not start."""
    async with backend.pools(1) as (one,):
        with pytest.raises(NodeIdTakenError):
            async with Pool(
                backend.redis(), node_id="node-1", prefix=backend.prefix, timing=one.timing
            ):
                pass
        assert one.ready


@async_test
async def test_callers_that_wait_for_a_lease_do_not_speed_it_up(backend: Backend) -> None:
    """While heartbeats are refused they come at their usual interval, however many callers wait."""
    async with backend.pools(1) as (one,):
        await one.host("n", "alice")
        registry = one._parts.backplane.leases
        asked = 0

        async def refuse(*arguments: object) -> None:
            nonlocal asked
            asked += 1
            raise BackplaneUnavailableError("refused")

        join, heartbeat = registry.join, registry.heartbeat
        registry.join = registry.heartbeat = refuse  # type: ignore[method-assign,assignment]
        await eventually(lambda: not one._parts.lease.held)
        asked = 0
        for at in range(40):
            with pytest.raises(BackplaneUnavailableError):
                await one.host("n", f"b{at}", timeout=0.03)
        assert asked < 15
        registry.join, registry.heartbeat = join, heartbeat  # type: ignore[method-assign]
        await eventually(lambda: one.ready)
        await eventually(lambda: one.statistics()["connections"] == 1)
