"""Prints the table of ASGI servers in docs/faults.md: clients that leave, or hang.

python -m tests.asgi.table [SERVER …]
"""

import asyncio
import sys
import time

from tests.asgi.servers import SERVERS, Server, installed, running
from tests.asgi.test_departures import away, dropping, reset
from tests.asgi.test_refusals import statuses
from tests.servers import BINARIES, RedisServer
from tests.stubborn import stubborn

LONGEST = 75.0
CLOSE = bytes((0x88, 0x82)) + bytes(4) + (1001).to_bytes(2, "big")
KINDS = ("reads", "pushes", "waits", "reads_once", "groups")


async def until_away(server: Server, user: str) -> str:
    """The seconds until a user is no member and has no endpoint."""
    begun = time.monotonic()
    while time.monotonic() - begun < LONGEST:
        if await away(server, user):
            return f"{time.monotonic() - begun:.1f} s"
        await asyncio.sleep(0.1)
    return f"not in {LONGEST:g} s"


async def leaves(server: Server, kind: str, how: str) -> str:
    user = f"{kind}-{how}"
    client = await server.connect(f"/ws/{kind}/{user}").__aenter__()
    reading = asyncio.create_task(dropping(client))
    if kind == "reads_once":
        await client.send("first")
    await asyncio.sleep(0.3)
    if how == "reset":
        reset(client)
    else:
        await client.close()
    seconds = await until_away(server, user)
    await reading
    return seconds


async def hangs(server: Server, kind: str, *, close: bool = False, reads: bool = True) -> str:
    user = f"{kind}-{close}-{reads}"
    async with stubborn(server.url(f"/ws/{kind}/{user}"), reads=reads) as client:
        await asyncio.sleep(0.3)
        if close:
            client.writer.write(CLOSE)
        return await until_away(server, user)


async def measure(name: str) -> None:
    """Print the column of one server."""
    with RedisServer(next(iter(BINARIES))) as redis:
        async with running(name, redis.url) as server:
            for how in ("close", "reset"):
                for kind in KINDS:
                    print(f"{name}: {kind}, {how}: {await leaves(server, kind, how)}", flush=True)
            closed, silent, slow = await asyncio.gather(
                hangs(server, "waits", close=True),
                hangs(server, "waits"),
                hangs(server, "floods", reads=False),
            )
            print(f"{name}: sends a Close and stays: {closed}")
            print(f"{name}: answers no ping: {silent}")
            print(f"{name}: reads nothing: {slow}")
            print(f"{name}: a bad id: {await statuses(server, '/room/a%7B', 3)}")
            print(f"{name}: the log above INFO: {server.complaints()}", flush=True)


async def main(names: list[str]) -> None:
    """Measure one server after another, so that none waits for another's CPU."""
    for name in names or list(SERVERS):
        if installed(name):
            await measure(name)
        else:
            print(f"{name}: not installed")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
