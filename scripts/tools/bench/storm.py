"""Everybody connects at once: accepts and claims of one node, beside the bare library's accepts;
and how long anything else on the node has to wait."""

import asyncio
import contextlib

from tools.bench.node import NAMESPACE
from tools.bench.stage import PATIENCE, Meter, Settings, Tell, gated, miscounted, node
from tools.bench.table import Row
from tools.harness.programs import Program, program
from tools.harness.servers import RedisServer


async def measure(settings: Settings, loop: str, tell: Tell) -> list[Row]:
    """A fresh bare server and a fresh node in each round."""
    bare, claimed, worked, wrong, count = [], [], [], "", settings.storm
    turns: dict[str, list[float]] = {"come": [], "go": []}
    for at in range(settings.fresh_rounds):
        tell(f"storm, {loop}: round {at + 1} of {settings.fresh_rounds}")
        with RedisServer() as redis:
            async with (
                gated("bare", redis.url, loop) as server,
                _crowd(server, "/", count) as crowd,
            ):
                bare.append(count / crowd.hello["seconds"])
            async with node(redis.url, "B", loop) as server:
                await server.ask("longest_turn")
                meter = Meter({"node": server.pid})
                async with _crowd(server, f"/ws/{NAMESPACE}", count) as crowd:
                    worked.append(1e6 / meter.micros(count)["node"])
                    claimed.append(count / crowd.hello["seconds"])
                    wrong = wrong or miscounted(await server.ask("count"), count)
                    turns["come"].append(await server.ask("longest_turn") * 1000)
                await _until_empty(server)
                turns["go"].append(await server.ask("longest_turn") * 1000)
    what = f"{count:,} connect as fast as they can"
    return [
        Row(f"{what}: accepts of bare websockets", "/s", bare, loop),
        Row(f"{what}: accepts and claims of one node", "/s", claimed, loop, bare, wrong),
        Row(f"{what}: the same for each second of its CPU", "/s", worked, loop, (), wrong),
        *[
            Row(
                f"the longest turn of the node's loop while {count:,} {do} at once",
                *("ms", longest, loop),
                note="CPU time",
            )
            for do, longest in turns.items()
        ],
    ]


async def _until_empty(server: Program) -> None:
    async with asyncio.timeout(30):
        while await server.ask("count"):  # noqa: ASYNC110  # another process
            await asyncio.sleep(0.05)


def _crowd(
    server: Program, path: str, count: int
) -> contextlib.AbstractAsyncContextManager[Program]:
    """Everybody is connected to a server."""
    port = str(server.hello["port"])
    return program("tools.harness.crowd", port, path, str(count), patience=PATIENCE)
