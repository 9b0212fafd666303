"""Where Redis is: connecting, and what may go wrong on the way."""

import asyncio

import pytest

from cluster_pool import BackplaneUnavailableError
from cluster_pool.backplane.address import Address
from tests.support import async_test


@async_test
async def test_a_server_that_accepts_and_says_nothing_is_given_up() -> None:
    """The password is sent, and no answer comes: nobody waits for it longer than for TCP."""
    held: list[asyncio.StreamWriter] = []

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held.append(writer)

    async with await asyncio.start_server(accept, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        address = Address(f"redis://me:s3cret@127.0.0.1:{port}", 0.3)
        with pytest.raises(BackplaneUnavailableError, match="cannot reach Redis") as caught:
            await address.open()
        assert "s3cret" not in str(caught.value)
        assert held
        for writer in held:
            writer.close()
