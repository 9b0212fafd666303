"""A publisher in a thread of its own, for threads that have no event loop.

Owns the thread, its loop, and every call that another thread waits for. Each call ends at its
deadline or at the stop, and a child of a fork uses none of it.
"""

import asyncio
import concurrent.futures
import os
import selectors
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final, Generic, TypeVar

from cluster_pool.cluster.public.handle import Handle
from cluster_pool.exceptions import BackplaneUnavailableError, PoolClosedError

P = TypeVar("P", bound=Handle[Any])
T = TypeVar("T")
Work = Callable[..., Coroutine[Any, Any, T]]

SLACK: Final = 0.5
"""Seconds beyond its deadline that a thread waits for a loop that does not answer."""
LEAST: Final = 0.001
"""The shortest time-out of a call in seconds: 0 is not allowed."""


class Background(Generic[P]):
    """Runs one publisher for other threads, which wait for its calls.

    The thread begins at once, the publisher starts at the first call.

    Args:
        publisher: not started, and not used by any other code.
    """

    def __init__(self, publisher: P) -> None:
        self.publisher = publisher
        self._lock = threading.RLock()  # a signal handler may stop what its thread is using
        self._calls: set[concurrent.futures.Future[Any]] = set()
        self._closed = False
        self._start: asyncio.Task[Any] | None = None
        self._selector = selectors.DefaultSelector()
        self._loop = asyncio.SelectorEventLoop(self._selector)
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="cluster_pool publisher", daemon=True
        )
        try:
            self._thread.start()
        except BaseException:
            self._loop.close()
            raise

    def call(
        self, work: Work[T], arguments: tuple[Any, ...], options: dict[str, Any], timeout: float
    ) -> T:
        """Wait for ``work(publisher, *arguments, timeout=…, **options)``, at most that long.

        Raises:
            PoolClosedError: it was stopped, before or meanwhile.
            BackplaneUnavailableError: Redis could not be reached in time.
            What ``work`` raises.
        """
        future = self._submit(self._carry_out(work, arguments, options, time.monotonic() + timeout))
        try:
            return future.result(timeout + SLACK)
        except concurrent.futures.CancelledError:
            raise PoolClosedError("this publisher was stopped") from None
        except concurrent.futures.TimeoutError:
            raise BackplaneUnavailableError(
                "the publisher's thread does not answer", maybe_executed=True
            ) from None
        finally:
            future.cancel()

    def _submit(self, work: Coroutine[Any, Any, T]) -> "concurrent.futures.Future[T]":
        with self._lock:
            if self._closed:
                work.close()
                raise PoolClosedError("this publisher was stopped")
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
            self._calls.add(future)
        future.add_done_callback(self._calls.discard)
        return future

    def stop(self, timeout: float) -> None:
        """End every call, the publisher and the thread, within ``timeout`` seconds and a little."""
        with self._lock:
            self._closed = True
            calls = list(self._calls)
        for call in calls:
            call.cancel()
        ended = asyncio.run_coroutine_threadsafe(self.publisher.stop(), self._loop)
        try:
            ended.result(timeout + SLACK)
        except concurrent.futures.TimeoutError:
            ended.cancel()
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(SLACK)
            if not self._thread.is_alive():
                self._loop.close()

    def abandon(self) -> None:
        """In the child of a fork, which does not have the thread: let go of the parent's sockets.

        Their descriptors, and that of the selector, are replaced by /dev/null, so that nothing in
        this process can read from the sockets that the parent goes on using.
        """
        self._closed = True
        watched = [key.fd for key in self._selector.get_map().values()]
        with open(os.devnull, "rb") as nowhere:
            for descriptor in (*watched, self._selector.fileno()):
                os.dup2(nowhere.fileno(), descriptor, inheritable=False)

    # -- in the thread ---------------------------------------------------------------------

    async def _carry_out(
        self,
        work: Work[T],
        arguments: tuple[Any, ...],
        options: dict[str, Any],
        deadline: float,
    ) -> T:
        await self._started(deadline)
        timeout = max(deadline - self._loop.time(), LEAST)
        return await work(self.publisher, *arguments, timeout=timeout, **options)

    async def _started(self, deadline: float) -> None:
        """Wait for the start; if it takes longer it goes on, and the next call waits for it."""
        if self._start is None:
            self._start = asyncio.create_task(self.publisher.start())
            self._start.add_done_callback(self._start_ended)
        start = self._start
        if not start.done():
            await asyncio.wait((start,), timeout=deadline - self._loop.time())
        if not start.done():
            where = self.publisher.address
            raise BackplaneUnavailableError(
                self.publisher.trouble or f"no link to Redis at {where} in time"
            )
        start.result()

    def _start_ended(self, start: "asyncio.Task[Any]") -> None:
        """Forget a start that failed: the next call tries again."""
        if start.cancelled() or start.exception() is not None:
            self._start = None
