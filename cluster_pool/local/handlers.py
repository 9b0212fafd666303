"""The events of a connection, and the handlers that a type checker lets users register for them."""

from collections.abc import Callable
from typing import Any, Final, Literal, TypeVar, get_args

from cluster_pool.core.message import Message

ConnectionEvent = Literal["message", "close", "error"]
EVENTS: Final[tuple[ConnectionEvent, ...]] = get_args(ConnectionEvent)

OnMessage = TypeVar("OnMessage", bound=Callable[[Message], Any])
OnClose = TypeVar("OnClose", bound=Callable[[int, str], Any])
OnError = TypeVar("OnError", bound=Callable[[Exception], Any])
