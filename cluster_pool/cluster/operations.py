"""An ASGI application that answers requests about a node, to be mounted in a user's own.

It speaks ASGI itself: any framework can mount it, and any server can run it.
"""

import http
from collections.abc import Awaitable, Callable, MutableMapping
from functools import partial
from typing import Any, Final

from cluster_pool.auth.tokens import check_token, is_bearer
from cluster_pool.cluster.answers import (
    HEALTHY,
    UNAUTHORIZED,
    Answer,
    Observed,
    metrics,
    readiness,
    status,
)

Event = MutableMapping[str, Any]
"""A scope or a message of ASGI."""

METHODS: Final = ("GET", "HEAD")


class Operations:
    """Answers ``/healthz`` and ``/readyz``, and with a token ``/metrics`` and ``/status``.

    Args:
        token: without one, nothing else is there: the statistics are not for every client.

    Raises:
        InvalidValueError: the token is no str of visible ASCII characters.
    """

    def __init__(self, pool: Observed, token: str | None) -> None:
        self._token = token or ""
        check_token(self._token)
        self._open: dict[str, Callable[[], Answer]] = {
            "/healthz": lambda: HEALTHY,
            "/readyz": partial(readiness, pool),
        }
        self._guarded: dict[str, Callable[[], Answer]] = {
            "/metrics": partial(metrics, pool),
            "/status": partial(status, pool),
        }

    async def __call__(
        self,
        scope: Event,
        receive: Callable[[], Awaitable[Event]],
        send: Callable[[Event], Awaitable[None]],
    ) -> None:
        """Answer one request; refuse a WebSocket.

        Raises:
            NotImplementedError: the scope is of another type. Servers take that for an application
                without a lifespan.
        """
        if scope["type"] == "websocket":
            await send({"type": "websocket.close"})
            return
        if scope["type"] != "http":
            raise NotImplementedError(f"scopes of type {scope['type']!r} are not served here")
        answer = self._answer(scope)
        body = answer.text.encode()
        headers = {"Content-Type": answer.kind, "Content-Length": str(len(body)), **answer.headers}
        await send(
            {
                "type": "http.response.start",
                "status": answer.status.value,
                "headers": [(k.lower().encode(), v.encode()) for k, v in headers.items()],
            }
        )
        whole = b"" if scope["method"] == "HEAD" else body
        await send({"type": "http.response.body", "body": whole})

    def _answer(self, scope: Event) -> Answer:
        path = path_of(scope)
        guarded = self._guarded if self._token else {}
        ask = self._open.get(path) or guarded.get(path)
        if ask is None:
            here = ", ".join((*self._open, *guarded))
            return Answer(http.HTTPStatus.NOT_FOUND, f"not here: {here}\n")
        if scope["method"] not in METHODS:
            allowed = ", ".join(METHODS)
            text = f"only {allowed}\n"
            return Answer(http.HTTPStatus.METHOD_NOT_ALLOWED, text, headers={"Allow": allowed})
        if path in guarded and not is_bearer(_said(scope), self._token):
            return UNAUTHORIZED
        return ask()


def path_of(scope: Event) -> str:
    """The path below the place where the application is mounted.

    By ASGI a path includes the root path. Some frameworks remove it, and a proxy may have removed
    the part of it that the application itself has been given.
    """
    path, root = str(scope["path"]), str(scope.get("root_path", "")).rstrip("/")
    for prefix in (root, root.removeprefix(scope.get("app_root_path", ""))):
        if path.startswith(f"{prefix}/"):
            return path.removeprefix(prefix)
    return path


def _said(scope: Event) -> list[bytes]:
    """Every value of the header ``Authorization``."""
    return [value for name, value in scope["headers"] if name.lower() == b"authorization"]
