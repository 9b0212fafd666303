"""Sends and closes of a user's program, and their answers."""

import asyncio

import pytest
from starlette.background import BackgroundTask

from cluster_pool import (
    InvalidIdError,
    InvalidMessageError,
    InvalidValueError,
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
        bob = await two.host("default", "bob")
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
        bob = await two.host("default", "bob")
        futures = [one.send_nowait("default", "bob", text) for text in "abc"]
        futures[1].cancel()
        assert await one.send("default", "bob", "d") is SendResult.ROUTED
        assert await bob.wait_sent(3) == ["a", "c", "d"]


@async_test
async def test_send_to_an_unowned_id_is_absent(backend: Backend) -> None:
    """An id that no one owns is said to be absent, with and without confirm."""
    async with backend.pools() as (one, two):
        await two.host("default", "bob")
        for confirm in (False, True):
            assert await one.send("default", "nobody", "x", confirm=confirm) is SendResult.ABSENT
        assert await one.send("elsewhere", "bob", "x") is SendResult.ABSENT


@async_test
async def test_confirmed_send_gives_the_owners_word(backend: Backend) -> None:
    """With confirm the answer is the owner's: delivered, or refused by a closing connection."""
    async with backend.pools() as (one, two):
        bob = await two.host("default", "bob")
        assert await one.send("default", "bob", "1", confirm=True) is SendResult.DELIVERED
        assert await bob.wait_sent() == ["1"]


@async_test
async def test_close_and_close_all_across_nodes(backend: Backend) -> None:
    """A remote close carries code and reason; closed members are members no longer."""
    async with backend.pools() as (one, two):
        bob = await two.host("n", "bob")
        others = [await pool.host("n", f"{pool.node_id}-x") for pool in (one, two)]
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
        alice, bob = await one.host("n", "alice"), await two.host("n", "bob")
        for id, socket in (("alice", alice), ("bob", bob)):
            assert await one.send_json_then_close("n", id, {"bye": id}, 4002, "done")
            assert await socket.wait_closed() == (4002, "done")
            assert socket.sent == [f'{{"bye":"{id}"}}']


@async_test
async def test_gathered_calls_keep_their_order(backend: Backend) -> None:
    """Sends, broadcasts and confirmed sends together; an error is that of its own call."""
    async with backend.pools() as (one, two):
        bob = await two.host("default", "bob")
        calls = [one.send("default", "bob", str(number)) for number in range(50)]
        results = await asyncio.gather(
            *calls,
            one.broadcast_json_message("default", [1]),
            one.send("default", "bob", "sure", confirm=True),
            one.send("default", "", "x"),
            one.send_json("default", "bob", "end"),
            return_exceptions=True,
        )
        assert results[:52] == [*[SendResult.ROUTED] * 50, 1, SendResult.DELIVERED]
        assert isinstance(results[52], InvalidIdError)
        assert await bob.wait_sent(53) == [*map(str, range(50)), "[1]", "sure", '"end"']


@async_test
async def test_a_full_queue_fails_the_surplus_alone(backend: Backend) -> None:
    """``gather`` tells which of the calls failed."""
    async with backend.pools(limits=Limits(pending_messages=2)) as (one, _):
        calls = [one.send("default", "bob", "x") for _ in range(3)]
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert results[:2] == [SendResult.ABSENT] * 2
        assert isinstance(results[2], PendingLimitError)


@async_test
async def test_a_call_made_in_another_thread_is_sent_in_the_loop_of_the_pool(
    backend: Backend,
) -> None:
    """As ``asyncio.run_coroutine_threadsafe`` is used: its argument is made in the thread."""
    async with backend.pools() as (one, two):
        bob = await two.host("default", "bob")
        loop = asyncio.get_running_loop()

        def in_thread() -> list[object]:
            calls = [
                one.send("default", "bob", "1"),
                one.send("default", "bob", "2", confirm=True),
                one.broadcast_message("default", "3"),
            ]
            return [asyncio.run_coroutine_threadsafe(call, loop).result(20) for call in calls]

        results = await asyncio.to_thread(in_thread)
        assert results == [SendResult.ROUTED, SendResult.DELIVERED, 1]
        assert await bob.wait_sent(3) == ["1", "2", "3"]


@async_test
async def test_a_background_task_of_a_framework_sends(backend: Backend) -> None:
    """Starlette runs whatever is no coroutine function in a thread, and awaits nothing there."""
    async with backend.pools() as (one, two):
        bob = await two.host("default", "bob")
        await BackgroundTask(one.send, "default", "bob", "1")()
        await BackgroundTask(one.broadcast_json_message, "default", 2)()
        assert await bob.wait_sent(2) == ["1", "2"]


@async_test
@pytest.mark.parametrize("confirm", [None, 0, "", "server", 1])
async def test_a_confirm_that_is_no_choice_is_refused(confirm: object) -> None:
    """Also one that Python calls false."""
    async with Backend(None).pools(1) as (one,):
        with pytest.raises(InvalidValueError, match="confirm must be True, False or 'client'"):
            await one.send("n", "a", "x", confirm=confirm)  # type: ignore[arg-type]  # tested
