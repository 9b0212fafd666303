"""The promises of a cluster of pools, on fakeredis and on every real server."""

import asyncio
import contextlib
import shutil
from enum import Enum
from typing import Any

import pytest

from cluster_pool import (
    ClusterPool,
    ClusterPoolError,
    Connection,
    ConnectionClosedError,
    IdTakenError,
    InvalidCloseError,
    InvalidIdError,
    InvalidMessageError,
    InvalidNamespaceError,
    InvalidValueError,
    Limits,
    Member,
    MessageTooLargeError,
    NodeDrainingError,
    PendingLimitError,
    PoolClosedError,
    SendResult,
    Timing,
)
from cluster_pool.core import envelope
from cluster_pool.local.handshake import hold, release_hold
from cluster_pool.testing import FAST, FakeWebSocket
from tests.clusters import Backend, Pool
from tests.servers import RedisServer
from tests.support import async_test, eventually


@async_test
async def test_send_reaches_the_owner_on_another_node(backend: Backend) -> None:
    """A message for a member of another node arrives there, and nowhere else."""
    async with backend.pools() as (one, two):
        alice = await one.host("default", "alice")
        bob = await two.host("default", "bob")
        assert await one.send("default", "bob", "hello") is SendResult.ROUTED
        assert await bob.wait_sent() == ["hello"]
        assert alice.sent == []


@async_test
async def test_send_to_a_member_of_this_node_is_delivered_without_redis(backend: Backend) -> None:
    """A local send answers DELIVERED and publishes nothing."""
    async with backend.pools(1) as (one,):
        alice = await one.host("default", "alice")
        assert await one.send("default", "alice", b"\x00\x01") is SendResult.DELIVERED
        assert await alice.wait_sent() == [b"\x00\x01"]
        assert one.statistics()["published"] == 0


@async_test
async def test_broadcast_reaches_every_member_on_every_node(backend: Backend) -> None:
    """Everyone but the excluded gets a broadcast once; other namespaces hear nothing."""
    async with backend.pools(3) as pools:
        members = [await pool.host("default", f"m{at}") for at, pool in enumerate(pools)]
        outsider = await pools[0].host("other", "m9")
        assert await pools[1].broadcast_message("default", "all") == 3
        await pools[1].broadcast_message("default", "some", exclude=["m0"])
        for member in members[1:]:
            assert await member.wait_sent(2) == ["all", "some"]
        await pools[1].broadcast_message("default", b"last")
        assert await members[0].wait_sent(2) == ["all", b"last"]
        assert outsider.sent == []


@async_test
async def test_broadcast_to_an_empty_namespace_returns_zero(backend: Backend) -> None:
    """Zero is returned when no node has a member there."""
    async with backend.pools() as (one, two):
        await two.host("default", "bob")
        assert await one.broadcast_message("empty", "x") == 0


@async_test
async def test_redis_cli_publish_reaches_every_member(backend: Backend) -> None:
    """A user's own PUBLISH is text if it is UTF-8, else binary; 0xC1 0x00 marks binary."""
    async with backend.pools() as (one, two):
        alice, bob = await one.host("default", "alice"), await two.host("default", "bob")
        channel = f"{backend.prefix}:{{default}}"
        payloads = ("Hello world!", "", "grüß dich", b"\xff\xfe", b"\xc1\x00text", b"\xc1\x00")
        for payload in payloads:
            assert await backend.publish(channel, payload) == 2
        for member in (alice, bob):
            assert await member.wait_sent(len(payloads)) == [
                "Hello world!",
                "",
                "grüß dich",
                b"\xff\xfe",
                b"text",
                b"",
            ]


@async_test
async def test_order_of_targeted_and_broadcast_together(backend: Backend) -> None:
    """Messages of all kinds from one node to one connection arrive in the order of the calls."""
    async with backend.pools(timing=Timing(timeout=20)) as (one, two):
        local, remote = await one.host("n", "local"), await two.host("n", "remote")
        calls = []
        for number in range(0, 300, 3):
            calls.append(one.send("n", "local", str(number)))
            calls.append(one.send("n", "remote", str(number)))
            calls.append(one.broadcast_message("n", str(number + 1)))
            calls.append(one.send("n", "local", str(number + 2)))
            calls.append(one.send("n", "remote", str(number + 2)))
        await asyncio.gather(*calls)
        expected = [str(number) for number in range(300)]
        assert await local.wait_sent(300, 20) == expected
        assert await remote.wait_sent(300, 20) == expected


@async_test
async def test_a_local_send_does_not_overtake_an_earlier_broadcast(backend: Backend) -> None:
    """After an awaited broadcast, a send to a member of this node comes behind it."""
    async with backend.pools(1) as (one,):
        alice = await one.host("n", "alice")
        for number in range(0, 40, 2):
            await one.broadcast_message("n", str(number))
            await one.send("n", "alice", str(number + 1))
        assert await alice.wait_sent(40) == [str(number) for number in range(40)]


@async_test
async def test_alternating_sends_and_broadcasts_need_few_round_trips(backend: Backend) -> None:
    """Runs of one kind follow each other on the link; none waits for the answer to the one before.

    With a wait for each, the proxy's 20 ms would make it 600 × 40 ms.
    """
    if backend.server is None:
        pytest.skip("there is no link to delay")
    async with (
        backend.server.network() as proxy,
        backend.pools(1) as (one,),
        Pool(proxy.url, node_id="far", prefix=backend.prefix) as far,
    ):
        alice = await one.host("n", "alice")
        proxy.delay = 0.02
        calls = [
            far.broadcast_message("n", str(at)) if at % 2 else far.send("n", "alice", str(at))
            for at in range(600)
        ]
        results = await asyncio.gather(*calls)
        proxy.heal()
        assert all(results)
        assert await alice.wait_sent(600) == [str(at) for at in range(600)]


@async_test
async def test_a_local_send_waits_for_every_send_before_it(backend: Backend) -> None:
    """A send to an own connection that went over Redis keeps its place after a send elsewhere."""
    async with backend.pools() as (one, two):
        alice = await one.host("n", "alice")
        await two.host("n", "bob")
        for at in range(0, 200, 4):
            broadcast = one.broadcast_message("n", str(at), exclude=["bob"])
            routed = one.send("n", "alice", str(at + 1))
            elsewhere = one.send("n", "bob", "x")
            await asyncio.gather(broadcast, routed, elsewhere)
            await one.send("n", "bob", "x")
            await one.send("n", "alice", str(at + 2))
            await one.send("n", "alice", str(at + 3))
        assert await alice.wait_sent(200) == [str(at) for at in range(200)]


@async_test
async def test_broadcasts_have_one_order_for_all(backend: Backend) -> None:
    """Members on different nodes see concurrent broadcasts of two senders in the same order."""
    async with backend.pools() as (one, two):
        alice, bob = await one.host("n", "alice"), await two.host("n", "bob")
        await asyncio.gather(
            *[
                pool.broadcast_message("n", f"{pool.node_id} {at}")
                for at in range(50)
                for pool in (one, two)
            ]
        )
        await alice.wait_sent(100)
        await bob.wait_sent(100)
        assert alice.sent == bob.sent


@async_test
async def test_only_interested_nodes_receive(backend: Backend) -> None:
    """A node without members of a namespace hears nothing of its broadcasts."""
    async with backend.pools() as (one, two):
        await one.host("here", "alice")
        await two.host("there", "bob")
        heard = two.statistics()["heard"]
        assert await one.broadcast_message("here", "x") == 1
        await eventually(lambda: one.statistics()["delivered"] == 1)
        probes = 3
        assert two.statistics()["heard"] - heard <= probes


@async_test
async def test_takeover_closes_the_older_connection_on_its_node(backend: Backend) -> None:
    """The newer connection owns the id; the older is closed with 4409 and its release is void."""
    async with backend.pools() as (one, two):
        seen: list[Connection] = []
        one.on("takeover", seen.append)
        older = await one.host("n", "alice")
        newer = await two.host("n", "alice")
        assert (await older.wait_closed())[0] == 4409
        await one.remove_connection(older.connection)
        assert await one.locate("n", "alice") == Member("alice", "node-2")
        assert await two.count("n") == 1
        assert await one.send("n", "alice", "to the newer") is SendResult.ROUTED
        assert await newer.wait_sent() == ["to the newer"]
        assert seen == [older.connection]
        assert newer.closed is None


@async_test
async def test_takeover_on_the_same_node(backend: Backend) -> None:
    """Two connections of one node with one id: the newer one stays, counted once."""
    async with backend.pools(1) as (one,):
        older = await one.host("n", "alice")
        newer = await one.host("n", "alice")
        assert (await older.wait_closed())[0] == 4409
        assert await one.send("n", "alice", "x")
        assert await newer.wait_sent() == ["x"]
        assert older.sent == []
        assert await one.count("n") == 1
        assert one.statistics()["connections"] == 1
        assert one.statistics()["taken_over"] == 1


@async_test
async def test_reject_leaves_the_older_connection_alone(backend: Backend) -> None:
    """With on_conflict="reject" the newcomer gets IdTakenError, and nothing changes."""
    async with backend.pools(on_conflict="reject") as (one, two):
        alice = await one.host("n", "alice")
        with pytest.raises(IdTakenError) as caught:
            await two.host("n", "alice")
        assert (caught.value.namespace, caught.value.id) == ("n", "alice")
        assert await two.send("n", "alice", "still")
        assert await alice.wait_sent() == ["still"]
        assert alice.closed is None
        await two.host("n", "alice", on_conflict="takeover")
        assert (await alice.wait_closed())[0] == 4409


@async_test
async def test_many_claims_of_one_id_leave_one_owner(backend: Backend) -> None:
    """Claims that race for one id end with one member and all others closed with 4409."""
    async with backend.pools(3) as pools:

        async def claim(pool: Pool, socket: FakeWebSocket) -> None:
            with contextlib.suppress(ConnectionClosedError):  # it lost before it had begun
                await pool.new_connection(Connection("alice", "n", socket))

        joined = [FakeWebSocket() for _ in range(30)]
        await asyncio.gather(*[claim(pools[at % 3], socket) for at, socket in enumerate(joined)])
        await eventually(lambda: sum(socket.closed is None for socket in joined) == 1)
        assert {socket.closed for socket in joined} == {None, (4409, "taken over")}
        assert await pools[0].count("n") == 1
        assert sum(pool.statistics()["connections"] for pool in pools) == 1
        assert await pools[0].send("n", "alice", "x")
        (owner,) = [socket for socket in joined if socket.closed is None]
        assert await owner.wait_sent() == ["x"]


@async_test
async def test_last_one_callback_is_cluster_wide(backend: Backend) -> None:
    """It fires for the release that emptied the namespace in the whole cluster, and once."""
    async with backend.pools() as (one, two):
        emptied: list[str] = []

        async def note() -> None:
            emptied.append("two")

        alice, bob = await one.host("n", "alice"), await two.host("n", "bob")
        await one.remove_connection(alice.connection, lambda: emptied.append("one"))
        assert emptied == []
        await two.remove_connection(bob.connection, note)
        await two.remove_connection(bob.connection, note)
        assert emptied == ["two"]


@async_test
async def test_last_one_callback_after_a_close(backend: Backend) -> None:
    """A connection that was closed by the pool still tells whether it was the last one."""
    async with backend.pools(1) as (one,):
        emptied: list[str] = []
        alice = await one.host("n", "alice")
        await one.close("n", "alice", 1000, "bye")
        assert await alice.wait_closed() == (1000, "bye")
        await one.remove_connection(alice.connection, lambda: emptied.append("x"))
        assert emptied == ["x"]


@async_test
async def test_bad_input_is_refused_at_the_door(backend: Backend) -> None:
    """Every argument is checked before anything is sent, with the error that names it."""
    async with backend.pools(1, limits=Limits(message_bytes=100)) as (one,):
        cases = [
            (InvalidIdError, one.send("n", "", "x")),
            (InvalidIdError, one.send("n", "a\nb", "x")),
            (InvalidIdError, one.send("n", "a" * 257, "x")),
            (InvalidIdError, one.send("n", "\ud800", "x")),
            (InvalidNamespaceError, one.send("{n}", "a", "x")),
            (InvalidNamespaceError, one.broadcast_message("~", "x")),
            (InvalidNamespaceError, one.count(7)),  # type: ignore[arg-type]
            (InvalidMessageError, one.send("n", "a", 5)),  # type: ignore[arg-type]
            (InvalidMessageError, one.send("n", "a", "\udc00")),
            (InvalidMessageError, one.send_json("n", "a", float("nan"))),
            (InvalidCloseError, one.close("n", "a", 1005)),
            (InvalidCloseError, one.close_all("n", 999)),
            (InvalidCloseError, one.close("n", "a", 1000, "ü" * 62)),
            (InvalidValueError, one.send("n", "a", "x", timeout=0)),
            (MessageTooLargeError, one.send("n", "a", "x" * 101)),
            (MessageTooLargeError, one.broadcast_message("n", b"x" * 101)),
        ]
        for error, call in cases:
            with pytest.raises(error):
                await call
        assert one.statistics()["published"] == 0


class Room(str, Enum):  # noqa: UP042  # formats otherwise than a StrEnum
    """The kind of enumeration that FastAPI advises for path parameters."""

    NODE = "node"
    LOBBY = "lobby"
    ALICE = "alice"
    HELLO = "hello"


@async_test
async def test_an_enum_of_str_is_its_text_everywhere(backend: Backend) -> None:
    """``class Room(str, Enum)`` formats as "Room.LOBBY"; no channel or key may contain that."""
    options: dict[str, Any] = {"timing": FAST, "prefix": backend.prefix}
    async with (
        ClusterPool(backend.redis(), node_id=Room.NODE, **options) as a,
        ClusterPool(backend.redis(), node_id="other", **options) as b,
    ):
        ends = FakeWebSocket(), FakeWebSocket()
        async with b.watching(Room.LOBBY) as events:
            await a.new_connection(Connection(Room.ALICE, Room.LOBBY, ends[0]))
            assert (await anext(events)).id == "alice"
        await b.new_connection(Connection("bob", "lobby", ends[1]))
        for pool in (a, b):
            assert await pool.send(Room.LOBBY, Room.ALICE, Room.HELLO, confirm=True)
            await pool.send_nowait(Room.LOBBY, Room.ALICE, Room.HELLO)
            assert await pool.broadcast_message(Room.LOBBY, "all", [Room.ALICE]) == 2
            assert await pool.locate(Room.LOBBY, Room.ALICE) == Member("alice", "node")
            assert await pool.count(Room.LOBBY) == 2
            assert {one.id async for one in pool.members(Room.LOBBY)} == {"alice", "bob"}
        await eventually(lambda: ends[0].sent == ["hello"] * 4 and ends[1].sent == ["all"] * 2)
        await b.drain_node(Room.NODE, 100.0, "bye", announce=0.01)
        await eventually(lambda: ends[0].closed)
        assert await a.send_then_close(Room.LOBBY, "bob", "x", 4000, Room.HELLO, confirm=True)
        await eventually(lambda: ends[1].closed == (4000, "hello"))
        assert backend.keys_of("Room.LOBBY}:members") == []


@async_test
async def test_a_draining_node_takes_no_newcomers(backend: Backend) -> None:
    """After a drain everyone is closed with 1012 and released, and newcomers are refused."""
    async with backend.pools(2) as (one, two):
        sockets = [await one.host("n", f"m{at}") for at in range(20)]
        report = await one.drain_connections(max_per_second=200, message="bye")
        assert report.closed == 20
        for socket in sockets:
            assert socket.sent == ["bye"]
            assert socket.closed is not None
            assert socket.closed[0] == 1012
        with pytest.raises(NodeDrainingError):
            await one.host("n", "new")
        assert await two.count("n") == 0


@async_test
async def test_a_stopped_pool_raises_pool_closed_error(backend: Backend) -> None:
    """Operations raise it before the start and after the stop."""
    async with backend.pools(1) as (one,):
        pass
    with pytest.raises(PoolClosedError):
        await one.send("n", "a", "x")
    with pytest.raises(PoolClosedError):
        await one.host("n", "a")


@async_test
async def test_stop_closes_connections_and_leaves_nothing(backend: Backend) -> None:
    """A clean stop closes with 1012 and its members are gone at once."""
    async with backend.pools(2) as (one, two):
        alice = await one.host("n", "alice")
        await one.stop()
        assert (await alice.wait_closed())[0] == 1012
        assert await two.count("n") == 0
        assert [node.id for node in await two.nodes()] == ["node-2"]


@async_test
async def test_garbage_on_our_channels_is_counted_and_dropped(backend: Backend) -> None:
    """Broken envelopes on any channel do not stop the node."""
    async with backend.pools() as (one, two):
        bob = await two.host("n", "bob")
        garbage = [
            b"\xc1",
            b"\xc1\x02x",
            b"\xc1\x01no header",
            b"\xc1\x01a b c d\n\x90",
            b"\xc1\x011 1 1 x 1\n\xc1",
            b"\xc1\x011 2 1 x 1\n\x93\x01\xc4",
            b"\xc1\x011 3 1 x 1\n\x91\x63",
            b"\xc1\x011 4 1 x 1\n" + b"\x80" * 1000,
            b"\xc1\x011 5 1 x 1\n\x93\x01\xc4\x01\xff\x90",
            b"\xc1\x011 6 1 x 1\n\x92\xa0\x94\x01\xa1n\xa3bob\xc4\x01\xff",
        ]
        for payload in garbage:
            await backend.publish(f"{backend.prefix}:{{n}}", payload)
            await backend.publish(backend.routed_channel("n", two), payload)
        await backend.publish(backend.routed_channel("n", two), "raw")
        assert await one.send("n", "bob", "alive", confirm=True) is SendResult.DELIVERED
        assert await one.broadcast_message("n", "alive") == 1
        assert await bob.wait_sent(2) == ["alive", "alive"]
        assert two.statistics()["dropped_garbage"] >= 2 * len(garbage) - 2


@async_test
async def test_messages_before_garbage_in_an_envelope_arrive(backend: Backend) -> None:
    """Good messages are not lost because of a bad one behind them."""
    async with backend.pools(1) as (one,):
        alice = await one.host("n", "alice")
        good = envelope.broadcast(True, b"good")
        bad = envelope.pack((99, b"bad"))
        head = b"\xc1\x011 3 3 x 1\n"
        await backend.publish(f"{backend.prefix}:{{n}}", head + good + good + bad)
        assert await alice.wait_sent(2) == ["good", "good"]
        await eventually(lambda: one.statistics()["dropped_garbage"] == 1)


@async_test
async def test_an_oversize_raw_publish_is_dropped_and_counted(backend: Backend) -> None:
    """A user's PUBLISH above the message limit does not reach anyone."""
    async with backend.pools(1, limits=Limits(message_bytes=1000)) as (one,):
        alice = await one.host("n", "alice")
        await backend.publish(f"{backend.prefix}:{{n}}", "x" * 1001)
        await backend.publish(f"{backend.prefix}:{{n}}", "y" * 1000)
        assert await alice.wait_sent() == ["y" * 1000]
        assert one.statistics()["dropped_oversize"] == 1


@async_test
async def test_inbound_is_published_as_json(backend: Backend) -> None:
    """A client's message goes to the inbound channel with its id and node."""
    channel = f"{backend.prefix}:{{n}}:inbound"
    async with backend.pools(1) as (one,), backend.listening(channel) as heard:
        alice = await one.host("n", "alice")
        assert await one.publish_inbound(alice.connection, "hi") == 1
        assert await heard.get() == (channel, b'{"id":"alice","node":"node-1","text":"hi"}')
        await one.publish_inbound(alice.connection, b"\xff")
        assert await heard.get() == (channel, b'{"id":"alice","node":"node-1","binary":"/w=="}')
        with pytest.raises(InvalidMessageError):
            await one.publish_inbound(alice.connection, "\ud800")


@async_test
async def test_a_command_that_cannot_be_packed_does_not_affect_others(backend: Backend) -> None:
    """Later replies reach the right callers."""
    async with backend.pools(1) as (one,):
        await one.host("n", "alice")
        commands = one._parts.backplane.shard.commands
        assert commands is not None
        with pytest.raises(UnicodeEncodeError):
            commands.call("PUBLISH", backend.prefix, "\ud800")
        assert await commands.call("PING") in (b"PONG", "PONG")
        assert await one.count("n") == 1


@async_test
async def test_a_connection_may_leave_and_come_again(backend: Backend) -> None:
    """The same object is a member once at a time, and is released each time."""
    async with backend.pools(1) as (one,):
        alice = await one.host("n", "alice")
        for _ in range(2):
            with pytest.raises(ClusterPoolError, match="already"):
                await one.new_connection(alice.connection)
            emptied: list[int] = []
            await one.remove_connection(alice.connection, lambda: emptied.append(1))  # noqa: B023  # awaited here
            assert emptied == [1]
            assert await one.count("n") == 0
            await one.new_connection(alice.connection)
            assert await one.send("n", "alice", "x") is SendResult.DELIVERED


@async_test
async def test_a_full_outbox_refuses_a_send_and_its_sender_is_told(backend: Backend) -> None:
    """With confirm a sender on another node learns that the owner refused."""
    limits = Limits(outbox_bytes=100)
    async with backend.pools(limits=limits) as (one, two):
        websocket = FakeWebSocket()
        connection = Connection("bob", "n", websocket)
        hold(connection)
        await two.new_connection(connection)
        for expected in (SendResult.DELIVERED, SendResult.REFUSED):
            assert await one.send("n", "bob", "x" * 60, confirm=True) is expected
        assert two.statistics()["refused"] == 1
        release_hold(connection)
        assert await websocket.wait_sent() == ["x" * 60]


@async_test
async def test_garbage_among_events_does_not_end_a_watch(backend: Backend) -> None:
    """A malformed event is counted and dropped; the next event comes."""
    async with backend.pools(1) as (one,), one.watching("n") as events:
        strange = b'{"event":"join","id":"","node":"x"}', b'{"event":"x","id":"a","node":"x"}'
        for payload in (b"\xff", b"[]", b'{"event":"join"}', b"nonsense", *strange):
            await backend.publish(f"{backend.prefix}:{{n}}:events", payload)
        await one.host("n", "alice")
        assert (await anext(events)).id == "alice"
        assert one.statistics()["dropped_garbage"] == 6


@pytest.mark.skipif(not shutil.which("redis-cli"), reason="redis-cli is not installed")
@async_test
async def test_redis_cli_reaches_every_member(own_server: RedisServer) -> None:
    """The command line is the one of the README."""
    backend = Backend(own_server)
    async with backend.pools() as (one, two):
        alice, bob = await one.host("default", "alice"), await two.host("default", "bob")
        command = [*own_server.cli, own_server.publish]
        process = await asyncio.create_subprocess_exec(
            *command, "cluster_pool:{default}", "Hello world!", stdout=asyncio.subprocess.PIPE
        )
        said, _ = await process.communicate()
        assert said.strip() == b"2"
        for member in (alice, bob):
            assert await member.wait_sent() == ["Hello world!"]


@async_test
async def test_the_bytes_of_waiting_sends_are_bounded(backend: Backend) -> None:
    """Above the limit a send is refused before it is queued; alone, any permitted one may wait."""
    async with backend.pools(1, limits=Limits(pending_bytes=1000)) as (one,):
        assert await one.send("n", "nobody", "x" * 5000) is SendResult.ABSENT
        results = await asyncio.gather(
            *[one.send("n", "nobody", "x" * 400) for _ in range(10)], return_exceptions=True
        )
        assert results[:2] == [SendResult.ABSENT] * 2
        assert [type(result) for result in results[2:]] == [PendingLimitError] * 8
        assert await one.send("n", "nobody", "x" * 400) is SendResult.ABSENT
