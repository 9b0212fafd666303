"""The responder of HAProxy's agent-check, asked by plain sockets. HAProxy itself: test_rolling."""

import asyncio
import contextlib
import json
import signal
import socket
import struct
from collections.abc import AsyncIterator
from typing import Any

import pytest
import uvloop

from cluster_pool.core.statistics import Counters
from cluster_pool.server import agent
from cluster_pool.server.agent import AgentListener, line_of
from cluster_pool.server.newcomers import Newcomers
from tests.servers import RedisServer
from tests.support import async_test, eventually
from tools.harness.nodes import NodeProcess, in_thread


class Load:
    """A pool with the parts that the agent reads."""

    def __init__(self, free: float | None = 1.0) -> None:
        self.share = free

    def free(self) -> float | None:
        return self.share


@contextlib.asynccontextmanager
async def listening(load: Load) -> AsyncIterator[AgentListener]:
    """A listener of its own."""
    listener = AgentListener(load, 0)  # type: ignore[arg-type]
    await listener.start(Newcomers(Counters()))
    try:
        yield listener
    finally:
        listener.close()


def ask(port: int, first: bytes = b"") -> bytes:
    """The agent's whole answer to one client, which may speak first."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        if first:
            client.sendall(first)
        said = b""
        while more := client.recv(4096):
            said += more
        return said


@pytest.mark.parametrize(
    ("free", "line"),
    [
        (1.0, b"ready up 100%\n"),
        (0.11, b"ready up 100%\n"),
        (0.05, b"ready up 50%\n"),
        (0.0, b"ready up 1%\n"),
        (None, b"drain\n"),
    ],
)
def test_agent_line_gives_state_and_weight(free: float | None, line: bytes) -> None:
    """Full weight while a tenth is free, then less, never 0; drain when no newcomer is taken."""
    assert line_of(free) == line


def scenario_of_rude_clients() -> Any:
    """The scenario below, for either loop."""

    async def scenario() -> None:
        async with listening(Load()) as listener:
            port = listener.port
            for first in (b"", b"node1\n", b"GET / HTTP/1.1\r\n\r\n", b"\0\xff" * 1000):
                assert await in_thread(ask, port, first) == b"ready up 100%\n"
            reset = struct.pack("ii", 1, 0)
            for _ in range(50):
                with socket.create_connection(("127.0.0.1", port)) as gone:
                    gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
            assert await in_thread(ask, port) == b"ready up 100%\n"

    return scenario()


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_agent_sends_each_client_one_line(loop: Any) -> None:
    """Also one that speaks first, with rude clients beside it; on both loops, without errors."""
    complaints: list[Any] = []
    with asyncio.Runner(loop_factory=loop) as runner:
        runner.get_loop().set_exception_handler(lambda _, context: complaints.append(context))
        runner.run(scenario_of_rude_clients())
    assert complaints == []


@async_test
async def test_agent_line_follows_the_state_of_the_node() -> None:
    """Nothing is remembered between two questions."""
    load = Load()
    async with listening(load) as listener:
        for free in (1.0, None, 0.02, 1.0):
            load.share = free
            assert await in_thread(ask, listener.port) == line_of(free)


@async_test
async def test_agent_cuts_silent_clients_and_bounds_their_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A silent client that stays is cut in time; a crowd of them does not block others."""
    monkeypatch.setattr(agent, "PATIENCE", 30.0)
    async with listening(Load()) as listener:
        where = ("127.0.0.1", listener.port)
        crowd = [await in_thread(socket.create_connection, where) for _ in range(200)]
        assert await in_thread(ask, listener.port) == b"ready up 100%\n"
        assert len(listener._open) <= agent.MOST_OPEN
        monkeypatch.setattr(agent, "PATIENCE", 0.05)
        with await in_thread(socket.create_connection, where) as last:
            await eventually(lambda: _is_cut(last))
        for client in crowd:
            client.close()
        await eventually(lambda: not listener._open)


@async_test
async def test_agent_cuts_a_client_that_sends_much() -> None:
    """The agent reads no more than a few kilobytes of a client."""
    async with listening(Load()) as listener:
        with (
            socket.create_connection(("127.0.0.1", listener.port)) as talker,
            pytest.raises(OSError, match=r"reset|[Bb]roken"),
        ):
            await in_thread(lambda: [talker.sendall(b"x" * 4096) for _ in range(10_000)])
        await eventually(lambda: not listener._open)


def _is_cut(client: socket.socket) -> bool:
    """Whether a write to it fails."""
    try:
        client.send(b"x")
    except OSError:
        return True
    return False


@async_test
async def test_agent_says_drain_while_its_node_drains(own_server: RedisServer) -> None:
    """ready with a weight; drain from the announcement on, as when it is drained; then nothing."""
    with NodeProcess(own_server.url) as other, NodeProcess(
        own_server.url, "--agent-port", "0", "--admin-port", "0", "--announce", "60",
        "--grace", "120",
    ) as node:  # fmt: skip
        port, admin = node.listening["agent_port"], node.listening["admin_port"]
        assert other.listening["agent_port"] is None
        assert await in_thread(ask, port) == b"ready up 100%\n"
        async with node.connect("room", "alice"):
            node.signal(signal.SIGTERM)
            await eventually(lambda: ask(port) == b"drain\n")
            state = json.loads((await in_thread(node.get, "/status", admin))[1])["state"]
            assert state == "announcing"
        node.signal(signal.SIGINT)
        assert (await in_thread(node.finish))[0] == 0
        with pytest.raises(ConnectionRefusedError):
            ask(port)


@async_test
async def test_agent_stays_up_without_redis_while_readyz_fails(own_server: RedisServer) -> None:
    """The agent goes on as before: it never brings up a node that /readyz holds down."""
    with NodeProcess(own_server.url, "--agent-port", "0") as node:
        own_server.kill()
        await eventually(lambda: node.get("/readyz")[0] == 503)
        assert await in_thread(ask, node.listening["agent_port"]) == b"ready up 100%\n"
