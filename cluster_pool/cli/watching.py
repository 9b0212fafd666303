"""``watch``: prints joins and leaves as they happen, until the output has no reader."""

import asyncio
import contextlib
import fcntl
import os
import stat
import sys
from collections.abc import AsyncIterator

from cluster_pool.cli.common import (
    DEFAULT_REDIS,
    JsonOption,
    NamespaceArgument,
    PrefixOption,
    RedisOption,
    TimeoutOption,
    note,
    profile_fields,
    run,
    say,
)
from cluster_pool.cli.looking import why_empty
from cluster_pool.core.ids import check_namespace
from cluster_pool.core.keys import DEFAULT_PREFIX
from cluster_pool.core.results import MemberEvent
from cluster_pool.publisher import Publisher


def watch(
    namespace: NamespaceArgument,
    redis: RedisOption = DEFAULT_REDIS,
    prefix: PrefixOption = DEFAULT_PREFIX,
    timeout: TimeoutOption = 2.0,
    as_json: JsonOption = False,
) -> None:
    """Print who joins and who leaves a namespace, one a line, until it is interrupted.

    An event is join, update (of its info), leave or lost: events were missed there, and 'members'
    tells who is there now. A namespace without members is said on standard error once, and waited
    for. It goes on when Redis is away for a while. Interrupted it ends with 130, without a reader
    with 141.
    """

    async def work() -> int:
        check_namespace(namespace)
        async with (
            _ending_with_the_reader(),
            Publisher(redis, prefix=prefix, timeout=timeout) as publisher,
            publisher.watching(namespace) as events,
        ):
            if not await publisher.count(namespace):
                note((await why_empty(publisher, prefix, namespace))[0])
            async for event in events:
                _say_event(as_json, event)
        raise AssertionError("a watch has no end of its own")

    run(work())


def _say_event(as_json: bool, event: MemberEvent) -> None:
    words = {"event": event.event, "id": event.id, "node": event.node}
    say(as_json, words | profile_fields(event), "\t".join(filter(None, words.values())))


@contextlib.asynccontextmanager
async def _ending_with_the_reader() -> AsyncIterator[None]:
    """Raise BrokenPipeError inside as soon as a piped output has no reader.

    Without this it would be raised at the next line, which may never come. The writing end of a
    pipe becomes readable when its reading end is closed.
    """
    gone = False
    task = asyncio.current_task()
    loop = asyncio.get_running_loop()
    assert task is not None
    descriptor = -1 if sys.stdout is None else sys.stdout.fileno()
    piped = descriptor >= 0 and _is_written_pipe(descriptor)

    def end() -> None:
        nonlocal gone
        gone = True
        loop.remove_reader(descriptor)
        task.cancel()

    if piped:
        loop.add_reader(descriptor, end)
    try:
        yield
    except asyncio.CancelledError:
        if not gone:
            raise
        task.uncancel()
        raise BrokenPipeError from None
    finally:
        if piped:
            loop.remove_reader(descriptor)


def _is_written_pipe(descriptor: int) -> bool:
    """Whether a descriptor is the writing end of a pipe; any other may be readable by itself."""
    access = fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE
    return access == os.O_WRONLY and stat.S_ISFIFO(os.fstat(descriptor).st_mode)
