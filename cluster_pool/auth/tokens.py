"""The places of a token in a client's request. Pure.

A browser cannot set the header ``Authorization`` of a WebSocket. Hence the other places: a cookie,
the query, or a subprotocol that is offered beside one that the server answers, since a browser
drops a handshake whose offer is not answered.
"""

import hmac
from collections.abc import Sequence
from typing import Final

from cluster_pool.core.request import Request
from cluster_pool.exceptions import InvalidValueError

OFFER: Final = "cluster-pool.token."
"""How a subprotocol begins that is a token; it is never answered."""
RAW: Final = "cluster-pool.raw"
"""The subprotocol that a browser offers beside its token; messages are as without one."""


def find_token(request: Request, cookie: str | None, parameter: str | None) -> str | None:
    """The token of a request, or None; of several the first of: header, offer, cookie, query.

    Args:
        cookie: the name of the cookie that may have it; None: no cookie is read.
        parameter: the name of the query's parameter; None: the query is not read.
    """
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return token.strip()
    for offer in request.subprotocols:
        if offer.startswith(OFFER):
            return offer.removeprefix(OFFER)
    if cookie is not None and cookie in (cookies := request.cookies):
        return cookies[cookie]
    return None if parameter is None else request.query.get(parameter)


def is_bearer(values: Sequence[bytes], token: str) -> bool:
    """Whether a request bears exactly this token; compared in constant time.

    Args:
        values: every value of the request's header ``Authorization``.
    """
    scheme, _, said = (values[0] if len(values) == 1 else b"").partition(b" ")
    return scheme.lower() == b"bearer" and hmac.compare_digest(said.strip(), token.encode())


def answered_subprotocol(request: Request, wanted: str | None) -> str | None:
    """The subprotocol of the answer to a client that may have offered a token.

    Args:
        wanted: the one that the application answers; None for none.

    Raises:
        InvalidValueError: the token was offered alone, or the application would answer a token.
    """
    if wanted is not None and wanted.startswith(OFFER):
        raise InvalidValueError("a token that was offered as a subprotocol must not be answered")
    offers = request.subprotocols
    if wanted is not None or not any(offer.startswith(OFFER) for offer in offers):
        return wanted
    if RAW not in offers:
        raise InvalidValueError(f"a token was offered as a subprotocol without {RAW} beside it")
    return RAW


def bearing(request: Request, token: str) -> Request:
    """A request of the same client with another token, and nothing else that could name it."""
    check_token(token)
    return Request(request.path, "", f"Authorization: Bearer {token}", request.client)


def check_token(token: object) -> None:
    """Raise InvalidValueError if no header could bear it: the line end of a file is in it, say."""
    if not isinstance(token, str) or any(not "!" <= one <= "~" for one in token):
        raise InvalidValueError("a token is a str of visible ASCII characters")
