"""Node A: a member of the cluster that sends what it is told to. JSON lines on standard streams."""

import asyncio
import json
import sys
import time

from cluster_pool import ClusterPool, SendResult

SIZE = 128


async def obey(pool: ClusterPool, order: dict[str, object]) -> dict[str, object]:
    """Carry out one order."""
    text = "x" * SIZE
    rounds, at_once = int(order.get("rounds", 1)), int(order.get("at_once", 1))  # type: ignore[call-overload]
    pause = float(order.get("pause", 0))  # type: ignore[arg-type]
    namespace = str(order.get("namespace", "bench"))
    if order["do"] == "broadcast":
        for _ in range(rounds):
            await asyncio.gather(*[pool.broadcast_message(namespace, text) for _ in range(at_once)])
            await asyncio.sleep(pause)
    elif order["do"] == "send":
        refused = 0
        for _ in range(rounds):
            results = await asyncio.gather(
                *[pool.send(namespace, f"c{number}", text) for number in range(at_once)]
            )
            refused += sum(result is not SendResult.ROUTED for result in results)
            await asyncio.sleep(pause)
        return {"refused": refused}
    elif order["do"] == "one":
        took = []
        for _ in range(rounds):
            began = time.monotonic_ns()
            await pool.send(namespace, "c0", f"{began:020d}".ljust(SIZE, "x"))
            took.append(time.monotonic_ns() - began)
            await asyncio.sleep(pause)
        return {"took": took}
    elif order["do"] == "count":
        members = [member async for member in pool.members(namespace)]
        return {"count": await pool.count(namespace), "members": len(members)}
    return {}


async def main(redis: str) -> None:
    """Join the cluster and obey until standard input ends."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=1 << 20)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    async with ClusterPool(redis, node_id="A") as pool:
        print(json.dumps({}), flush=True)
        while line := await reader.readline():
            print(json.dumps(await obey(pool, json.loads(line))), flush=True)


if __name__ == "__main__":
    if sys.argv[2] == "uvloop":
        import uvloop

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main(sys.argv[1]))
    else:
        asyncio.run(main(sys.argv[1]))
