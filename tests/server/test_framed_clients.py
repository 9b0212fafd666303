"""Clients that speak ``cluster-pool.v1``: real nodes, real sockets."""

import asyncio
import base64
import itertools
import json
from collections.abc import Iterator
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from cluster_pool import Auth, ClusterPool, Connection, History, Identity, Limits, Request
from tests.server.framing import OK, V1, framed, node, url
from tests.servers import RedisServer
from tests.support import async_test, eventually
from tools.harness.nodes import NodeProcess

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    """One for all tests of this file."""
    with RedisServer("valkey") as server:
        yield server


@async_test
async def test_a_broadcast_reaches_clients_of_both_kinds_with_its_position(
    redis: RedisServer,
) -> None:
    async with (
        node(redis) as (pool, server),
        framed(server, "json") as client,
        connect(url(server, "raw")) as raw,
    ):
        assert raw.subprotocol is None
        assert client.welcome == {"id": "json", "ns": "room"}
        await pool.broadcast_message("room", 'he said "ä"')
        await pool.broadcast_message("room", b"\0\1")
        first, second = await client.read(), await client.read()
        epoch, _, number = first.pop("p").partition(".")
        assert first == {"ns": "room", "m": 'he said "ä"'}
        assert second == {
            "ns": "room",
            "b": base64.b64encode(b"\0\1").decode(),
            "p": f"{epoch}.{int(number) + 1}",
        }
        assert await raw.recv() == 'he said "ä"'
        assert await raw.recv() == b"\0\1"


@async_test
async def test_messages_to_one_client_have_no_position(redis: RedisServer) -> None:
    async with node(redis) as (pool, server), framed(server, "one") as client:
        assert await pool.send("room", "one", "here")
        assert await client.read() == {"ns": "room", "m": "here"}
        with redis.sync_client() as plain:
            plain.publish("cluster_pool:{room}", "plain")
        assert await client.read() == {"ns": "room", "m": "plain"}


@async_test
async def test_messages_to_a_user_say_so(redis: RedisServer) -> None:
    def known(request: Request) -> Identity:
        return Identity(user="42", namespaces=["*"])

    async with (
        node(redis, auth=Auth(authenticate=known)) as (pool, server),
        framed(server, "one") as client,
    ):
        assert await pool.send_user("42", "to you", confirm=True)
        assert await client.read() == {"ns": "~user:42", "m": "to you"}


@async_test
async def test_positions_are_those_of_the_history(redis: RedisServer) -> None:
    """Where one is recorded; it names the client that published a message, too."""
    async with (
        node(redis, history={"room:*": History()}) as (pool, server),
        framed(server, "one", "room:7") as client,
    ):
        await pool.broadcast_message("room:7", "a")
        await pool.broadcast_message("room:7", "b", exclude_users=["42"])
        frames = [await client.read(), await client.read()]
        assert await client.ask(publish="room:7", m="c") == OK
        last = await pool.position("room:7")
        past = await pool.history("room:7")
        assert [one.position for one in past] == [*(frame["p"] for frame in frames), last]
        assert [one.id for one in past] == ["", "", "one"]
        assert past[2].message == "c"


@async_test
async def test_messages_that_exclude_others_have_a_position(redis: RedisServer) -> None:
    async with node(redis) as (pool, server), framed(server, "one") as client:
        await pool.broadcast_message("room", "a", exclude=["two"])
        await pool.broadcast_message("room", "b", exclude_users=["42"])
        await pool.broadcast_message("room", "c", exclude=["one"])
        await pool.broadcast_message("room", "d")
        frames = [await client.read() for _ in range(3)]
        numbers = [int(frame["p"].partition(".")[2]) for frame in frames]
        assert [frame["m"] for frame in frames] == ["a", "b", "d"]
        assert numbers == [numbers[0], numbers[0] + 1, numbers[0] + 3]


@async_test
async def test_many_messages_at_once_keep_their_order_and_their_positions(
    redis: RedisServer,
) -> None:
    """They are batched into few envelopes and few writes."""
    async with (
        node(redis) as (pool, server),
        node(redis, "b") as (_, second),
        framed(server, "one") as client,
        framed(second, "two") as other,
    ):
        sends = [pool.broadcast_message("room", str(number)) for number in range(500)]
        await asyncio.gather(*sends)
        for reader in (client, other):
            frames = [await reader.read() for _ in range(500)]
            assert [frame["m"] for frame in frames] == [str(number) for number in range(500)]
            numbers = [int(frame["p"].partition(".")[2]) for frame in frames]
            assert numbers == list(range(numbers[0], numbers[0] + 500))


@async_test
async def test_published_messages_name_their_client_on_every_node(redis: RedisServer) -> None:
    async with (
        node(redis) as (_, first),
        node(redis, "b") as (_, second),
        framed(first, "writer") as writer,
        framed(second, "reader") as reader,
        connect(url(second, "raw")) as raw,
    ):
        await writer.socket.send('{"publish": "room", "m": "hi", "ref": 1}')
        got = [await writer.read(), await writer.read()]
        message = next(frame for frame in got if "ns" in frame)
        assert {"ref": 1, "ok": True} in got
        assert message.pop("p")
        assert message == {"ns": "room", "m": "hi", "from": {"id": "writer"}}
        assert (await reader.read())["from"] == {"id": "writer"}
        assert await raw.recv() == "hi"


@async_test
async def test_a_client_joins_and_leaves(redis: RedisServer) -> None:
    async with node(redis) as (pool, server), framed(server, "one") as client:
        assert await client.ask(join="room:7") == OK
        assert await pool.send("room:7", "one", "there")
        assert await client.read() == {"ns": "room:7", "m": "there"}
        assert await client.ask(leave="room:7") == OK
        assert not await pool.send("room:7", "one", "gone")


# -- the handshake -------------------------------------------------------------------------


@async_test
async def test_messages_before_the_handshake_is_answered_come_behind_the_welcome(
    redis: RedisServer,
) -> None:
    """Another node sends all the time, between the claim and the answer, too: none is missing."""
    async with node(redis) as (_, server), node(redis, "b") as (other, _):

        async def send_on() -> None:
            for number in itertools.count():
                await other.broadcast_message("room", str(number))

        sending = asyncio.create_task(send_on())
        for number in range(30):
            async with framed(server, f"new-{number}") as client:
                got = [int((await client.read())["m"]) for _ in range(20)]
            assert got == list(range(got[0], got[0] + 20))
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)


@async_test
async def test_an_application_gets_messages_as_they_are(redis: RedisServer) -> None:
    """With an application nothing speaks the protocol: it is not offered as if it were."""

    async def echo(pool: ClusterPool, connection: Connection) -> None:
        async for message in connection:
            await connection.send(message)

    async with (
        node(redis, app=echo) as (_, server),
        connect(url(server, "one"), subprotocols=[V1]) as client,
    ):
        assert client.subprotocol is None
        await client.send('{"join": "x"}')
        assert await client.recv() == '{"join": "x"}'


@async_test
async def test_the_protocol_is_spoken_beside_those_of_the_settings(redis: RedisServer) -> None:
    other: Any = "chat"
    third: Any = "graphql"
    async with node(redis, subprotocols=["chat"]) as (_, server):
        async with connect(url(server, "a"), subprotocols=[V1]) as client:
            assert client.subprotocol == V1
        async with connect(url(server, "b"), subprotocols=[V1, other]) as client:
            assert client.subprotocol == other
        with pytest.raises(InvalidStatus):
            async with connect(url(server, "c"), subprotocols=[third]):
                pass


# -- odd frames ----------------------------------------------------------------------------

ODD = [
    *("", "x", "[]", "3", "null", "{}", '{"join": "a"', '{"x": NaN, "join": "a"}', "[" * 100_000),
    *(
        '{"join": "\\ud800"}',
        '{"ref": true, "join": "a"}',
        '{"join": 3}',
        '{"a": ' + "9" * 5000 + "}",
    ),
]


@async_test
async def test_odd_frames_are_answered_or_counted_and_harm_nothing(redis: RedisServer) -> None:
    async with node(redis) as (pool, server):
        for odd in ODD:
            async with framed(server, "odd") as client:
                await client.socket.send(odd)
                assert await client.ask(join="room:7") == OK, odd
                assert pool.get_connection("room", "odd") is not None
        assert pool.counters.client_requests_refused == len(ODD)
        async with framed(server, "odd") as client:
            assert await client.error(x=1) == "invalid"
            assert await client.error(join="a", leave="b") == "invalid"
            assert await client.error(publish="room", m="\ud800") == "invalid"


@async_test
async def test_the_tenth_frame_that_is_no_request_closes(redis: RedisServer) -> None:
    async with node(redis) as (_, server), framed(server, "odd") as client:
        for _ in range(9):
            await client.socket.send("x")
        for _ in range(20):
            assert await client.error(x=1) == "invalid"  # those with a ref do not count
        await client.socket.send("x")
        assert (await client.closed())[0] == 1008


@async_test
async def test_refused_requests_hold_up_nobody(redis: RedisServer) -> None:
    """Those that came together are answered in many turns of the loop."""
    async with node(redis) as (pool, server), framed(server, "one") as client:
        client.socket.transport.set_write_buffer_limits(high=10**6)
        protocol = client.socket.protocol
        for number in range(60):
            protocol.send_text(f'{{"dance": 1, "ref": {number}}}'.encode())
        client.socket.transport.write(b"".join(protocol.data_to_send()))
        most = before = 0
        async with asyncio.timeout(30):
            while before < 60:
                await asyncio.sleep(0)
                now = pool.counters.client_requests_refused
                most, before = max(most, now - before), now
        assert most < 10


@async_test
async def test_binary_frames_close(redis: RedisServer) -> None:
    async with node(redis) as (_, server), framed(server, "odd") as client:
        await client.socket.send(b'{"join": "a"}')
        assert (await client.closed())[0] == 1003


# -- sizes ---------------------------------------------------------------------------------

SIZE = 2**21
SMALL_OUTBOX = Limits(message_bytes=SIZE, outbox_bytes=SIZE)
GROWING = ["\x01" * SIZE, bytes(SIZE), "\x01" * (SIZE // 2) + "x" * (SIZE // 2), "x" * SIZE]


@async_test
async def test_the_largest_message_arrives_however_much_its_frame_grows(
    redis: RedisServer,
) -> None:
    """A client that begins to read late: the kernel keeps a third of the largest one at most."""
    async with node(redis, limits=SMALL_OUTBOX) as (pool, server):
        for message in GROWING:
            async with framed(server, "one", max_size=None) as client:
                connection = pool.get_connection("room", "one")
                assert connection is not None
                client.socket.transport.pause_reading()
                assert await pool.broadcast_message("room", message)
                await asyncio.sleep(0.1)
                assert not connection.closed
                client.socket.transport.resume_reading()
                frame = await client.read()
                got = frame["m"] if "m" in frame else base64.b64decode(frame["b"])
                assert got == message


@async_test
async def test_a_client_that_does_not_read_is_closed_all_the_same(redis: RedisServer) -> None:
    async with node(redis, limits=SMALL_OUTBOX) as (pool, server):
        for size, count in ((200, 200), (SIZE, 1)):
            async with framed(server, "slow", max_size=None, ping_interval=None) as client:
                connection = pool.get_connection("room", "slow")
                assert connection is not None
                client.socket.transport.pause_reading()
                sent = 0
                while not connection.closed:
                    message = "\x01" * size
                    await asyncio.gather(
                        *(pool.broadcast_message("room", message) for _ in range(count))
                    )
                    sent += 6 * size * count
                    assert sent < 100_000_000
                assert connection.close_code == 1013


@async_test
async def test_the_largest_message_may_be_published_however_much_its_frame_grows(
    redis: RedisServer,
) -> None:
    async with (
        node(redis, limits=SMALL_OUTBOX) as (_, server),
        framed(server, "one", max_size=None) as client,
        connect(url(server, "raw"), max_size=None) as raw,
    ):
        for message in GROWING:
            content: dict[str, Any] = {"m": message}
            if isinstance(message, bytes):
                content = {"b": base64.b64encode(message).decode()}
            assert await client.ask(publish="room", **content) == OK
            assert await raw.recv() == message
        assert await client.error(publish="room", m="x" * (SIZE + 1)) == "too_large"
        assert await client.error(publish="room", m="\x01" * (SIZE + 1)) == "too_large"


@async_test
async def test_a_frame_that_no_permitted_message_needs_closes(redis: RedisServer) -> None:
    limits = Limits(message_bytes=1024)
    async with node(redis, limits=limits) as (_, server), framed(server, "one") as client:
        assert await client.error(publish="room", m="x" * 60_000) == "too_large"
        await client.socket.send('"' + "x" * 100_000 + '"')
        assert (await client.closed())[0] == 1009


@async_test
async def test_frames_are_compressed_for_clients_that_can(redis: RedisServer) -> None:
    async with (
        node(redis, compression=True) as (pool, server),
        framed(server, "one", compression="deflate") as client,
        framed(server, "two", compression="deflate") as other,
        framed(server, "plain") as plain,
    ):
        assert client.socket.protocol.extensions
        long = "long " * 1000
        await pool.broadcast_message("room", long)
        await pool.broadcast_message("room", "short")
        for one in (client, other, plain):
            assert [(await one.read())["m"] for _ in range(2)] == [long, "short"]
        assert await client.ask(publish="room", m=long) == OK
        assert (await other.read())["m"] == long


@async_test
async def test_a_node_process_serves_large_messages_to_clients_of_both_kinds(
    redis: RedisServer,
) -> None:
    """On uvloop, and with the options of the command line."""
    rule = ("--namespace-rule", "room=publish", "--message-bytes", "300000")
    rate = {"CLUSTER_POOL_PUBLISHED_PER_SECOND": "3"}
    with (
        NodeProcess(redis.url, *rule, "--outbox-bytes", "300000", environment=rate) as first,
        NodeProcess(redis.url, *rule) as second,
    ):
        large: Any = {"max_size": None, "compression": None}
        async with (
            connect(first.url("room", "one"), subprotocols=[V1], **large) as one,
            connect(second.url("room", "raw"), **large) as raw,
            connect(second.url("room", "two"), subprotocols=[V1], **large) as two,
        ):
            for reader in (one, two):
                assert "welcome" in json.loads(await reader.recv())
            message = "\x01" * 300_000
            await one.send(json.dumps({"publish": "room", "m": message}))
            assert await raw.recv() == message
            for reader in (one, two):
                frame = json.loads(await reader.recv())
                assert (frame["m"], frame["from"]) == (message, {"id": "one"})
            for ref in range(9):
                await one.send(json.dumps({"publish": "room", "m": "x", "ref": ref}))
            answers = []
            while len(answers) < 9:
                frame = json.loads(await one.recv())
                answers += [frame.get("error")] if "ref" in frame else []
            assert answers[0] is None
            assert "rate" in answers


# -- ends ----------------------------------------------------------------------------------


@async_test
async def test_a_kick_comes_behind_the_messages(redis: RedisServer) -> None:
    async with node(redis) as (pool, server), framed(server, "one") as client:
        await pool.send_then_close("room", "one", "bye", 4000, "go")
        assert await client.read() == {"ns": "room", "m": "bye"}
        assert await client.closed() == (4000, "go")


@async_test
async def test_a_lost_membership_is_told_and_the_home_closes(redis: RedisServer) -> None:
    async with node(redis) as (pool, server), framed(server, "one") as client:
        assert await client.ask(join="room:7") == OK
        await pool.remove_all("room:7")
        assert await client.read() == {"left": "room:7", "cause": "removed"}
        assert await client.ask(join="room:7") == OK
        async with framed(server, "one", "elsewhere") as second:
            assert await second.ask(join="room:7") == OK
            assert await client.read() == {"left": "room:7", "cause": "taken over"}
        async with framed(server, "one"):
            assert (await client.closed())[0] == 4409


@async_test
async def test_leaving_home_is_answered_and_closes(redis: RedisServer) -> None:
    async with node(redis) as (_, server), framed(server, "one") as client:
        assert await client.ask(leave="elsewhere") == OK
        assert await client.ask(leave="room") == OK
        assert await client.closed() == (1000, "")


@async_test
async def test_a_drain_closes_with_1012_behind_its_message(redis: RedisServer) -> None:
    async with node(redis) as (pool, server), framed(server, "one") as client:
        draining = asyncio.create_task(pool.drain_connections(100, "moving", grace=5))
        assert (await client.read())["m"] == "moving"
        assert (await client.closed())[0] == 1012
        await draining


@async_test
async def test_requests_to_a_connection_that_is_closing_are_not_carried_out(
    redis: RedisServer,
) -> None:
    async with (
        node(redis) as (pool, server),
        framed(server, "one") as client,
        connect(url(server, "raw")) as raw,
    ):
        connection = pool.get_connection("room", "one")
        assert connection is not None
        client.socket.transport.pause_reading()
        closing = asyncio.create_task(connection.close(4000))
        await eventually(lambda: connection.closed)
        await client.socket.send('{"publish": "room", "m": "late"}')
        client.socket.transport.resume_reading()
        with pytest.raises(ConnectionClosed):
            await client.socket.recv()
        await closing
        await pool.broadcast_message("room", "next")
        assert await raw.recv() == "next"
