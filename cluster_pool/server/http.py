"""Reads the targets of requests and makes answers. Pure."""

import http
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qs, unquote

from websockets.asyncio.server import ServerConnection
from websockets.datastructures import Headers
from websockets.exceptions import NegotiationError
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from cluster_pool.auth.tokens import OFFER, RAW
from cluster_pool.cluster.answers import PLAIN, Answer
from cluster_pool.core.client_frames import V1
from cluster_pool.core.history import check_last, check_offer
from cluster_pool.core.ids import check_id, check_namespace
from cluster_pool.exceptions import InvalidValueError

PREFIX: Final = "/ws/"


@dataclass(frozen=True, slots=True)
class Target:
    """The member that a client asks to be; without an id, any. It wants ``rewind`` messages of the
    past, or those behind a position, which it gives by a word that it has."""

    namespace: str
    id: str | None
    rewind: int = 0
    since: str | None = None
    resume: str | None = None


def target_of(path: str) -> Target | None:
    """Return the target of ``/ws/NAMESPACE?id=ID&rewind=N&since=POSITION&resume=WORD``,
    percent-decoded; None for others.

    A slash at the end of the path is not part of the namespace.

    Raises:
        InvalidValueError: one of these is not allowed, a position has no word, or there is a
            fragment, which clients must not send (RFC 6455 section 3).
    """
    if "#" in path:
        raise InvalidValueError("the URL has a fragment: write %23 for a # in an id")
    where, query = split_target(path)
    if not where.startswith(PREFIX):
        return None
    where = where.removesuffix("/")  # a namespace that ends with a slash is written with %2F
    try:
        namespace = unquote(where[len(PREFIX) :], errors="strict")
        fields = parse_qs(query, keep_blank_values=True, errors="strict", max_num_fields=20)
    except ValueError as error:
        raise InvalidValueError(f"the URL cannot be read: {error}") from None
    ids = fields.get("id", [])
    if len(ids) > 1:
        raise InvalidValueError("the URL names more than one id")
    id = check_id(ids[0]) if ids else None
    since, resume = (_text_in(fields, name) for name in ("since", "resume"))
    check_offer(since, resume)
    rewind = _rewind_in(fields.get("rewind", []))
    return Target(check_namespace(namespace), id, rewind, since, resume)


def _text_in(fields: Mapping[str, Sequence[str]], name: str) -> str | None:
    """The only value of a field, if it is there."""
    values = fields.get(name, [])
    if len(values) > 1:
        raise InvalidValueError(f"the URL has more than one {name}")
    return values[0] if values else None


def _rewind_in(values: Sequence[str]) -> int:
    """How many messages of the past a query asks for."""
    if not values:
        return 0
    if len(values) > 1 or not (values[0].isascii() and values[0].isdecimal()):
        raise InvalidValueError("rewind in the URL must be one number")
    return check_last(int(values[0][:6]))


def split_target(target: str) -> tuple[str, str]:
    """Return path and query of a request target, which may be absolute (RFC 9112, 3.2.2)."""
    path, _, query = target.partition("?")
    scheme, separator, rest = path.partition("://")
    if separator and scheme.lower() in ("http", "https", "ws", "wss"):
        path = "/" + rest.partition("/")[2]
    return path, query


def choose_subprotocol(
    websocket: ServerConnection, offered: Sequence[Subprotocol], *, framed: bool = False
) -> Subprotocol | None:
    """Return the best subprotocol that is offered and spoken here; None if none is wanted.

    A client that offers none is let in; the library's own choice would refuse it. One that offers
    a token is answered by what it offers beside it.

    Args:
        framed: whether ``cluster-pool.v1`` is spoken, too.

    Raises:
        NegotiationError: none of those offered is spoken here; the handshake is refused with 400.
    """
    spoken = websocket.protocol.available_subprotocols or ()
    for name in spoken:
        if name in offered:
            return name
    if framed and V1 in offered:
        return Subprotocol(V1)
    if any(name.startswith(OFFER) for name in offered):
        if RAW not in offered:
            raise NegotiationError(f"a token was offered as a subprotocol without {RAW} beside it")
        return Subprotocol(RAW)
    if spoken and offered:
        raise NegotiationError(f"no such subprotocol; spoken here: {', '.join(spoken)}")
    return None


def answer(
    status: http.HTTPStatus,
    text: str,
    *,
    kind: str = PLAIN,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Make a complete answer, after which the socket is closed."""
    body = text.encode()
    return Response(
        status.value,
        status.phrase,
        Headers(
            {
                "Content-Type": kind,
                "Content-Length": str(len(body)),
                "Connection": "close",
                **(headers or {}),
            }
        ),
        body,
    )


def without_body_for_head(
    websocket: ServerConnection, request: Request, response: Response
) -> None:
    """Answer a HEAD like a GET, without the body (RFC 9110 section 9.3.2)."""
    if request.method == "HEAD":
        response.body = b""


def response_of(one: Answer) -> Response:
    """Make an answer about this node a response of ``websockets``."""
    return answer(one.status, one.text, kind=one.kind, headers=one.headers)


def come_back(text: str) -> Response:
    """Make a 503 for a client that should try again, here or at another node."""
    return answer(http.HTTPStatus.SERVICE_UNAVAILABLE, text, headers={"Retry-After": "1"})
