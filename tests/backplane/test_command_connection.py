"""Commands over one socket: each reply goes to its call, and a failure tells what was sent."""

import asyncio
from collections.abc import Iterable
from typing import Any

import pytest
from redis.exceptions import NoScriptError, ResponseError

from cluster_pool import BackplaneUnavailableError
from cluster_pool.backplane.command_connection import CommandConnection
from tests.support import async_test


class Socket:
    """Keeps the bytes written, and answers with prepared replies; then it is silent."""

    def __init__(self, replies: Iterable[Any] = ()) -> None:
        self.replies = list(replies)
        self.written: list[list[bytes]] = []
        self.open = True

    async def send_packed_command(self, commands: list[bytes], **_: Any) -> None:
        self.written.append(commands)

    async def read_response(self, **_: Any) -> Any:
        if not self.replies:
            await asyncio.Event().wait()
        reply = self.replies.pop(0)
        if isinstance(reply, Exception):
            raise reply
        return reply

    async def disconnect(self, **_: Any) -> None:
        self.open = False


def made(*replies: Any) -> tuple[Any, CommandConnection]:
    """A socket with prepared replies, and a connection over it."""
    socket: Any = Socket(replies)
    return socket, CommandConnection(socket)


@async_test
async def test_commands_of_one_tick_leave_in_one_write_and_are_answered_in_order() -> None:
    """An error reply keeps its place and does not affect others."""
    socket, commands = made(b"one", ResponseError("two"), b"three")
    calls = [commands.call("GET", str(at)) for at in range(3)]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(commands.write_forever())]
        tasks.append(group.create_task(commands.read_forever()))
        await asyncio.wait(calls)
        for task in tasks:
            task.cancel()
    assert (await calls[0], await calls[2]) == (b"one", b"three")
    with pytest.raises(ResponseError, match="two"):
        await calls[1]
    assert [len(written) for written in socket.written] == [3]


@async_test
async def test_a_failure_tells_what_may_have_been_executed() -> None:
    """Only commands that were written; later ones are not written at all."""
    socket, commands = made()
    written = commands.call("SET", "a", "1")
    writing = asyncio.create_task(commands.write_forever())
    await asyncio.sleep(0.01)
    unwritten = commands.call("SET", "b", "2")
    await commands.fail(BackplaneUnavailableError("cut"))
    later = commands.call("SET", "c", "3")
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)
    for call, maybe_executed in ((written, True), (unwritten, False), (later, False)):
        with pytest.raises(BackplaneUnavailableError, match="cut") as raised:
            await call
        assert raised.value.maybe_executed is maybe_executed
    assert commands.failed
    assert not socket.open


@async_test
async def test_an_unknown_script_ends_the_connection() -> None:
    """A command queued behind it must not be executed as if the script had run."""
    _, commands = made(NoScriptError("NOSCRIPT No matching script"), b"behind")
    first, behind = commands.call("EVALSHA", "x", 0), commands.call("GET", "a")
    with pytest.raises(BackplaneUnavailableError):
        await commands.read_forever()
    with pytest.raises(BackplaneUnavailableError, match="NOSCRIPT"):
        await first
    assert not behind.done()
