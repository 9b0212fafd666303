"""``members``, ``count``, ``locate``, ``namespaces``, ``nodes`` and ``drains``: read a cluster.

An empty list prints nothing on standard output, and the reason on standard error.
"""

from collections.abc import Awaitable, Callable

from cluster_pool.cli.common import (
    DEFAULT_REDIS,
    DONE,
    NO,
    IdArgument,
    JsonOption,
    NamespaceArgument,
    PrefixOption,
    RedisOption,
    TimeoutOption,
    complain,
    note,
    profile_fields,
    run,
    say,
)
from cluster_pool.core.ids import check_id, check_namespace, shown
from cluster_pool.core.keys import DEFAULT_PREFIX
from cluster_pool.core.results import DrainProgress
from cluster_pool.publisher import Publisher

Look = Callable[[Publisher], Awaitable[int]]


def members(
    namespace: NamespaceArgument,
    redis: RedisOption = DEFAULT_REDIS,
    prefix: PrefixOption = DEFAULT_PREFIX,
    timeout: TimeoutOption = 2.0,
    as_json: JsonOption = False,
) -> None:
    """List the members of a namespace and the node that owns each, one a line.

    0, also when it has none, which is said on standard error; 1: no node lives under the prefix.
    """

    async def look(publisher: Publisher) -> int:
        found = False
        async for member in publisher.members(namespace):
            found = True
            fields = {"id": member.id, "node": member.node, **profile_fields(member)}
            say(as_json, fields, f"{member.id}\t{member.node}")
        return DONE if found else await _say_empty(publisher, prefix, namespace)

    _look(look, redis, prefix, timeout, namespace)


def count(
    namespace: NamespaceArgument,
    redis: RedisOption = DEFAULT_REDIS,
    prefix: PrefixOption = DEFAULT_PREFIX,
    timeout: TimeoutOption = 2.0,
    as_json: JsonOption = False,
) -> None:
    """Print how many members a namespace has.

    0, also when it has none, which is said on standard error; 1: no node lives under the prefix.
    """

    async def look(publisher: Publisher) -> int:
        number = await publisher.count(namespace)
        say(as_json, {"count": number}, str(number))
        return DONE if number else await _say_empty(publisher, prefix, namespace)

    _look(look, redis, prefix, timeout, namespace)


def locate(
    namespace: NamespaceArgument,
    id: IdArgument,
    redis: RedisOption = DEFAULT_REDIS,
    prefix: PrefixOption = DEFAULT_PREFIX,
    timeout: TimeoutOption = 2.0,
    as_json: JsonOption = False,
) -> None:
    """Print the node that owns an id: 0, or 1 when no living node does.

    Then nothing is printed on standard output, or with --json a node that is null.
    """

    async def look(publisher: Publisher) -> int:
        check_id(id)
        member = await publisher.locate(namespace, id)
        if member is not None:
            say(as_json, {"id": id, "node": member.node}, member.node)
            return DONE
        if as_json:
            say(True, {"id": id, "node": None}, "")
        owned = f"{shown(id)} in {shown(namespace)}"
        complain(f"no node under the prefix {shown(prefix)} owns {owned}", NO)
        return NO

    _look(look, redis, prefix, timeout, namespace)


def namespaces(
    redis: RedisOption = DEFAULT_REDIS,
    prefix: PrefixOption = DEFAULT_PREFIX,
    timeout: TimeoutOption = 2.0,
    as_json: JsonOption = False,
) -> None:
    """List the namespaces that have members, sorted, one a line.

    0, also when there are none, which is said on standard error; 1: no node lives under the prefix.
    """

    async def look(publisher: Publisher) -> int:
        names = await publisher.namespaces()
        for name in names:
            say(as_json, {"namespace": name}, name)
        return DONE if names else await _say_none(publisher, prefix, "has any member")

    _look(look, redis, prefix, timeout)


def nodes(
    redis: RedisOption = DEFAULT_REDIS,
    prefix: PrefixOption = DEFAULT_PREFIX,
    timeout: TimeoutOption = 2.0,
    as_json: JsonOption = False,
) -> None:
    """List the live nodes with their state and how many connections they said they hold.

    0, or 1 when no node lives under the prefix, which is said on standard error.
    """

    async def look(publisher: Publisher) -> int:
        found = await publisher.nodes()
        for node in found:
            fields = {
                "node": node.id,
                "incarnation": node.incarnation,
                "state": node.state.value,
                "connections": node.connections,
                "lease": round(node.lease, 3),
            }
            text = f"{node.id}\t{node.state.value}\t{node.connections} connections"
            say(as_json, fields, f"{text}\tlease {node.lease:.1f} s")
        return DONE if found else _say_why(*_no_node(prefix))

    _look(look, redis, prefix, timeout)


def drains(
    redis: RedisOption = DEFAULT_REDIS,
    prefix: PrefixOption = DEFAULT_PREFIX,
    timeout: TimeoutOption = 2.0,
    as_json: JsonOption = False,
) -> None:
    """List the drains under way: of which node, how far, how fast, and until when.

    0, also when there are none, which is said on standard error; 1: no node lives under the prefix.
    """

    async def look(publisher: Publisher) -> int:
        found = await publisher.drains()
        for drain in found:
            _say_drain(as_json, drain)
        return DONE if found else await _say_none(publisher, prefix, "drains")

    _look(look, redis, prefix, timeout)


def _say_drain(as_json: bool, drain: DrainProgress) -> None:
    left = None if drain.time_left is None else round(drain.time_left, 1)
    fields = {
        "node": drain.node,
        "state": drain.state,
        "remaining": drain.remaining,
        "total": drain.total,
        "rate": round(drain.rate, 1),
        "time_left": left,
    }
    closed = f"{drain.total - drain.remaining} of {drain.total} closed"
    until = "" if left is None else f"\t{left:.0f} s left"
    text = f"{drain.node}\t{drain.state}\t{closed}\tat {drain.rate:.0f} a second{until}"
    say(as_json, fields, text)


def _look(
    look: Look, redis: str, prefix: str, timeout: float, namespace: str | None = None
) -> None:
    """Connect, look, and exit with the status that ``look`` returns."""

    async def work() -> int:
        if namespace is not None:
            check_namespace(namespace)
        async with Publisher(redis, prefix=prefix, timeout=timeout) as publisher:
            return await look(publisher)

    run(work())


async def _say_empty(publisher: Publisher, prefix: str, namespace: str) -> int:
    return _say_why(*await why_empty(publisher, prefix, namespace))


async def _say_none(publisher: Publisher, prefix: str, what: str) -> int:
    return _say_why(*await _why_none(publisher, prefix, what))


def _say_why(text: str, status: int) -> int:
    if status == DONE:
        note(text)
    else:
        complain(text, status)
    return status


async def why_empty(publisher: Publisher, prefix: str, namespace: str) -> tuple[str, int]:
    """Explain why a namespace, whose name may be misspelt, has no member; with an exit status."""
    return await _why_none(publisher, prefix, f"knows the namespace {shown(namespace)}")


async def _why_none(publisher: Publisher, prefix: str, what: str) -> tuple[str, int]:
    if await publisher.nodes():
        return f"no node under the prefix {shown(prefix)} {what}", DONE
    return _no_node(prefix)


def _no_node(prefix: str) -> tuple[str, int]:
    return f"no node lives under the prefix {shown(prefix)}", NO
