"""The broadcasts of :class:`SyncPublisher`."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, Literal, overload

from cluster_pool.core.config import Confirm
from cluster_pool.core.results import BroadcastReport
from cluster_pool.publisher import Publisher


class SyncBroadcasts(ABC):
    """Messages for every member of a namespace."""

    @abstractmethod
    def _call(
        self, work: Any, *arguments: Any, timeout: float | None = None, **options: Any
    ) -> Any:
        """Run a method of the publisher in its thread, and wait for it."""

    @overload
    def broadcast_message(
        self,
        namespace: str,
        message: str | bytes,
        exclude: Iterable[str] = (),
        *,
        exclude_users: Iterable[str] = (),
        confirm: Literal[False] = False,
        timeout: float | None = None,
    ) -> int: ...

    @overload
    def broadcast_message(
        self,
        namespace: str,
        message: str | bytes,
        exclude: Iterable[str] = (),
        *,
        exclude_users: Iterable[str] = (),
        confirm: Literal[True, "client"],
        timeout: float | None = None,
    ) -> BroadcastReport: ...

    def broadcast_message(
        self,
        namespace: str,
        message: str | bytes,
        exclude: Iterable[str] = (),
        *,
        exclude_users: Iterable[str] = (),
        confirm: Confirm = False,
        timeout: float | None = None,
    ) -> int | BroadcastReport:
        """As :meth:`Publisher.broadcast_message`."""
        work: Any = Publisher.broadcast_message
        result: int | BroadcastReport = self._call(
            work,
            *(namespace, message, exclude),
            exclude_users=exclude_users,
            confirm=confirm,
            timeout=timeout,
        )
        return result

    @overload
    def broadcast_json_message(
        self,
        namespace: str,
        value: Any,
        exclude: Iterable[str] = (),
        *,
        exclude_users: Iterable[str] = (),
        confirm: Literal[False] = False,
        timeout: float | None = None,
    ) -> int: ...

    @overload
    def broadcast_json_message(
        self,
        namespace: str,
        value: Any,
        exclude: Iterable[str] = (),
        *,
        exclude_users: Iterable[str] = (),
        confirm: Literal[True, "client"],
        timeout: float | None = None,
    ) -> BroadcastReport: ...

    def broadcast_json_message(
        self,
        namespace: str,
        value: Any,
        exclude: Iterable[str] = (),
        *,
        exclude_users: Iterable[str] = (),
        confirm: Confirm = False,
        timeout: float | None = None,
    ) -> int | BroadcastReport:
        """As :meth:`Publisher.broadcast_json_message`."""
        work: Any = Publisher.broadcast_json_message
        result: int | BroadcastReport = self._call(
            work,
            *(namespace, value, exclude),
            exclude_users=exclude_users,
            confirm=confirm,
            timeout=timeout,
        )
        return result
