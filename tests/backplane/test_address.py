"""Where Redis is: connecting, and what may go wrong on the way."""

import asyncio
import logging
import subprocess
import traceback
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from redis.asyncio import Redis
from redis.asyncio.sentinel import Sentinel

from cluster_pool import (
    BackplaneUnavailableError,
    ClusterPool,
    ClusterPoolError,
    Publisher,
    SyncPublisher,
)
from cluster_pool.backplane.address import Address
from cluster_pool.exceptions import InvalidValueError
from cluster_pool.testing import FAST
from tests.clusters import Pool
from tests.servers import BINARIES, PASSWORD, RedisServer
from tests.support import async_test
from tools.harness.ports import free_port


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


PASSWORDS = [
    *("s3cr3t", "987#654", "98/76", "a?b", "p@ss", "a:b", "50%off", "x&y=z", "[v6]", "a b"),
    *("1", "é✓", "tab\there", "987?password=7@98", "\\back'quote\"", "qzx#"),
]


@pytest.mark.parametrize("password", PASSWORDS)
@pytest.mark.parametrize(
    "form",
    [
        "redis://:{}@127.0.0.1:1/0",
        "redis://me:{}@127.0.0.1:1",
        "rediss://me:{}@127.0.0.1:1",
        "redis://127.0.0.1:1/0?password={}",
        "redis://127.0.0.1:1?username=me&password={}",
        "unix://me:{}@/nowhere/at.sock",
        "unix:///nowhere/at.sock?password={}",
    ],
)
@async_test
async def test_no_password_is_shown_however_it_was_written(
    caplog: pytest.LogCaptureFixture, form: str, password: str
) -> None:
    """As it is, or percent-encoded: it is used as it is meant, or refused; never shown in part."""
    caplog.set_level(logging.DEBUG, "cluster_pool")
    for url in (form.format(password), form.format(quote(password, safe=""))):
        with pytest.raises(ClusterPoolError) as caught:
            await Publisher(url).start()
        texts = [*traceback.format_exception(caught.value), caplog.text]
        if isinstance(caught.value, InvalidValueError):
            assert url == form.format(password), "percent-encoded is always right"
            assert "percent-encode" in str(caught.value)
        else:
            assert ":***@" in Address(url, 2).shown
            if url != form.format(password):
                assert Address(url, 2)._settings["password"] == password
        for part in (password, *password.replace("/", "#").replace("?", "#").split("#")):
            if len(part) > 1 and part not in ("me",):
                assert not any(part in text for text in texts), texts


@async_test
async def test_a_redis_that_quotes_the_password_is_not_quoted() -> None:
    """One that does not know AUTH answers with what it was given."""
    with RedisServer("valkey", "--rename-command", "AUTH", "") as server:
        address = Address(server.url, 2)
        with pytest.raises(BackplaneUnavailableError, match="unknown command") as caught:
            await address.open()
    assert PASSWORD not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("flavour", BINARIES)
@async_test
async def test_a_client_that_asks_sentinel(flavour: str, tmp_path: Path) -> None:
    """Its node lives on the primary that the Sentinel names, also when the client is dropped."""
    port, watching = free_port(), free_port()
    with RedisServer(flavour) as server:
        server.command("CONFIG", "SET", "port", str(port))
        path = tmp_path / "sentinel.conf"
        path.write_text(
            f"port {watching}\nbind 127.0.0.1\ndir {tmp_path}\n"
            f"sentinel monitor main 127.0.0.1 {port} 1\n"
        )
        process = subprocess.Popen(  # noqa: ASYNC220  # it returns at once
            [BINARIES[flavour], str(path), "--sentinel"], stdout=subprocess.DEVNULL
        )
        try:
            login = {"username": "cluster_pool", "password": PASSWORD}
            asking = Sentinel([("localhost", watching)])
            client = asking.master_for("main", **login)
            pool = Pool(client, node_id="node-1", timing=FAST)
            del client
            await pool.start(wait=20)
            try:
                assert (await pool.join("n", "a")) is not None
                where = f"redis+sentinel://cluster_pool:***@localhost:{watching}/main/0"
                assert pool.address == where
            finally:
                await pool.stop()
                await asking.sentinels[0].aclose()
        finally:
            process.kill()
            process.wait()
