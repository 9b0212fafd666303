"""The frames of ``serve`` for clients of the subprotocol ``cluster-pool.v1``: JSON objects. Pure.

The frame of a broadcast is the same for every client, so it is built once, when the first of them
needs it, and kept beside the raw one. docs/client-protocol.md is for those who write clients.
"""

import base64
import json
from typing import Any, Final

from cluster_pool.core.message import Outgoing, Source

V1: Final = "cluster-pool.v1"
"""The name of the subprotocol."""
Ref = str | int
"""The name that a client gives to a request, by which it is answered."""

_encode: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


class ClientFrame(Outgoing):
    """A message as a client of ``cluster-pool.v1`` gets it."""

    __slots__ = ()


def framed(message: Outgoing, home: str) -> Outgoing:
    """A message, or several, as frames for a client.

    Args:
        home: the home of the client, for messages that name no namespace.
    """
    try:
        return message.framed
    except AttributeError:
        pass
    if type(message) is ClientFrame:
        return message
    if message.count > 1:
        frames = Outgoing.join([framed(part, home) for part in message.parts])
    else:
        frames = _frame_of(message, message.source or (home, "", 0))
    if all(part.source is not None for part in message.parts):  # the same for every client
        message.framed = frames
    return frames


def _frame_of(message: Outgoing, source: Source) -> ClientFrame:
    namespace, epoch, number = source
    if message.text:
        content = f'"m":{_encode(message.message)}'
    else:
        content = f'"b":"{base64.b64encode(message.payload).decode()}"'
    position = f',"p":"{epoch}.{number}"' if epoch else ""
    author = ""
    if message.author is not None:
        id, user = message.author
        author = f',"from":{_encode({"id": id, "user": user} if user else {"id": id})}'
    text = f'{{"ns":{_encode(namespace)},{content}{position}{author}}}'
    return ClientFrame(True, text.encode())


def _said(**fields: Any) -> ClientFrame:
    return ClientFrame(True, _encode(fields).encode())


def welcome(
    id: str,
    home: str,
    user: str | None,
    expires: float | None,
    recovered: bool | None = None,
    resume: str = "",
) -> ClientFrame:
    """The first frame: who the client is, until when (seconds since 1970), whether all that it
    has missed comes behind this, and the word with which it may give its position."""
    fields = {"id": id, "ns": home, "user": user, "expires": expires, "recovered": recovered}
    fields["resume"] = resume or None
    return _said(welcome={name: value for name, value in fields.items() if value is not None})


def done(
    ref: Ref, expires: float | None = None, recovered: bool | None = None, resume: str = ""
) -> ClientFrame:
    """A request was carried out; a renewed identity expires then, and of a joined namespace all
    that was missed came ahead of this, or not, and its word is this."""
    fields = {"expires": expires, "recovered": recovered, "resume": resume or None}
    return _said(ref=ref, ok=True, **{k: value for k, value in fields.items() if value is not None})


def refused(ref: Ref, code: str, reason: str) -> ClientFrame:
    """A request was not carried out."""
    return _said(ref=ref, error=code, reason=reason)


def left(namespace: str, cause: str) -> ClientFrame:
    """The client has lost a membership, and nothing else."""
    return _said(left=namespace, cause=cause)


def lost(namespace: str) -> ClientFrame:
    """Messages to a namespace may be missing, which the client would have got."""
    return _said(lost=namespace)
