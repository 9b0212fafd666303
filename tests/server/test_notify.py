"""Readiness and stop are told to a service manager, here a real datagram socket."""

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster_pool.server.notify import READY, notify
from tests.servers import RedisServer
from tests.support import async_test
from tools.harness.nodes import NodeProcess, close_code, in_thread

pytestmark = pytest.mark.real


@contextlib.contextmanager
def manager(address: str) -> Iterator[socket.socket]:
    """The socket of a service manager."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        bound.settimeout(30)
        bound.bind(address)
        yield bound


@pytest.mark.parametrize("abstract", [False, True])
def test_a_state_is_one_datagram(
    abstract: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To a socket with a path, and to an abstract one, whose name begins with @."""
    name = f"@{tmp_path.name}-{id(tmp_path)}" if abstract else str(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", name)
    with manager(name.replace("@", "\0", 1) if abstract else name) as bound:
        notify(READY)
        assert bound.recv(100) == b"READY=1"


def test_nothing_is_sent_without_a_manager(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nor logged."""
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    with caplog.at_level(logging.DEBUG):
        notify(READY)
    assert not caplog.records


@async_test
async def test_a_node_tells_when_it_is_ready_and_when_it_stops(
    own_server: RedisServer, tmp_path: Path
) -> None:
    """READY=1 when clients can connect, STOPPING=1 while those are still to be drained."""
    name = str(tmp_path / "notify")
    with (
        manager(name) as bound,
        NodeProcess(own_server.url, environment={"NOTIFY_SOCKET": name}) as node,
    ):
        assert await in_thread(bound.recv, 100) == b"READY=1"
        async with node.connect("room", "alice") as alice:
            node.signal(signal.SIGTERM)
            assert await in_thread(bound.recv, 100) == b"STOPPING=1"
            assert await asyncio.wait_for(close_code(alice), 30) == 1012
        assert (await in_thread(node.finish))[0] == 0


@async_test
async def test_a_manager_that_is_gone_stops_no_node(
    own_server: RedisServer, tmp_path: Path
) -> None:
    """The log says what it was not told."""
    name = str(tmp_path / "gone")
    with NodeProcess(own_server.url, environment={"NOTIFY_SOCKET": name}) as node:
        assert node.get("/readyz")[0] == 200
        node.signal(signal.SIGTERM)
        status, said = await in_thread(node.finish)
    assert status == 0
    assert f"NOTIFY_SOCKET={name} was not told READY=1" in said
