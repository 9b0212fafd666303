"""Sockets to one server: failures on the way, told without its password."""

import asyncio
import traceback

import pytest

from cluster_pool import BackplaneUnavailableError
from cluster_pool.backplane.endpoint import Endpoint
from cluster_pool.backplane.locations import read_location
from cluster_pool.backplane.names import Names
from tests.servers import PASSWORD, RedisServer
from tests.support import async_test


def _endpoint(url: str, timeout: float = 2.0, hint: str = "") -> Endpoint:
    return Endpoint(read_location(url).login, Names(), timeout, hint=hint)


@async_test
async def test_a_server_that_accepts_and_says_nothing_is_given_up() -> None:
    """The password is sent and no answer comes: the wait is as long as for TCP."""
    held: list[asyncio.StreamWriter] = []

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held.append(writer)

    async with await asyncio.start_server(accept, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        endpoint = _endpoint(f"redis://me:s3cret@127.0.0.1:{port}", 0.3)
        with pytest.raises(BackplaneUnavailableError, match="cannot reach Redis") as caught:
            await endpoint.open()
        assert "s3cret" not in str(caught.value)
        assert held
        for writer in held:
            writer.close()


@async_test
async def test_a_redis_that_quotes_the_password_is_not_quoted() -> None:
    """A Redis that does not know AUTH repeats its arguments in the error."""
    with RedisServer("valkey", "--rename-command", "AUTH", "") as server:
        endpoint = _endpoint(server.url)
        with pytest.raises(BackplaneUnavailableError, match="unknown command") as caught:
            await endpoint.open()
    assert PASSWORD not in "".join(traceback.format_exception(caught.value))


@async_test
async def test_advice_follows_an_error_that_has_none(own_server: RedisServer) -> None:
    """A wrong password and an unreachable address need different advice."""
    with pytest.raises(BackplaneUnavailableError, match=r"127.0.0.1:1/0: Error .* \(move it\)"):
        await _endpoint("redis://127.0.0.1:1", hint="move it").open()
    wrong = own_server.url.replace(PASSWORD, "not-it")
    with pytest.raises(BackplaneUnavailableError, match="check the user name") as caught:
        await _endpoint(wrong, hint="move it").open()
    assert "move it" not in str(caught.value)


@async_test
async def test_a_server_with_one_address_never_moves() -> None:
    """Watching it does not return."""
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await _endpoint("redis://127.0.0.1:1").watch(0.01)
