"""The client for browsers in Chromium, behind HAProxy before two nodes."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster_pool.auth.jwt import LEEWAY
from cluster_pool.exceptions import ClusterPoolError
from tests.auth.signing import token
from tests.server.pages import Rig, Socket, rig
from tests.servers import Cluster, RedisServer
from tests.support import async_test, eventually
from tools.harness.nodes import in_thread

pytestmark = [
    pytest.mark.real,
    pytest.mark.slow,
    pytest.mark.skipif(
        not (shutil.which("chromium") and shutil.which("haproxy")),
        reason="chromium or haproxy is not installed",
    ),
]


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with RedisServer("valkey") as server:
        yield server


def signed(**claims: Any) -> str:
    """Options with a token as a string."""
    return json.dumps({"token": token(**claims)})


def from_list(*tokens: str, final: str = "[]") -> str:
    """Options with an async function that gives these tokens, the last one again and again.

    How often it was called is in ``window.asked``.
    """
    listed = json.dumps(tokens)
    call = "window.asked = (window.asked ?? 0) + 1; return tokens[1] ? tokens.shift() : tokens[0];"
    return f"{{final: {final}, token: (tokens => async () => {{ {call} }})({listed})}}"


async def two_nodes(rig: Rig) -> tuple[Socket, Socket]:
    """Alice and bob in the lobby and in room:1, at different nodes."""
    alice = await rig.begin("alice", options=signed(sub="alice", id="a"))
    await eventually(alice.open, 30)
    bob = await eventually(lambda: _elsewhere(rig, "bob"), 60)
    await alice.do('join("room:1", { info: { name: "Alice" } })')
    await bob.do('join("room:1")')
    return alice, bob


async def _elsewhere(rig: Rig, name: str) -> Socket | None:
    """A socket at the node that does not have alice."""
    socket = await rig.begin(name, options=signed(sub=name, id=name[0]))
    await eventually(socket.open, 30)
    if await rig.where(name[0]) != await rig.where("a"):
        return socket
    await socket.do("close()")
    return None


@async_test
async def test_sockets_at_two_nodes_talk_in_a_room(redis: RedisServer, tmp_path: Path) -> None:
    """Text and bytes, with the sender; infos; refusals have codes; a replaced one stays away."""
    async with rig(redis, tmp_path) as cluster:
        alice, bob = await two_nodes(cluster)
        await bob.do('on("room:1", () => { throw new Error("a handler of the page") })')
        await bob.do("onmessage = () => { throw new Error('another one') }, 0")
        await alice.do('publish("room:1", "hi")')
        await alice.do('publish("room:1", new Uint8Array([0, 255, 7]))')
        source = {"id": "a", "user": "alice"}
        for one in (alice, bob):
            await eventually(lambda one=one: _count(one, "message", 2), 30)
            heard = await one.told("message")
            assert [message["data"] for message in heard] == ["hi", [0, 255, 7]]
            assert all(message["ns"] == "room:1" for message in heard)
            assert all(message["from"] == source for message in heard)
            assert len({message["position"] for message in heard}) == 2

        await alice.do("info({ types: true })")
        infos = {
            (namespace, member.id): member.info
            for namespace in ("lobby", "room:1")
            async for member in cluster.publisher.members(namespace)
        }
        assert infos["lobby", "a"] == {"types": True}
        assert infos["room:1", "a"] == {"name": "Alice"}

        assert await bob.refused('join("secret")') == "not_allowed"
        assert await bob.refused('publish("room:2", "x")') == "not_allowed"
        assert await bob.do('publish("room:1", {}).catch(error => error.name)') == "TypeError"
        await bob.do('leave("room:1")')
        assert await cluster.publisher.count("room:1") == 1
        assert await cluster.publisher.leave("lobby", "a", "room:1")
        await eventually(lambda: _count(alice, "left", 1), 30)
        (lost,) = await alice.told("left")
        assert lost["ns"] == "room:1"
        assert lost["cause"]
        assert await alice.refused('publish("room:1", "x")') == "not_allowed"

        second = await cluster.begin("second", options=signed(sub="alice", id="a"))
        await eventually(second.open, 30)
        await eventually(lambda: alice.do("isFinal"), 30)
        (closed,) = await alice.told("close")
        assert (closed["code"], closed["final"], closed["delay"]) == (4409, True, None)
        assert closed["reason"]
        assert await alice.refused('join("room:1")') == "closed"
        assert await second.open()


async def _has_lost(socket: Socket, namespace: str) -> bool:
    return any(loss["ns"] == namespace for loss in await socket.told("lost"))


async def _count(socket: Socket, type: str, count: int) -> bool:
    return len(await socket.told(type)) == count


@async_test
async def test_a_drained_node_gives_its_sockets_to_the_other(
    redis: RedisServer, tmp_path: Path
) -> None:
    """At once, with their rooms and infos; what they have lost is told, to nobody else."""
    async with rig(redis, tmp_path) as cluster:
        alice, bob = await two_nodes(cluster)
        await alice.do('info({ home: "x" })')
        old, other = await cluster.where("a"), await cluster.where("b")
        assert old is not None
        cluster.fleet.nodes[old].signal(signal.SIGTERM)
        status, log = await in_thread(cluster.fleet.nodes[old].finish)
        assert status == 0, log
        await eventually(lambda: _count(alice, "lost", 2), 30)
        (closed,) = await alice.told("close")
        assert (closed["code"], closed["final"], closed["delay"]) == (1012, False, 0)
        assert [one["ns"] for one in await alice.told("lost")] == ["lobby", "room:1"]
        assert [one["again"] for one in await alice.told("open")] == [False, True]
        assert await cluster.where("a") == await cluster.where("a", "room:1") == other
        assert (
            await cluster.publisher.count("room:1") == await cluster.publisher.count("lobby") == 2
        )
        infos = {member.id: member.info async for member in cluster.publisher.members("room:1")}
        assert infos["a"] == {"name": "Alice"}
        infos = {member.id: member.info async for member in cluster.publisher.members("lobby")}
        assert infos["a"] == {"home": "x"}
        await bob.do('publish("room:1", "still here?")')
        await eventually(lambda: _count(alice, "message", 1), 30)
        assert not await bob.told("close", "lost", "left")


@async_test
async def test_sockets_of_a_killed_node_come_back(redis: RedisServer, tmp_path: Path) -> None:
    """With 1006 and a delay; their rooms are theirs again, although the dead node's lease lasts."""
    async with rig(redis, tmp_path) as cluster:
        alice, _ = await two_nodes(cluster)
        old, other = await cluster.where("a"), await cluster.where("b")
        assert old is not None
        os.kill(cluster.fleet.nodes[old].process.pid, signal.SIGKILL)
        await eventually(lambda: _count(alice, "lost", 2), 60)
        closes = await alice.told("close")
        assert {one["code"] for one in closes} == {1006}
        assert all(0 <= one["delay"] <= 500 * 2**at for at, one in enumerate(closes))
        assert await cluster.where("a", "room:1") == other
        assert await cluster.publisher.count("room:1") == 2
        assert not await alice.told("left")


@async_test
async def test_a_page_keeps_its_own_positions(redis: RedisServer, tmp_path: Path) -> None:
    """Its node hears no receipts, is killed, and Redis has forgotten all ids: still the page gets
    each message once, of its home and of a room, and nothing is lost."""
    history = "--history", "lobby=1000", "--history", "room:*=1000", "--no-receipts"
    async with rig(redis, tmp_path, *history) as cluster:
        alice, _ = await two_nodes(cluster)
        sent: dict[str, list[str]] = {"lobby": [], "room:1": []}

        async def send(times: int) -> None:
            for number in range(times):
                for namespace, texts in sent.items():
                    texts.append(f"{len(texts)} {number}")
                    await cluster.publisher.broadcast_message(namespace, texts[-1])

        async def whole() -> bool:
            heard = await alice.told("message")
            got = {ns: [one["data"] for one in heard if one["ns"] == ns] for ns in sent}
            assert all(got[ns] == texts[: len(got[ns])] for ns, texts in sent.items())
            return got == sent

        await send(5)
        await eventually(whole, 30)
        for turn in range(2):  # the second time it comes back without a message in between
            old = await cluster.where("a")
            assert old is not None
            cluster.fleet.nodes[old].signal(signal.SIGSTOP)
            async with redis.client() as client:
                for key in await client.keys("*positions"):
                    await client.delete(key)
            await send(3 * (1 - turn))
            os.kill(cluster.fleet.nodes[old].process.pid, signal.SIGKILL)
            await eventually(lambda turn=turn: _count(alice, "open", turn + 2), 60)
            await eventually(whole, 60)
            if not turn:
                ports = cluster.fleet.nodes[old].port, cluster.fleet.agent_port(old)
                await in_thread(cluster.fleet.start_again, old, *ports)
        await send(2)
        await eventually(whole, 30)
        assert not await alice.told("lost", "left")


@async_test
async def test_a_socket_whose_token_ends_asks_for_another(
    redis: RedisServer, tmp_path: Path
) -> None:
    """The function is asked again, and the socket is back at once; a string is final."""
    async with rig(redis, tmp_path) as cluster:
        options = from_list(token(id="f", jti="first"), token(id="f"))
        asks = await cluster.begin("asks", options=options)
        fixed = await cluster.begin("fixed", options=signed(id="s", jti="only"))
        for socket, ended in ((asks, "first"), (fixed, "only")):
            await eventually(socket.open, 30)
            assert await cluster.publisher.revoke(ended)
        await eventually(lambda: _count(asks, "lost", 1), 60)
        await eventually(lambda: fixed.do("isFinal"), 60)
        (closed,) = await asks.told("close")
        assert (closed["code"], closed["final"], closed["delay"]) == (4401, False, 0)
        assert await cluster.page.do("asked") == 2
        await asks.do('publish("lobby", "back")')
        (closed,) = await fixed.told("close")
        assert (closed["code"], closed["final"]) == (4401, True)


@async_test
async def test_a_token_is_renewed_on_the_open_connection(
    redis: RedisServer, tmp_path: Path
) -> None:
    """In time, also the one that was renewed."""
    async with rig(redis, tmp_path) as cluster:
        await cluster.page.do("Math.random = () => 0, 0")  # as early as it may be
        begun = int(time.time())
        times = (int(begun - LEEWAY + seconds) for seconds in (12, 24, 120))
        tokens = [token(id="r", exp=seconds) for seconds in times]
        socket = await cluster.begin("renews", options=from_list(*tokens))
        await eventually(lambda: time.time() > begun + 25, 60)
        await socket.do('publish("lobby", "still here")')
        assert not await socket.told("close")
        assert await cluster.page.do("asked") == 3


@async_test
async def test_refused_handshakes_back_off(redis: RedisServer, tmp_path: Path) -> None:
    """Each attempt has a new token, and a delay of at most twice the limit of the one before."""
    async with rig(redis, tmp_path) as cluster:
        wrong = [token("another secret of thirty-two bytes and more") for _ in range(4)]
        socket = await cluster.begin("refused", options=from_list(*wrong, token(id="x")))
        await eventually(socket.open, 60)
        closes = await socket.told("close")
        assert [one["code"] for one in closes] == [1006] * 4
        assert all(0 <= one["delay"] <= 500 * 2**at for at, one in enumerate(closes))
        assert len({one["delay"] for one in closes}) == 4
        assert await cluster.page.do("asked") == 5
        assert not await socket.told("lost")


@async_test
async def test_without_redis_requests_are_refused_and_sockets_stay(
    redis: RedisServer, tmp_path: Path
) -> None:
    """One that connects meanwhile comes in when Redis is back."""
    async with rig(redis, tmp_path) as cluster:
        alice, _ = await two_nodes(cluster)
        redis.kill()
        await eventually(lambda: _is_refused(alice, 'join("room:2")', "unavailable"), 60)
        assert await alice.refused('publish("room:1", "x")') == "unavailable"
        late = await cluster.begin("late", options=signed(id="late"))
        await eventually(lambda: late.told("close"), 60)
        assert not await late.open()
        await in_thread(redis.start)
        await eventually(late.open, 60)
        await eventually(lambda: _is_refused(alice, 'join("room:2")', None), 60)
        assert not await alice.told("close", "left")
        # Redis has forgotten its counters: messages may be missing anywhere.
        assert {loss["ns"] for loss in await alice.told("lost")} >= {"lobby", "room:1"}
        assert not await late.told("lost")


@async_test
async def test_a_socket_whose_node_has_missed_messages_is_told(
    redis: RedisServer, tmp_path: Path
) -> None:
    """Its connection stays."""
    async with rig(redis, tmp_path) as cluster:
        alice, bob = await two_nodes(cluster)

        async def told() -> bool:
            redis.command("CLIENT", "KILL", "TYPE", "pubsub")
            for _ in range(20):
                with contextlib.suppress(ClusterPoolError):
                    await cluster.publisher.broadcast_message("room:1", "x")
            await asyncio.sleep(0.5)
            return bool(await alice.told("lost") and await bob.told("lost"))

        await eventually(told, 90)
        for one in (alice, bob):
            assert {loss["ns"] for loss in await one.told("lost")} == {"room:1"}
            assert not await one.told("close", "left")


async def _is_refused(socket: Socket, script: str, code: str | None) -> bool:
    return bool(await socket.refused(script) == code)


@async_test
async def test_a_room_whose_redis_does_not_answer_is_joined_again_later(tmp_path: Path) -> None:
    """One primary of a Redis Cluster is frozen, which has the room and nothing else."""
    with Cluster() as redis:
        homes = [redis.primary_of(f"{{{name}}}") for name in ("lobby", "~user:alice", "~")]
        names = (f"room:{number}" for number in range(1000))
        room = next(name for name in names if redis.primary_of(f"{{{name}}}") not in homes)
        async with rig(redis, tmp_path) as cluster:
            alice = await cluster.begin("alice", options=signed(sub="alice", id="a"))
            await alice.do(f"join('{room}')")
            redis.primary_of(f"{{{room}}}").server.freeze()
            assert await cluster.publisher.close("lobby", "a", 1012)
            await eventually(lambda: _has_lost(alice, "lobby"), 60)
            assert await alice.refused(f"join('{room}')") == "unavailable"  # as the first was
            redis.primary_of(f"{{{room}}}").server.thaw()
            await eventually(lambda: _has_lost(alice, room), 60)
            await eventually(lambda: _is_refused(alice, f"publish('{room}', 'x')", None), 60)
            assert not await alice.told("left")


@async_test
async def test_a_page_that_wakes_up_does_not_trust_its_connection(
    redis: RedisServer, tmp_path: Path
) -> None:
    """One that answers stays; a silent one is given up, and the other node has the socket."""
    async with rig(redis, tmp_path) as cluster:
        alice, bob = await two_nodes(cluster)
        old, other = await cluster.where("a"), await cluster.where("b")
        assert old is not None
        cluster.fleet.nodes[old].signal(signal.SIGSTOP)
        await cluster.page.do("dispatchEvent(new Event('online')), 0")
        await eventually(lambda: _count(alice, "lost", 2), 90)
        closed = (await alice.told("close"))[0]
        assert (closed["code"], closed["reason"]) == (1006, "no answer")
        assert await cluster.where("a") == other
        assert not await bob.told("close")


@async_test
async def test_a_closed_socket_stays_closed(redis: RedisServer, tmp_path: Path) -> None:
    """Its promises are rejected; nothing wakes it; a code of the page's own is final, too."""
    async with rig(redis, tmp_path) as cluster:
        await cluster.page.do("begin('early', '/ws/lobby', {token: () => new Promise(() => {})})")
        early = Socket(cluster.page, "early")
        await cluster.page.do("waits = sockets.early.join('room:1').catch(error => error.code), 0")
        await early.do("close()")
        assert await cluster.page.do("waits") == "closed"
        kicked = await cluster.begin("kicked", options=from_list(token(id="k"), final="[4403]"))
        await eventually(kicked.open, 30)
        assert await cluster.publisher.close("lobby", "k", 4403, "kicked")
        await eventually(lambda: kicked.do("isFinal"), 30)
        await cluster.page.do("dispatchEvent(new Event('online')), 0")
        for socket, code, reason in ((early, 1000, "closed by the page"), (kicked, 4403, "kicked")):
            await socket.do("close()")
            (closed,) = await socket.told("close")
            assert (closed["code"], closed["reason"], closed["final"]) == (code, reason, True)
        assert await cluster.page.do("asked") == 1
        await eventually(lambda: _is_empty(cluster, "lobby"), 30)


async def _is_empty(rig: Rig, namespace: str) -> bool:
    return await rig.publisher.count(namespace) == 0
