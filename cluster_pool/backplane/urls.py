"""URLs of Redis as text: which are allowed, and their parts. Pure.

No password is ever shown: a URL that may have been split at the wrong place is refused, and a URL
is quoted only if it cannot contain a password.

    redis://  rediss://  unix://                  one server
    redis+sentinel://A:26379,B:26379/service/0    the primary, as these Sentinels name it
    redis+cluster://A:6379,B:6379                 a Redis Cluster, found at any of these
"""

import re
from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import parse_qsl, unquote

from cluster_pool.core.ids import shown
from cluster_pool.exceptions import InvalidValueError

Where = tuple[str, int]
"""A host and a port."""
Kind = Literal["single", "sentinel", "cluster"]

PORTS: Final[dict[str, int]] = {"sentinel": 26379, "cluster": 6379}
"""The default port of each kind."""
OURS: Final[dict[str, frozenset[str]]] = {
    "sentinel": frozenset(("sentinel_username", "sentinel_password", "address_remap")),
    "cluster": frozenset(("address_remap",)),
}
"""Options that redis-py does not know."""
SCHEMES: Final = "redis://, rediss:// or unix://, redis+sentinel:// or redis+cluster://"
ENCODE: Final = (
    "percent-encode what is special in its user name and password (%23 for #, %2F for /, "
    "%3F for ?, %40 for @, %3A for :, %25 for %, %26 for &, %20 for a space)"
)
_SCHEME: Final = re.compile(r"unix|rediss?(\+sentinel|\+cluster)?")
_HOST: Final = r"(?:\[[\da-fA-F:.]*\]|[\w.-]*)(?::\d+)?"
_PLAIN: Final = re.compile(
    rf"[\w+]*(?:://)?{_HOST}(?:,{_HOST})*(?:/[\w./-]*)?(?:\?[\w=&.,:/*-]*)?", re.ASCII
)
_PLACE: Final = re.compile(
    r"(?:\[(?P<v6>[\da-fA-F]*:[\da-fA-F:.%]*)\]|(?P<name>[^\[\]:=]+))(?::(?P<port>\d+))?"
)


@dataclass(frozen=True, slots=True)
class Url:
    """The parts of a URL.

    Attributes:
        base: the URL with its first host only and without our options, for redis-py.
        hosts: the Sentinels, or nodes of a cluster; () for one server.
        service: the name under which the Sentinels know the primary; "" without Sentinels.
        options: those of :data:`OURS`, decoded.
    """

    kind: Kind
    base: str
    hosts: tuple[Where, ...]
    service: str
    options: dict[str, str]


def read_url(url: str) -> Url:
    """Split a URL. redis-py checks its ``base`` later.

    Raises:
        InvalidValueError: with what to do, and without a password.
    """
    check_url(url)
    scheme, _, rest = url.partition("://")
    plain, _, kind = scheme.partition("+")
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    path, _, query = rest[len(authority) :].partition("?")
    user, at, hosts = authority.rpartition("@")
    if kind not in OURS:
        if plain != "unix":
            _check_single(url, hosts, path)
        return Url("single", url, (), "", {})
    service, path = _service(url, path) if kind == "sentinel" else ("", path.rstrip("/"))
    found = tuple(_place(url, host, PORTS[kind]) for host in hosts.split(","))
    theirs = "&".join(one for one in query.split("&") if one.partition("=")[0] not in OURS[kind])
    options = dict(one for one in parse_qsl(query, keep_blank_values=True) if one[0] in OURS[kind])
    base = f"{plain}://{user}{at}{hosts.partition(',')[0]}{path}" + (theirs and f"?{theirs}")
    return Url("sentinel" if kind == "sentinel" else "cluster", base, found, service, options)


def check_url(url: str) -> None:
    """Refuse a URL that a parser may split inside the password, which would show a part of it.

    Raises:
        InvalidValueError: with what to do, and without the URL.
    """
    scheme, _, rest = url.partition("://")
    if not _SCHEME.fullmatch(scheme) or not rest:
        raise malformed(url, f"it begins with {SCHEMES}")
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    behind = rest[len(authority) :]
    _, _, query = behind.partition("?")
    broken = (
        any(character <= " " or "\x7f" <= character <= "\xa0" for character in url)
        or any("\ud800" <= character <= "\udfff" for character in url)
        or "#" in rest
        or ("@" in behind and (authority or scheme != "unix"))
        or any("=" not in option for option in query.split("&") if query)
    )
    if broken:
        raise InvalidValueError(f"the Redis URL cannot be read without doubt: {ENCODE}")


def malformed(url: str, why: str) -> InvalidValueError:
    """The error for a URL that is none. It is quoted only if it cannot contain a password."""
    if _PLAIN.fullmatch(url) and "pass" not in url.lower():
        return InvalidValueError(f"{shown(url, 200)} is no Redis URL: {why}")
    return InvalidValueError(f"this is no Redis URL: check its scheme and options, and {ENCODE}")


def place_of(text: str, port: int) -> Where | None:
    """A host and its port, by default ``port``; None if ``text`` has another form."""
    found = _PLACE.fullmatch(text)
    if found is None or int(found["port"] or port) > 65535:
        return None
    return found["v6"] or found["name"], int(found["port"] or port)


def joined(where: Where) -> str:
    """A host and a port in the form of a URL."""
    host, port = where
    return f"{bracketed(host)}:{port}"


def bracketed(host: object) -> str:
    """A host in the form of a URL: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in str(host) else str(host)


def _check_single(url: str, hosts: str, path: str) -> None:
    if "," in hosts:
        raise malformed(url, "several hosts are for redis+sentinel:// and redis+cluster://")
    if not re.fullmatch(r"/?|/-?\d+/?", unquote(path)):
        why = "its path is the number of a database; a service's name is for redis+sentinel://"
        raise malformed(url, why)


def _service(url: str, path: str) -> tuple[str, str]:
    """The service in a path, and the rest of the path, which is a database."""
    service, _, database = path.removeprefix("/").partition("/")
    if not service or not re.fullmatch(r"\d*", database):
        raise malformed(url, "it ends with /SERVICE or /SERVICE/DATABASE, as Sentinels call it")
    return unquote(service), f"/{database}" if database else ""


def _place(url: str, text: str, port: int) -> Where:
    found = place_of(text, port)
    if found is None:
        raise malformed(url, "its hosts are HOST or HOST:PORT, with commas between them")
    return unquote(found[0]), found[1]
