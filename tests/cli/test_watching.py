"""``watch``: each event at once, through outages of Redis, until its reader ends."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator

from tests.servers import RedisServer
from tests.support import async_test, eventually
from tools.harness.nodes import NodeProcess


@contextlib.asynccontextmanager
async def watching(
    redis: str, *arguments: str, stdout: int = subprocess.PIPE
) -> AsyncIterator[asyncio.subprocess.Process]:
    """The command, once it watches."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "cluster_pool", "watch", "room", "--redis", redis, *arguments),
        stdout=stdout,
        stderr=subprocess.PIPE,
    )
    try:
        assert process.stderr is not None
        assert b"knows the namespace" in await process.stderr.readline()
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@async_test
async def test_watch_prints_each_event_at_once(own_server: RedisServer, node: NodeProcess) -> None:
    """A line for each at its time; Ctrl-C ends the command without an error message."""
    async with watching(own_server.url, "--json") as in_json, watching(own_server.url) as in_text:
        assert in_json.stdout is not None
        assert in_text.stdout is not None
        async with node.connect("room", "al%20ice"):
            event = {"event": "join", "id": "al ice", "node": "a"}
            assert json.loads(await in_json.stdout.readline()) == event
            assert await in_text.stdout.readline() == b"join\tal ice\ta\n"
        assert json.loads(await in_json.stdout.readline())["event"] == "leave"
        for process in (in_json, in_text):
            process.send_signal(signal.SIGINT)
            assert await asyncio.wait_for(process.wait(), 30) == 130
            assert process.stderr is not None
            assert await process.stderr.read() == b""


@async_test
async def test_watch_goes_on_when_redis_comes_back(
    own_server: RedisServer, node: NodeProcess
) -> None:
    """It reports the outage, as JSON too, and that events were lost; then later events."""
    async with watching(own_server.url, "--json") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        own_server.kill()
        said = json.loads(await process.stderr.readline())
        assert set(said) == {"note"}
        own_server.start()
        assert json.loads(await process.stdout.readline())["event"] == "lost"
        await eventually(lambda: node.get("/readyz")[0] == 200, 30)
        async with node.connect("room", "alice"):
            while (event := json.loads(await process.stdout.readline()))["event"] == "lost":
                pass
            assert (event["event"], event["id"]) == ("join", "alice")


@async_test
async def test_watch_ends_with_its_reader(own_server: RedisServer, node: NodeProcess) -> None:
    """At once, and not only with the next event."""
    reading, writing = os.pipe()
    async with watching(own_server.url, stdout=writing) as process:
        os.close(writing)
        os.close(reading)
        assert await asyncio.wait_for(process.wait(), 30) == 141
        assert process.stderr is not None
        assert await process.stderr.read() == b""
    assert own_server.command("PUBSUB", "CHANNELS", "*{room}*").startswith("*0")
