"""Where Redis is: connecting, and what may go wrong on the way."""

import asyncio
from typing import Any

import pytest
from redis.asyncio import Redis

from cluster_pool import BackplaneUnavailableError, ClusterPool, Publisher, SyncPublisher
from cluster_pool.backplane.address import Address
from cluster_pool.exceptions import InvalidValueError
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


DATABASE_2 = [
    "redis://me:s3cret@127.0.0.1:1/2",
    "redis://127.0.0.1:1/0?db=2",
    "unix:///nowhere?db=2&password=s3cret",
    Redis(db=2, password="s3cret"),
    Redis(db="2"),  # type: ignore[arg-type]  # as some read it from their settings
]


@pytest.mark.parametrize("redis", DATABASE_2)
@pytest.mark.parametrize("kind", [ClusterPool, Publisher, SyncPublisher])
def test_a_database_of_ones_own_needs_a_prefix_of_ones_own(kind: Any, redis: Any) -> None:
    """Channels belong to no database: a default prefix in two of them would be one cluster."""
    for options in ({}, {"prefix": "cluster_pool"}):
        with pytest.raises(
            InvalidValueError, match=r"database '?2.* prefix= \(--prefix\)"
        ) as caught:
            kind(redis, **options)
        assert "s3cret" not in str(caught.value)
    kind(redis, prefix="staging")


@pytest.mark.parametrize(
    "redis",
    ["redis://127.0.0.1:1", "redis://127.0.0.1:1/", "redis://127.0.0.1:1/0", Redis(), Redis(db=0)],
)
def test_database_0_is_for_the_default_prefix(redis: Any) -> None:
    """However it is spelled."""
    ClusterPool(redis)
