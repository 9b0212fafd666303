"""The drain budget's script on a clock that a test turns, called as nodes call it."""

import asyncio
import hashlib
from collections.abc import Collection
from math import inf
from types import SimpleNamespace
from typing import Any

from redis import Redis

from cluster_pool.backplane.command_connection import ScriptCall
from cluster_pool.backplane.drain_budget import RedisDrainBudget
from cluster_pool.backplane.scripts import sources
from cluster_pool.core.drain_budget import Ask, Grant
from cluster_pool.core.keys import Keys

EPOCH = 1_700_000_000.0
"""The Redis TIME at which the test begins."""


def timed_source() -> str:
    """The script with its two clocks replaced by its last argument."""
    text = sources()["drain"]
    for old, new in (
        ("local time = server.call('TIME')\n", ""),
        ("tonumber(time[1]) * 1000000 + tonumber(time[2])", "tonumber(ARGV[#ARGV])"),
        (
            "'SET', calm_key, '1', 'PX', 2 * renew",
            "'SET', calm_key, digits(now_us() + 2000 * renew)",
        ),
        (
            "redis.call('EXISTS', calm_key) == 1",
            "tonumber(redis.call('GET', calm_key) or 0) > now_us()",
        ),
    ):
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    assert "TIME" not in text
    return text


class ScriptedBudget:
    """Has the methods of core.drain_budget.DrainBudget, and keeps everything on a server."""

    def __init__(self, client: Redis, prefix: str, runner: asyncio.Runner) -> None:
        self._client = client
        self._runner = runner
        self._keys = Keys(prefix)
        self._source = timed_source()
        self._digest = hashlib.sha1(self._source.encode()).hexdigest()
        self._client.script_load(self._source)
        self._now = 0.0
        generation = SimpleNamespace(script=self._give_back)
        shard: Any = SimpleNamespace(script=self._script, clock=self, current=generation)
        self._budget = RedisDrainBudget(shard, self._keys)

    def at(self, moment: float) -> int:
        """The Redis clock of a session: no call is late."""
        return 10**17

    def _eval(self, call: ScriptCall) -> list[bytes]:
        _, names, arguments = call
        now = f"{round((EPOCH + self._now) * 1e6)}"
        reply: Any = self._client.evalsha(self._digest, len(names), *names, *arguments, now)
        return list(reply)

    async def _script(self, deadline: float, call: ScriptCall) -> Any:
        return self._eval(call)

    def _give_back(self, call: ScriptCall) -> Any:
        assert self._eval(call) == [b"DONE"]
        return SimpleNamespace(add_done_callback=lambda done: None)

    def lease(
        self,
        now: float,
        ask: Ask,
        *,
        headroom: float = inf,
        setting: float = inf,
        living: int = 1,
        acceptors: int = 0,
        others: Collection[str] | None = None,
    ) -> Grant:
        """Tell Redis about the cluster first, then ask."""
        self._now = now
        keys, pipe = self._keys, self._client.pipeline(transaction=False)
        for key in (keys.leases, keys.headrooms, keys.budget):
            pipe.delete(key)
        ends = (EPOCH + now + 1000) * 1000
        pipe.zadd(keys.leases, {f"i{number}": ends for number in range(living)})
        pipe.zadd(keys.leases, {"dead": (EPOCH + now) * 1000 - 1})
        if others is not None:
            pipe.delete(keys.leases)
            names = [ask.node, *others, *(f"i{number}" for number in range(acceptors))]
            pipe.zadd(keys.leases, dict.fromkeys(names, ends))
            pipe.hset(keys.incarnations, mapping={name: name for name in names})
        rooms = {f"i{number}": repr(headroom / acceptors) for number in range(acceptors)}
        pipe.hset(keys.headrooms, mapping={"dead": "5000", **rooms})
        if setting != inf:
            pipe.set(keys.budget, repr(setting))
        pipe.execute()
        return self._runner.run(self._budget.lease(ask.node, ask, 1.0))

    def give_back(self, node: str) -> None:
        """Give the share back."""

        async def give_back() -> None:
            self._budget.give_back(node, node, 1.0)

        self._runner.run(give_back())

    def forget(self) -> None:
        """FLUSHALL, and what a node does about it: it loads its scripts again."""
        self._client.flushall()
        self._client.script_load(self._source)

    def entries(self) -> dict[str, list[str]]:
        """The drainers as they are stored."""
        stored: Any = self._client.hgetall(self._keys.drains)
        return {node.decode(): value.decode().split(" ") for node, value in stored.items()}
