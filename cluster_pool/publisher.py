"""Sending from a process that holds no connections: a view, a worker, a script."""

import asyncio
import threading
from collections.abc import Coroutine, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Self, TypeVar

from cluster_pool.cluster.sender import DEFAULT_REDIS, Sender
from cluster_pool.core.closing import NORMAL
from cluster_pool.core.config import Limits, Timing
from cluster_pool.core.keys import DEFAULT_PREFIX
from cluster_pool.core.results import DrainProgress, Member, Node, SendResult
from cluster_pool.core.seals import Secret
from cluster_pool.core.statistics import Counters
from cluster_pool.exceptions import PoolClosedError

if TYPE_CHECKING:
    from redis.asyncio import Redis

T = TypeVar("T")


class Publisher(Sender):
    """Reaches every member of the cluster, and is no node of it.

    ``async with Publisher("redis://…") as publisher: await publisher.send("room", "alice", "hi")``

    Args:
        redis: a URL, or a ``redis.asyncio.Redis`` of which address, credentials and TLS are used.
        prefix: the cluster's; the default is refused with a database other than 0.
        timeout: seconds that an operation may take unless the call says otherwise.
        limits: see :class:`Limits`.
    """

    def __init__(
        self,
        redis: "str | Redis" = DEFAULT_REDIS,
        *,
        prefix: str = DEFAULT_PREFIX,
        timeout: float = 2.0,
        limits: Limits | None = None,
        secret: Secret | Iterable[Secret] | None = None,
    ) -> None:
        super().__init__(
            redis,
            None,
            prefix=prefix,
            limits=limits or Limits(),
            timing=Timing(timeout=timeout),
            counters=Counters(),
            secret=secret,
        )


class SyncPublisher:
    """:class:`Publisher` for code without an event loop: the same methods, blocking.

    It runs a publisher in a thread of its own, begun at the first use, so it may be made before a
    fork. It may be used from several threads at once; sends from one thread keep their order.
    Close it, or use it with ``with``.

    Args: as :class:`Publisher`, but ``redis`` is a URL.
    """

    def __init__(
        self,
        redis: str = DEFAULT_REDIS,
        *,
        prefix: str = DEFAULT_PREFIX,
        timeout: float = 2.0,
        limits: Limits | None = None,
        secret: Secret | Iterable[Secret] | None = None,
    ) -> None:
        self._publisher = Publisher(
            redis, prefix=prefix, timeout=timeout, limits=limits, secret=secret
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._stopped = False

    def __enter__(self) -> Self:
        self._started()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Disconnect and end the thread. Harmless when called twice."""
        with self._lock:
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
            self._stopped = True
        if loop is not None and thread is not None:
            asyncio.run_coroutine_threadsafe(self._publisher.stop(), loop).result()
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()

    def send(self, namespace: str, id: str, message: str | bytes, **options: Any) -> SendResult:
        """As :meth:`Publisher.send`."""
        return self._call(self._publisher.send(namespace, id, message, **options))

    def send_json(self, namespace: str, id: str, value: Any, **options: Any) -> SendResult:
        """As :meth:`Publisher.send_json`."""
        return self._call(self._publisher.send_json(namespace, id, value, **options))

    def send_then_close(
        self,
        namespace: str,
        id: str,
        message: str | bytes,
        code: int = NORMAL,
        reason: str = "",
        **options: Any,
    ) -> SendResult:
        """As :meth:`Publisher.send_then_close`."""
        return self._call(
            self._publisher.send_then_close(namespace, id, message, code, reason, **options)
        )

    def broadcast_message(
        self, namespace: str, message: str | bytes, exclude: Iterable[str] = (), **options: Any
    ) -> int:
        """As :meth:`Publisher.broadcast_message`."""
        return self._call(self._publisher.broadcast_message(namespace, message, exclude, **options))

    def broadcast_json_message(
        self, namespace: str, value: Any, exclude: Iterable[str] = (), **options: Any
    ) -> int:
        """As :meth:`Publisher.broadcast_json_message`."""
        return self._call(
            self._publisher.broadcast_json_message(namespace, value, exclude, **options)
        )

    def close(
        self, namespace: str, id: str, code: int = NORMAL, reason: str = "", **options: Any
    ) -> SendResult:
        """As :meth:`Publisher.close`: closes a member's connection, not this publisher."""
        return self._call(self._publisher.close(namespace, id, code, reason, **options))

    def close_all(
        self, namespace: str, code: int = NORMAL, reason: str = "", **options: Any
    ) -> int:
        """As :meth:`Publisher.close_all`."""
        return self._call(self._publisher.close_all(namespace, code, reason, **options))

    def count(self, namespace: str, **options: Any) -> int:
        """As :meth:`Publisher.count`."""
        return self._call(self._publisher.count(namespace, **options))

    def locate(self, namespace: str, id: str, **options: Any) -> Member | None:
        """As :meth:`Publisher.locate`."""
        return self._call(self._publisher.locate(namespace, id, **options))

    def namespaces(self, **options: Any) -> list[str]:
        """As :meth:`Publisher.namespaces`."""
        return self._call(self._publisher.namespaces(**options))

    def nodes(self, **options: Any) -> list[Node]:
        """As :meth:`Publisher.nodes`."""
        return self._call(self._publisher.nodes(**options))

    def drain_node(self, node_id: str, max_per_second: float | None = None, **options: Any) -> None:
        """As :meth:`Publisher.drain_node`."""
        self._call(self._publisher.drain_node(node_id, max_per_second, **options))

    def pause_drain(self, node_id: str, **options: Any) -> None:
        """As :meth:`Publisher.pause_drain`."""
        self._call(self._publisher.pause_drain(node_id, **options))

    def resume_drain(self, node_id: str, **options: Any) -> None:
        """As :meth:`Publisher.resume_drain`."""
        self._call(self._publisher.resume_drain(node_id, **options))

    def cancel_drain(self, node_id: str, **options: Any) -> None:
        """As :meth:`Publisher.cancel_drain`."""
        self._call(self._publisher.cancel_drain(node_id, **options))

    def activate(self, node_id: str, **options: Any) -> None:
        """As :meth:`Publisher.activate`."""
        self._call(self._publisher.activate(node_id, **options))

    def drains(self, **options: Any) -> list[DrainProgress]:
        """As :meth:`Publisher.drains`."""
        return self._call(self._publisher.drains(**options))

    def drain_budget(self, **options: Any) -> float | None:
        """As :meth:`Publisher.drain_budget`."""
        return self._call(self._publisher.drain_budget(**options))

    def set_drain_budget(self, rate: float | None, **options: Any) -> None:
        """As :meth:`Publisher.set_drain_budget`."""
        self._call(self._publisher.set_drain_budget(rate, **options))

    def members(self, namespace: str, **options: Any) -> Iterator[Member]:
        """As :meth:`Publisher.members`, a page at a time."""
        pages = self._publisher.members(namespace, **options)
        while True:
            try:
                yield self._call(anext(pages))  # type: ignore[arg-type]  # it is a coroutine
            except StopAsyncIteration:
                return

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            loop = self._started()
        except BaseException:
            work.close()
            raise
        return asyncio.run_coroutine_threadsafe(work, loop).result()

    def _started(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._stopped:
                raise PoolClosedError("this publisher was stopped")
            if self._loop is None:
                loop = asyncio.new_event_loop()
                thread = threading.Thread(
                    target=loop.run_forever, name="cluster_pool publisher", daemon=True
                )
                thread.start()
                try:
                    asyncio.run_coroutine_threadsafe(self._publisher.start(), loop).result()
                except BaseException:
                    loop.call_soon_threadsafe(loop.stop)
                    thread.join()
                    loop.close()
                    raise
                self._loop, self._thread = loop, thread
            return self._loop
