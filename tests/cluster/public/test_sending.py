"""Sends and closes of a user's program, and their answers."""

import asyncio

import pytest

from cluster_pool import (
    InvalidIdError,
    InvalidMessageError,
    Limits,
    PendingLimitError,
    PoolClosedError,
    SendResult,
)
from tests.clusters import Backend
from tests.support import async_test, eventually


@async_test
async def test_send_nowait_has_its_place_when_it_returns(backend: Backend) -> None:
    """Messages and broadcasts arrive in the order of the calls, although none is awaited."""
    async with backend.pools() as (one, two):
        bob = await two.join("default", "bob")
        futures = [one.send_nowait("default", "bob", str(number)) for number in range(100)]
        await one.broadcast_message("default", "all")
        one.send_nowait("default", "bob", b"last")
        assert await bob.wait_sent(102) == [*map(str, range(100)), "all", b"last"]
        assert await asyncio.gather(*futures) == [SendResult.ROUTED] * 100
        assert await one.send_nowait("default", "nobody", "x") is SendResult.ABSENT
        assert two.send_nowait("default", "bob", "here").result() is SendResult.DELIVERED


@async_test
async def test_send_nowait_refuses_at_once(backend: Backend) -> None:
    """An invalid or surplus message raises in the call, not in the future."""
    async with backend.pools(limits=Limits(pending_messages=2)) as (one, _):
        with pytest.raises(InvalidIdError):
            one.send_nowait("default", "", "x")
        with pytest.raises(InvalidMessageError):
            one.send_nowait("default", "bob", 5)  # type: ignore[arg-type]  # what is tested
        waiting = [one.send_nowait("default", "bob", "x") for _ in range(2)]
        with pytest.raises(PendingLimitError):
            one.send_nowait("default", "bob", "x")
        assert await asyncio.gather(*waiting) == [SendResult.ABSENT] * 2
    with pytest.raises(PoolClosedError):
        one.send_nowait("default", "bob", "x")


@async_test
async def test_send_nowait_that_is_cancelled_is_not_sent(backend: Backend) -> None:
    """Until it leaves for Redis, a message can be taken back; those around it are sent."""
    async with backend.pools() as (one, two):
        bob = await two.join("default", "bob")
        futures = [one.send_nowait("default", "bob", text) for text in "abc"]
        futures[1].cancel()
        assert await one.send("default", "bob", "d") is SendResult.ROUTED
        assert await bob.wait_sent(3) == ["a", "c", "d"]


@async_test
async def test_send_to_an_unowned_id_is_absent(backend: Backend) -> None:
    """An id that no one owns is said to be absent, with and without confirm."""
    async with backend.pools() as (one, two):
        await two.join("default", "bob")
        for confirm in (False, True):
            assert await one.send("default", "nobody", "x", confirm=confirm) is SendResult.ABSENT
        assert await one.send("elsewhere", "bob", "x") is SendResult.ABSENT


@async_test
async def test_confirmed_send_gives_the_owners_word(backend: Backend) -> None:
    """With confirm the answer is the owner's: delivered, or refused by a closing connection."""
    async with backend.pools() as (one, two):
        bob = await two.join("default", "bob")
        assert await one.send("default", "bob", "1", confirm=True) is SendResult.DELIVERED
        assert await bob.wait_sent() == ["1"]


@async_test
async def test_close_and_close_all_across_nodes(backend: Backend) -> None:
    """A remote close carries code and reason; closed members are members no longer."""
    async with backend.pools() as (one, two):
        bob = await two.join("n", "bob")
        others = [await pool.join("n", f"{pool.node_id}-x") for pool in (one, two)]
        assert await one.close("n", "bob", 4000, "you") is SendResult.ROUTED
        assert await bob.wait_closed() == (4000, "you")
        assert await one.close("n", "nobody") is SendResult.ABSENT
        assert await one.close_all("n", 4001, "all") == 2
        for other in others:
            assert await other.wait_closed() == (4001, "all")
        for pool in (one, two):
            await eventually(lambda: not pool.has_namespace("n"))  # noqa: B023  # awaited here
        assert await one.count("n") == 0
        assert not one.has_namespace("n")


@async_test
async def test_send_then_close_keeps_the_message_ahead(backend: Backend) -> None:
    """The message arrives and the close follows it, locally and across nodes."""
    async with backend.pools() as (one, two):
        alice, bob = await one.join("n", "alice"), await two.join("n", "bob")
        for id, socket in (("alice", alice), ("bob", bob)):
            assert await one.send_json_then_close("n", id, {"bye": id}, 4002, "done")
            assert await socket.wait_closed() == (4002, "done")
            assert socket.sent == [f'{{"bye":"{id}"}}']
