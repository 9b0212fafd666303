"""The errors of a pool and a publisher before their start and after their stop, by name."""

import inspect
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from cluster_pool import ClusterPool, Connection, PoolClosedError, Publisher, Stopping
from cluster_pool.testing import FakeWebSocket
from tests.clusters import Backend
from tests.support import async_test

LIFETIME = {"start", "stop", "lifespan"}
READ_OR_REGISTER = {
    *("free", "has_namespace", "headroom", "metrics", "on", "operations", "statistics"),
    "drain_on_signal",
}
"""Calls that work without a start: the last takes the signals, and waits for one."""
OVER_ALREADY = {"hurry_drain", "remove_connection"}
"""Calls that ask for an end: after the stop they do nothing, as another stop does."""

ARGUMENTS: dict[str, Any] = {
    "namespace": "n",
    "id": "a",
    "message": "m",
    "value": {},
    "node_id": "node",
    "event": "gap",
    "rate": 3.0,
    "stopping": Stopping(),
    "grace": 1.0,
    "announce": 0.0,
}


def public_names(kind: type) -> list[str]:
    """Methods and properties."""
    return sorted({name for name in dir(kind) if not name.startswith("_")} - LIFETIME)


async def use(owner: object, name: str) -> object:
    """Read an attribute or make a call, to its end."""
    found = getattr(owner, name)
    if not callable(found):
        return found
    positional, named = [], {}
    for parameter in inspect.signature(found).parameters.values():
        if parameter.default is not parameter.empty:
            continue
        value = ARGUMENTS.get(parameter.name)
        if parameter.name == "connection":
            value = Connection("a", "n", FakeWebSocket())
        elif parameter.name == "websocket":
            value = FakeWebSocket()
            named["namespace"] = "n"  # may be left out where an identity names it
        if parameter.kind is parameter.KEYWORD_ONLY:
            named[parameter.name] = value
        else:
            positional.append(value)
    result = found(*positional, **named)
    if inspect.isawaitable(result):
        return await result
    if isinstance(result, AbstractAsyncContextManager):
        async with result as entered:
            return entered
    if isinstance(result, AsyncIterator):
        return [item async for item in result]
    return result


@pytest.mark.parametrize("kind", [ClusterPool, Publisher])
@pytest.mark.parametrize("ran_before", [False, True])
@async_test
async def test_every_call_works_or_says_that_it_is_not_started(
    kind: type[ClusterPool] | type[Publisher], ran_before: bool
) -> None:
    """Each raises PoolClosedError, except those that read or register; none hangs.

    A property only reads.
    """
    owner = kind(Backend(None).redis())
    if ran_before:
        async with owner:
            pass
    for name in public_names(kind):
        read = isinstance(getattr(kind, name), property) or name in READ_OR_REGISTER
        if read or (ran_before and name in OVER_ALREADY):
            await use(owner, name)
        else:
            with pytest.raises(PoolClosedError):
                pytest.fail(f"{name} gave {await use(owner, name)!r}")


@async_test
async def test_a_pool_that_runs_again_has_its_connections_again() -> None:
    """``local`` and ``get_connection`` work again after the second start."""
    pool = ClusterPool(Backend(None).redis())
    for _ in range(2):
        async with pool:
            assert pool.local.get_connection("n", "a") is None
            assert pool.get_connection("n", "a") is None
        with pytest.raises(PoolClosedError):
            pool.local.get_connection("n", "a")


def test_its_own_connections_are_not_there_before_the_start() -> None:
    """Every call on ``local`` raises as the pool does."""
    with pytest.raises(PoolClosedError):
        ClusterPool(Backend(None).redis()).local.statistics()
