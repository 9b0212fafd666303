"""Close codes: which ones may be sent, and the meaning of ours for a client.

Source: RFC 6455 section 7.4 and IANA's WebSocket Close Code Number Registry.
"""

from cluster_pool.core.ids import exact, shown
from cluster_pool.exceptions import InvalidCloseError

NORMAL = 1000
GOING_AWAY = 1001
UNSUPPORTED = 1003
"""The client sent binary where only text is spoken."""
POLICY = 1008
"""The client sent more messages than it may."""
MESSAGE_TOO_BIG = 1009
INTERNAL_ERROR = 1011
SERVICE_RESTART = 1012
"""Drained: the client should come back at once, to another node."""
TRY_AGAIN_LATER = 1013
"""Slow consumer: this connection did not read and its outbox was full."""
ABNORMAL = 1006
"""Never sent: the socket was lost without a close frame."""
UNAUTHORIZED = 4401
"""The identity of the client has expired, or does not count any more: it needs a new token."""
IDLE = 4408
"""Nothing was received for ``idle_timeout`` seconds."""
TAKEN_OVER = 4409
"""A newer connection has this id: the client should not come back by itself."""

MAX_REASON_BYTES = 123


def is_answer(sent: int | None, came: int) -> bool:
    """Whether a Close that came behind ours certainly answers it, by their codes.

    It may have crossed ours: a client that leaves by itself says 1000, 1001 or nothing, and most
    answer with our code. Those that answer 1000 to every Close cannot be told from it.
    """
    return came == sent and sent not in (NORMAL, GOING_AWAY)


def check_close(code: object, reason: object) -> tuple[int, str]:
    """Return code and reason, as exact ``int`` and ``str``, if a close frame may carry them.

    Raises:
        InvalidCloseError: it may not.
    """
    if not isinstance(code, int) or isinstance(code, bool):
        raise InvalidCloseError(f"close code must be int, not {type(code).__name__}")
    if not (1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999):
        raise InvalidCloseError(
            f"close code {shown(code)} is not allowed: "
            "1000 to 1003, 1007 to 1014 and 3000 to 4999 are"
        )
    if not isinstance(reason, str):
        raise InvalidCloseError(f"close reason must be str, not {type(reason).__name__}")
    try:
        size = len(reason.encode())
    except UnicodeEncodeError:
        raise InvalidCloseError(f"close reason {reason!a} has a lone surrogate") from None
    if size > MAX_REASON_BYTES:
        raise InvalidCloseError(
            f"close reason has {size} bytes, over the limit of {MAX_REASON_BYTES}"
        )
    return int(code), exact(reason)
