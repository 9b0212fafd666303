"""The requests of clients of the subprotocol ``cluster-pool.v1``: JSON, read strictly. Pure.

Unknown fields are ignored. Of a field that is there twice the last one counts, as in browsers.
"""

import base64
import json
import secrets
from dataclasses import dataclass
from typing import Any, Final

from cluster_pool.core.client_frames import Ref
from cluster_pool.core.history import check_offer
from cluster_pool.core.ids import check_namespace
from cluster_pool.core.message import encode
from cluster_pool.core.profiles import encode_info
from cluster_pool.exceptions import InvalidValueError, MessageTooLargeError

INVALID: Final = "invalid"
TOO_LARGE: Final = "too_large"
VERBS: Final[tuple[str, ...]] = ("join", "leave", "publish", "renew")
"""The verbs that are no field of another one, as ``info`` is of ``join``."""
LARGEST_REF: Final = 64
LARGEST_NUMBER: Final = 2**53
GROWTH: Final = 6
"""Bytes of JSON that one byte of a message may need: a backslash, and then u0001."""
REST: Final = 128 * 1024
"""Bytes of a frame beside its message. Lists would need fifty times their bytes of memory, and the
time that all clients lose meanwhile."""
FEW: Final = 4096
"""Characters of a frame beside its info: more are not needed, but for a message or a token."""
MOST_STRINGS: Final = 1_000
"""Strings in a frame that is larger than that."""
LONG: Final = f"\0{secrets.token_hex(16)}"
"""In place of the message of a large frame, while the rest of it is read. No client knows it."""


@dataclass(frozen=True, slots=True)
class ClientRequest:
    """One request.

    Attributes:
        verb: ``join``, ``leave``, ``publish``, ``info`` or ``renew``.
        ref: by which it is answered; None: it is not.
        namespace: the one it is about; None for the home, and for ``renew``.
        message: what to publish.
        info: what to tell others.
        token: the new token.
        since, resume: of a join, the position of the client and the word by which it gives it.
    """

    verb: str
    ref: Ref | None
    namespace: str | None = None
    message: str | bytes = ""
    info: Any = None
    token: str = ""
    since: str | None = None
    resume: str | None = None


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


_DECODER: Final = json.JSONDecoder(parse_constant=_no_number)


class RefusedRequestError(Exception):
    """A request that cannot be carried out.

    Attributes:
        ref: by which it is answered; None: it is not.
        code: one of the codes of docs/client-protocol.md.
    """

    def __init__(self, ref: Ref | None, code: str, reason: str) -> None:
        super().__init__(reason)
        self.ref = ref
        self.code = code

    @property
    def unreadable(self) -> bool:
        """Whether the frame was at fault, and not the time or the client."""
        return self.code in (INVALID, TOO_LARGE)


def largest_frame(message_bytes: int) -> int:
    """Bytes of the largest frame that a client may need for a permitted message."""
    return GROWTH * message_bytes + REST // 2


def read_request(text: str, message_bytes: int, info_bytes: int) -> ClientRequest:
    """A frame as a request.

    Raises:
        RefusedRequestError: it is none, or has a value that is not allowed.
    """
    fields = _fields(text)
    ref = _ref(fields)
    verbs = [verb for verb in VERBS if verb in fields]
    if not verbs and "info" in fields:
        verbs = ["info"]
    if len(verbs) != 1 or (verbs[0] != "join" and "info" in fields and verbs[0] != "info"):
        raise RefusedRequestError(ref, INVALID, f"one of {', '.join((*VERBS, 'info'))} is needed")
    if "info" in fields and len(text) > GROWTH * info_bytes + FEW:  # to encode it would take long
        raise RefusedRequestError(ref, TOO_LARGE, "the info is too large")
    try:
        return _request(verbs[0], ref, fields, message_bytes, info_bytes)
    except MessageTooLargeError as error:
        raise RefusedRequestError(ref, TOO_LARGE, str(error)) from None
    except InvalidValueError as error:
        raise RefusedRequestError(ref, INVALID, str(error)) from None


def _fields(text: str) -> dict[str, Any]:
    """The fields of a JSON object."""
    try:
        rest, message = (text, LONG) if len(text) <= REST else _without_message(text)
        fields = _DECODER.decode(rest)
    except (ValueError, RecursionError):
        raise RefusedRequestError(None, INVALID, "a frame must be JSON") from None
    if not isinstance(fields, dict):
        raise RefusedRequestError(None, INVALID, "a frame must be a JSON object")
    if message is not LONG:
        _put_back(message, fields)
    return fields


def _put_back(message: str, fields: dict[str, Any]) -> None:
    """Put the message of a large frame where it stood; raise if that was no field of the frame."""
    found = [name for name, value in fields.items() if value == LONG]
    if not found:
        raise RefusedRequestError(None, TOO_LARGE, "too much that is no message")
    fields[found[0]] = message


def _without_message(text: str) -> tuple[str, str]:
    """A large frame with LONG in place of its message, and the message: its only long string."""
    pieces: list[str] = []
    message, read = LONG, 0
    for _ in range(MOST_STRINGS):
        begin = text.find('"', read)
        if begin < 0:
            break
        value, end = _DECODER.raw_decode(text, begin)
        long = end - begin > REST // 2
        if long and message is LONG:
            pieces += text[read:begin], json.dumps(LONG)
            message = value
        else:
            pieces.append(text[read:end])
        read = end
    rest = "".join((*pieces, text[read:]))
    if len(rest) > REST:
        raise RefusedRequestError(None, TOO_LARGE, "too much that is no message")
    return rest, message


def _ref(fields: dict[str, Any]) -> Ref | None:
    ref = fields.get("ref")
    if ref is None:
        return None
    if isinstance(ref, str) and len(ref) <= LARGEST_REF and _has_utf8(ref):
        return ref
    if isinstance(ref, int) and not isinstance(ref, bool) and abs(ref) <= LARGEST_NUMBER:
        return ref
    raise RefusedRequestError(
        None, INVALID, f"ref must be a string of {LARGEST_REF} characters at most, or an integer"
    )


def _has_utf8(text: str) -> bool:
    """Whether it has no lone surrogate, and so can be sent."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _request(
    verb: str, ref: Ref | None, fields: dict[str, Any], message_bytes: int, info_bytes: int
) -> ClientRequest:
    if verb == "renew":
        return ClientRequest(verb, ref, token=_text(fields, "renew"))
    namespace = fields.get("ns") if verb == "info" else fields[verb]
    if namespace is not None or verb != "info":
        namespace = check_namespace(namespace)
    if verb == "publish":
        message = _message(fields)
        encode(message, message_bytes)
        return ClientRequest(verb, ref, namespace, message)
    info = fields.get("info")
    if info is not None:
        try:
            encode_info(info, info_bytes)
        except InvalidValueError as error:
            code = INVALID if error.__cause__ is not None else TOO_LARGE
            raise RefusedRequestError(ref, code, str(error)) from None
    if verb != "join":
        return ClientRequest(verb, ref, namespace, info=info)
    since, resume = fields.get("since"), fields.get("resume")
    check_offer(since, resume)
    return ClientRequest(verb, ref, namespace, info=info, since=since, resume=resume)


def _message(fields: dict[str, Any]) -> str | bytes:
    if ("m" in fields) == ("b" in fields):
        raise InvalidValueError("what is published must have m (text) or b (base64)")
    if "m" in fields:
        return _text(fields, "m")
    try:
        return base64.b64decode(_text(fields, "b"), validate=True)
    except ValueError:
        raise InvalidValueError("b must be base64, padded, of the standard alphabet") from None


def _text(fields: dict[str, Any], name: str) -> str:
    value = fields[name]
    if not isinstance(value, str):
        raise InvalidValueError(f"{name} must be a string")
    return value
