"""Where Redis is: connecting, and what may go wrong on the way."""

import asyncio
import logging
import socket
import subprocess
import sys
import threading
import traceback
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from fakeredis import FakeAsyncRedis
from redis.asyncio import BlockingConnectionPool, Redis
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
from tests.support import async_test, eventually
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


def test_an_url_in_doubt_is_refused_without_being_shown() -> None:
    """What would be read as a port, a host or an option is part of a password."""
    for url in (
        *("redis://:123#456@127.0.0.1", "redis://:12/34@127.0.0.1", "redis://:12?34@127.0.0.1"),
        *("redis://me:p@12/34@127.0.0.1", "redis://127.0.0.1?password=12&34", "redis://:34 12@x"),
    ):
        with pytest.raises(InvalidValueError, match="percent-encode") as caught:
            Publisher(url)
        assert "12" not in str(caught.value).replace("127.0.0.1", "")
        assert "34" not in str(caught.value)


SHOWN: list[tuple[Any, str]] = [
    ("redis://10.0.0.1", "redis://10.0.0.1:6379/0"),
    ("rediss://u:p@[::1]:1/0", "rediss://u:***@[::1]:1/0"),
    ("redis://s3cret@10.0.0.1:1", "redis://***@10.0.0.1:1/0"),
    ("redis://10.0.0.1:1?password=a%26b", "redis://:***@10.0.0.1:1/0"),
    ("unix://u:p@/run/redis.sock?db=0", "unix://u:***@/run/redis.sock"),
    ("unix:///run/re@dis.sock", "unix:///run/re@dis.sock"),
    (Redis(host="h", port=7, ssl=True, password="x"), "rediss://:***@h:7/0"),
    (Redis(unix_socket_path="/run/r.sock"), "unix:///run/r.sock"),
    (Redis(connection_pool=BlockingConnectionPool(host="h", port=7)), "redis://h:7/0"),
    (FakeAsyncRedis(), "fakeredis"),
    (
        Sentinel([("a", 26379), ("::1", 2)]).master_for("my service", password="x"),
        "redis+sentinel://:***@a:26379,[::1]:2/my%20service/0",
    ),
    (Sentinel([("a", 1)]).master_for("main", ssl=True), "rediss+sentinel://a:1/main/0"),
]


@pytest.mark.parametrize(("redis", "shown"), SHOWN)
def test_an_address_is_shown_as_what_it_is(redis: Any, shown: str) -> None:
    """TLS as rediss, Sentinels with their service; never a localhost that is not meant."""
    assert ClusterPool(redis).address == shown


@async_test
async def test_a_redis_that_quotes_the_password_is_not_quoted() -> None:
    """One that does not know AUTH answers with what it was given."""
    with RedisServer("valkey", "--rename-command", "AUTH", "") as server:
        address = Address(server.url, 2)
        with pytest.raises(BackplaneUnavailableError, match="unknown command") as caught:
            await address.open()
    assert PASSWORD not in "".join(traceback.format_exception(caught.value))


class SlowNames:
    """getaddrinfo as a resolver that is away makes it: it hangs, and says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[str] = []
        self.most = 0
        self.answer = threading.Event()
        self._running = 0
        self._real = socket.getaddrinfo
        monkeypatch.setattr(socket, "getaddrinfo", self)

    def __call__(self, host: Any, *rest: Any, **options: Any) -> Any:
        if host != "redis.example":
            return self._real(host, *rest, **options)
        self.asked.append(host)
        self._running += 1
        self.most = max(self.most, self._running)
        self.answer.wait(30)
        self._running -= 1
        return self._real("127.0.0.1", *rest, **options)


@async_test
async def test_slow_names_take_nothing_from_the_loops_executor(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One look-up at a time, in a thread of ours; the next attempt waits for the one under way."""
    names = SlowNames(monkeypatch)
    with RedisServer("valkey", "--port", "0") as server:
        port = free_port()
        server.command("CONFIG", "SET", "port", str(port))
        pool = Pool(server.through(port).replace("127.0.0.1", "redis.example"), timing=FAST)
        starting = asyncio.create_task(pool.start(wait=30))
        try:
            await eventually(lambda: "looking up the name 'redis.example'" in pool.trouble)
            for _ in range(3):  # as many look-ups would have filled it
                done = asyncio.gather(*[asyncio.to_thread(len, "abc") for _ in range(40)])
                assert await asyncio.wait_for(done, 10) == [3] * 40
                await asyncio.sleep(0.3)
            assert names.asked == ["redis.example"]
            names.answer.set()
            await starting
            assert pool.ready
            assert names.most == 1
        finally:
            names.answer.set()
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
            await pool.stop()


def test_a_name_that_hangs_holds_up_no_exit(tmp_path: Path) -> None:
    """Neither the stop nor the end of the process waits for it."""
    program = tmp_path / "program.py"
    program.write_text(
        """
import asyncio, socket, time
from cluster_pool import ClusterPool

socket.getaddrinfo = lambda *a, **k: time.sleep(60)

async def main():
    pool = ClusterPool("redis://redis.example:1")
    start = asyncio.create_task(pool.start(wait=60))
    await asyncio.sleep(0.5)
    await pool.stop()
    await asyncio.gather(start, return_exceptions=True)
    print("stopped", flush=True)

asyncio.run(main())
"""
    )
    done = subprocess.run([sys.executable, program], timeout=30, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "stopped\n"), done.stderr


@async_test
async def test_each_address_of_a_name_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first may be one where nobody listens; TLS still checks the name."""
    real = socket.getaddrinfo

    def both(host: Any, port: Any, *rest: Any, **options: Any) -> Any:
        found = [real(one, port, *rest, **options)[0] for one in ("127.0.0.2", "127.0.0.1")]
        return found if host == "redis.example" else real(host, port, *rest, **options)

    monkeypatch.setattr(socket, "getaddrinfo", both)
    listener = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0)
    async with listener:
        port = listener.sockets[0].getsockname()[1]
        address = Address(f"redis://redis.example:{port}", 1)
        connection = await address.open()
        assert connection.getpeername() == "127.0.0.1"
        await connection.disconnect(nowait=True)
    secure = Address("rediss://redis.example:1", 1)
    made = secure._class(**secure._settings)
    assert made._connection_arguments()["server_hostname"] == "redis.example"  # type: ignore[attr-defined]


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
