"""Everybody connects at once: accepts and claims of one node, beside the bare library's accepts;
and how long anything else on the node has to wait."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

from cluster_pool.embedded import EmbeddedServer
from tools.bench.children import Child, Gate
from tools.bench.cluster import NAMESPACE, Settings, node
from tools.bench.table import Row


async def measure(
    settings: Settings, loop: str, rounds: int, tell: Callable[[str], None]
) -> list[Row]:
    """A fresh bare server and a fresh node in each round."""
    bare, claimed, wrong, count = [], [], "", settings.storm
    turns: dict[str, list[float]] = {"come": [], "go": []}
    for at in range(rounds):
        tell(f"storm, {loop}: round {at + 1} of {rounds}")
        with EmbeddedServer() as redis:
            async with _bare(redis.url, loop) as server, _crowd(server, "/", count) as seconds:
                bare.append(count / seconds)
            async with node(redis.url, "B", loop) as server:
                await server.ask("longest_turn")
                async with _crowd(server, f"/ws/{NAMESPACE}", count) as seconds:
                    claimed.append(count / seconds)
                    members = (await server.ask("count", namespace=NAMESPACE))["count"]
                    wrong = wrong or (f"WRONG: {members:,} members" if members != count else "")
                    turns["come"].append(await _longest_turn(server))
                await _until_empty(server)
                turns["go"].append(await _longest_turn(server))
    what = f"{count:,} connect as fast as they can"
    return [
        Row(f"{what}: accepts of bare websockets", "/s", bare, loop),
        Row(f"{what}: accepts and claims of one node", "/s", claimed, loop, bare, wrong),
        *[
            Row(
                f"the longest turn of the node's loop while {count:,} {do} at once",
                *("ms", longest, loop),
                note="CPU time",
            )
            for do, longest in turns.items()
        ],
    ]


async def _until_empty(server: Child) -> None:
    for _ in range(600):
        if not (await server.ask("count", namespace=NAMESPACE))["count"]:
            return
        await asyncio.sleep(0.05)
    raise RuntimeError("members are left of a crowd that has gone")


async def _longest_turn(server: Child) -> float:
    return float((await server.ask("longest_turn"))["seconds"]) * 1000


@contextlib.asynccontextmanager
async def _bare(redis: str, loop: str) -> AsyncIterator[Child]:
    gate = Gate()
    child = await Child.start("bare", redis, loop, str(gate.read_end), fds=(gate.read_end,))
    try:
        yield child
    finally:
        await child.stop()
        gate.close()


@contextlib.asynccontextmanager
async def _crowd(server: Child, path: str, count: int) -> AsyncIterator[float]:
    """Everybody is connected to a server; gives the seconds that it took."""
    crowd = await Child.start("crowd", str(server.hello["port"]), path, str(count))
    try:
        yield crowd.hello["seconds"]
    finally:
        await crowd.stop()
