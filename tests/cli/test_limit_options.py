"""The options of ``serve`` for limits of users and connections."""

import asyncio
from pathlib import Path

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from cluster_pool import Publisher, SendResult
from tests.cli.commands import run
from tests.servers import RedisServer
from tests.support import async_test
from tools.harness.nodes import NodeProcess

pytestmark = pytest.mark.real

AUTH = """
from cluster_pool import Identity

def authenticate(request):
    return Identity(user=request.query.get("user"), namespace="app")
"""


@async_test
async def test_the_limits_hold_for_the_user_of_an_identity(
    own_server: RedisServer, tmp_path: Path
) -> None:
    """A third connection of one user gets 429, another user none; a second join is refused."""
    (tmp_path / "who.py").write_text(AUTH)
    options = "--auth", "who:authenticate", "--user-connections", "2"
    more = "--connection-namespaces", "2"
    with NodeProcess(own_server.url, *options, *more, folder=tmp_path) as node:
        where = f"ws://127.0.0.1:{node.port}/ws/app?user="
        async with connect(f"{where}42&id=a"), connect(f"{where}42&id=b"):
            with pytest.raises(InvalidStatus) as refused:
                await connect(f"{where}42&id=c")
            assert refused.value.response.status_code == 429
            async with connect(f"{where}43&id=d"), Publisher(own_server.url) as publisher:
                assert await publisher.online(["42", "43"]) == {"42": 2, "43": 1}
                assert await publisher.join("app", "a", "one") is SendResult.DELIVERED
                assert await publisher.join("app", "a", "two") is SendResult.REFUSED


@async_test
async def test_the_oldest_connection_goes(own_server: RedisServer, tmp_path: Path) -> None:
    """With ``--on-user-limit oldest``."""
    (tmp_path / "who.py").write_text(AUTH)
    options = "--auth", "who:authenticate", "--user-connections", "1", "--on-user-limit", "oldest"
    with NodeProcess(own_server.url, *options, folder=tmp_path) as node:
        where = f"ws://127.0.0.1:{node.port}/ws/app?user=42&id="
        async with connect(f"{where}a") as older, connect(f"{where}b"):
            with pytest.raises(ConnectionClosed) as closed:
                await asyncio.wait_for(older.recv(), 20)
            assert closed.value.rcvd is not None
            assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4409, "user limit")


def test_bad_words_are_refused() -> None:
    """With status 2, before anything is started."""
    status, _, text = run("serve", "--on-user-limit", "newest")
    assert (status, "on_user_limit" in text) == (2, True)
