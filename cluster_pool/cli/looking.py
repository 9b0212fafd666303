"""``members`` and ``nodes``."""

from cluster_pool.cli.common import (
    DEFAULT_REDIS,
    DONE,
    JsonOption,
    NamespaceArgument,
    PrefixOption,
    RedisOption,
    TimeoutOption,
    run,
    say,
)
from cluster_pool.core.ids import check_namespace
from cluster_pool.core.keys import DEFAULT_PREFIX
from cluster_pool.publisher import Publisher


def members(
    namespace: NamespaceArgument,
    redis: RedisOption = DEFAULT_REDIS,
    prefix: PrefixOption = DEFAULT_PREFIX,
    timeout: TimeoutOption = 2.0,
    as_json: JsonOption = False,
) -> None:
    """List the members of a namespace and the node that owns each, one a line."""

    async def work() -> int:
        check_namespace(namespace)
        async with Publisher(redis, prefix=prefix, timeout=timeout) as publisher:
            async for member in publisher.members(namespace):
                fields = {"id": member.id, "node": member.node}
                say(as_json, fields, f"{member.id}\t{member.node}")
        return DONE

    run(work())


def nodes(
    redis: RedisOption = DEFAULT_REDIS,
    prefix: PrefixOption = DEFAULT_PREFIX,
    timeout: TimeoutOption = 2.0,
    as_json: JsonOption = False,
) -> None:
    """List the live nodes with their state and how many connections they said they hold."""

    async def work() -> int:
        async with Publisher(redis, prefix=prefix, timeout=timeout) as publisher:
            for node in await publisher.nodes():
                fields = {
                    "node": node.id,
                    "incarnation": node.incarnation,
                    "state": node.state.value,
                    "connections": node.connections,
                    "lease": round(node.lease, 3),
                }
                text = f"{node.id}\t{node.state.value}\t{node.connections} connections"
                say(as_json, fields, f"{text}\tlease {node.lease:.1f} s")
        return DONE

    run(work())
