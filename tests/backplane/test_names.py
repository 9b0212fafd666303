"""Looking up names of Redis: one at a time, in a thread of its own, and every address is tried."""

import asyncio
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from cluster_pool.backplane.address import Address
from cluster_pool.backplane.locations import read_location
from cluster_pool.backplane.names import Names, resolving
from cluster_pool.testing import FAST
from tests.clusters import Pool
from tests.servers import RedisServer
from tests.support import async_test, eventually
from tools.harness.ports import free_port


class SlowNames:
    """getaddrinfo of a resolver that is away: it hangs, and counts its calls."""

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


def test_a_look_up_that_hangs_does_not_delay_the_exit(tmp_path: Path) -> None:
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
    """The first one may have no listener; TLS still checks the name."""
    real = socket.getaddrinfo

    def both(host: Any, port: Any, *rest: Any, **options: Any) -> Any:
        found = [real(one, port, *rest, **options)[0] for one in ("127.0.0.2", "127.0.0.1")]
        return found if host == "redis.example" else real(host, port, *rest, **options)

    monkeypatch.setattr(socket, "getaddrinfo", both)

    def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"+PONG\r\n")
        writer.close()

    listener = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with listener:
        port = listener.sockets[0].getsockname()[1]
        address = Address(f"redis://redis.example:{port}", 1)
        connection = await (await address.primary()).open()
        assert connection.getpeername() == "127.0.0.1"
        await connection.disconnect(nowait=True)
    secure = read_location("rediss://redis.example:1").login
    made = secure.make(1, resolving(secure.kind, Names()))
    assert made._connection_arguments()["server_hostname"] == "redis.example"  # type: ignore[attr-defined]
