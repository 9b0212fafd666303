"""The scenario of scripts/bench about clusters, from its processes to its rows."""

from dataclasses import replace

import pytest

from tests.support import async_test
from tools.bench import many_namespaces, shards
from tools.bench.shard_stage import nodes, where
from tools.bench.stage import QUICK, Meter

pytestmark = pytest.mark.real
SMALL = replace(QUICK, rounds=1, messages=2, namespaces=600)


@async_test
async def test_messages_and_joins_are_measured_at_each_primary() -> None:
    """Every message arrives, and each process has its part."""
    async with nodes(2, "asyncio") as stage:
        await stage.b.ask("join", count=300)
        rows = await shards._messages(stage, SMALL, "asyncio", where(2))
        assert not [row.wrong for row in rows if row.wrong]
        assert all(row.parts.keys() == {"A", "B", "Redis 1", "Redis 2"} for row in rows)
        joins, leaves = await shards._joins(stage, "asyncio", where(2))
        assert joins.median > 0
        assert leaves.parts.keys() == {"B", "Redis 1", "Redis 2"}
        assert isinstance(stage.meter(), Meter)


@async_test
async def test_a_node_of_many_namespaces_is_whole_again_after_each_fault() -> None:
    """There is a longest turn and a time for each of them."""
    rows = await many_namespaces.measure(SMALL, "asyncio", lambda text: None, 2)
    assert len([row for row in rows if "longest turn" in row.what]) == 3
    assert len([row for row in rows if "until it is whole" in row.what and row.median > 0]) == 3
