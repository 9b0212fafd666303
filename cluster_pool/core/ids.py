"""Ids, namespaces and node ids: which are allowed, and how new ones are made."""

import re
import secrets
import socket
from collections.abc import Iterable
from functools import lru_cache
from typing import Final, TypeGuard

from cluster_pool.exceptions import (
    InvalidIdError,
    InvalidNamespaceError,
    InvalidValueError,
)

MAX_BYTES = 256
MAX_EXCLUDE: Final = 10_000
"""Ids that one broadcast may leave out."""
USER_BYTES: Final = 250
"""Bytes of a user's id: with the beginning of their namespace, as many as a namespace may have."""
NODE_TAG = "~"
"""The hash tag of keys that belong to no namespace. Namespaces that begin with it are the library's
own, and no call may name one."""

_USER: Final = f"{NODE_TAG}user:"

_FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f{}\ud800-\udfff]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_BASE36 = "0123456789abcdefghijklmnopqrstuvwxyz"


def exact(value: str) -> str:
    """``value`` as a ``str`` and nothing else.

    A member of ``class Room(str, Enum)`` equals its text and hashes like it, but formats as
    "Room.LOBBY": it would be found in a dict and name another channel.
    """
    return value if type(value) is str else str.__str__(value)


def _is_plain(value: object) -> TypeGuard[str]:
    """Whether a name is valid and plain, as most are: three times as fast as :func:`_check`."""
    return (
        type(value) is str
        and value.isascii()
        and value.isprintable()
        and 0 < len(value) <= MAX_BYTES
        and "{" not in value
        and "}" not in value
    )


def _check(value: object, what: str, error: type[InvalidValueError], most: int = MAX_BYTES) -> str:
    if not isinstance(value, str):
        raise error(f"{what} must be str, not {type(value).__name__}")
    value = exact(value)
    if not value:
        raise error(f"{what} must not be empty")
    size = len(value) if value.isascii() else len(value.encode(errors="surrogatepass"))
    if size > most:
        raise error(f"{what} {shown(value)} has {size} bytes, over the limit of {most}")
    bad = _FORBIDDEN.search(value)
    if bad:
        raise error(
            f"{what} {shown(value)} contains U+{ord(bad.group()):04X}: control characters, "
            "braces and lone surrogates are not allowed"
        )
    return value


def check_id(value: object) -> str:
    """Return ``value`` as exact ``str`` if it may be a connection id, else raise InvalidIdError."""
    return value if _is_plain(value) else _check(value, "id", InvalidIdError)


def check_excluded(value: object) -> list[str]:
    """The ids that a broadcast leaves out, as exact strs: of one id, or of an iterable of them."""
    if not isinstance(value, str) and not isinstance(value, Iterable):
        raise InvalidValueError(f"exclude is {shown(value)}, which is neither an id nor ids")
    ids = [check_id(id) for id in ([value] if isinstance(value, str) else value)]
    if len(ids) > MAX_EXCLUDE:
        raise InvalidValueError(f"{len(ids)} ids to exclude, over the limit of {MAX_EXCLUDE}")
    return ids


def check_node_id(value: object) -> str:
    """Return ``value`` as exact ``str`` if it may be a node id, else raise InvalidIdError."""
    return _check(value, "node id", InvalidIdError)


def check_namespace(value: object) -> str:
    """Return ``value`` as exact ``str`` if it may be a namespace, else InvalidNamespaceError."""
    if type(value) is str:
        return _check_namespace(value)
    if isinstance(value, str):
        return _check_namespace(exact(value))
    return _check(value, "namespace", InvalidNamespaceError)


@lru_cache(maxsize=4096)
def _check_namespace(value: str) -> str:
    """Check a namespace; the result is cached, since there are few and each is used often."""
    check_not_reserved(value)
    return _check(value, "namespace", InvalidNamespaceError)


def is_reserved(namespace: str) -> bool:
    """Whether a namespace is one of the library's own, such as that of a user."""
    return namespace.startswith(NODE_TAG)


def check_not_reserved(namespace: object) -> None:
    """Raise InvalidNamespaceError if a namespace is one of the library's own."""
    if isinstance(namespace, str) and is_reserved(namespace):
        raise InvalidNamespaceError(
            f"namespace {shown(namespace)} begins with {NODE_TAG!r}: such names are the library's"
        )


def check_user(value: object) -> str:
    """Return ``value`` as exact ``str`` if it may name a user, else raise InvalidIdError."""
    return _check(value, "user", InvalidIdError, USER_BYTES)


def check_users(value: object) -> list[str]:
    """The users that a call names, as exact strs: one user, or an iterable of them."""
    if not isinstance(value, str) and not isinstance(value, Iterable):
        raise InvalidValueError(f"users is {shown(value)}, which is neither a user nor users")
    return [check_user(user) for user in ([value] if isinstance(value, str) else value)]


def check_excluded_users(value: object) -> list[str]:
    """The users that a broadcast leaves out, as exact strs: one, or an iterable of them."""
    users = check_users(value)
    if len(users) > MAX_EXCLUDE:
        raise InvalidValueError(f"{len(users)} users to exclude, over the limit of {MAX_EXCLUDE}")
    return users


def user_namespace(user: object) -> str:
    """The namespace of a user's connections; raises InvalidIdError if ``user`` may not name one."""
    return f"{_USER}{check_user(user)}"


def is_token_id(value: object) -> TypeGuard[str]:
    """Whether a value may name a token: a str of 1 to 256 bytes of UTF-8, with any characters."""
    if not isinstance(value, str):
        return False
    return 0 < len(value.encode(errors="surrogatepass")) <= MAX_BYTES and not _SURROGATE.search(
        value
    )


def check_token_id(value: object) -> str:
    """Return ``value`` as exact ``str`` if it may name a token, else raise InvalidValueError."""
    if not is_token_id(value):
        raise InvalidValueError(f"a token id must be str of 1 to {MAX_BYTES} bytes: {shown(value)}")
    return exact(value)


def check_prefix(value: object) -> str:
    """Return ``value`` as exact ``str`` if it may begin all keys and channels, else raise."""
    return _check(value, "prefix", InvalidValueError)


def shown(value: object, limit: int = 64) -> str:
    """``value`` as it may stand in a log or an error: escaped, cut after ``limit`` characters."""
    if isinstance(value, str):
        value = value[: limit + 1]  # escaping megabytes takes long
    try:
        text = ascii(value)
    except ValueError:  # Python does not format an integer of more than 4,300 digits
        text = f"a huge {type(value).__name__}"
    return text if len(text) <= limit else f"{text[:limit]}…"


def base36(number: int) -> str:
    """A number of 0 or more in as few letters and digits as base 36 needs."""
    digits = ""
    while True:
        number, rest = divmod(number, 36)
        digits = _BASE36[rest] + digits
        if not number:
            return digits


def new_id() -> str:
    """A connection id that no other has: 128 random bits, URL-safe."""
    return secrets.token_urlsafe(16)


def new_node_id() -> str:
    """A node id for a process that was given none: the host's name and 32 random bits."""
    host = _FORBIDDEN.sub("", socket.gethostname())[:64] or "node"
    return f"{host}-{secrets.token_hex(4)}"


def new_start() -> str:
    """The name of one start of a node, unlike every other: 48 random bits in 8 characters."""
    return secrets.token_urlsafe(6)
