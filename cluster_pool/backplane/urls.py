"""The addresses of Redis as text: which URLs are allowed, and how an address is shown. Pure.

No password is ever shown: an address is written anew from its parts, and a URL that may have been
split at the wrong place is refused.
"""

import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

import redis.asyncio as redis_asyncio

from cluster_pool.core.ids import shown
from cluster_pool.exceptions import InvalidValueError

ENCODE: Final = (
    "percent-encode what is special in its user name and password (%23 for #, %2F for /, "
    "%3F for ?, %40 for @, %3A for :, %25 for %, %26 for &, %20 for a space)"
)
_PLAIN: Final = re.compile(
    r"\w*(?:://)?[\w.-]*(?:\[[\da-fA-F:.]*\])?(?::\d+)?(?:/[\w./-]*)?(?:\?[\w=&.-]*)?", re.ASCII
)


def check_url(url: str) -> None:
    """Refuse a URL that a parser may split inside the password, which would show a part of it.

    Raises:
        InvalidValueError: with what to do, and without the URL.
    """
    scheme, _, rest = url.partition("://")
    if scheme not in ("redis", "rediss", "unix") or not rest:
        raise malformed(url, ValueError("it begins with redis://, rediss:// or unix://"))
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


def malformed(url: str, error: Exception) -> InvalidValueError:
    """The error for a URL that is none. It is quoted only if it cannot contain a password."""
    if _PLAIN.fullmatch(url) and "pass" not in url.lower():
        return InvalidValueError(f"{shown(url, 200)} is no Redis URL: {error}")
    return InvalidValueError(f"this is no Redis URL: check its scheme and options, and {ENCODE}")


def shown_of(pool: redis_asyncio.ConnectionPool) -> str:
    """The address that a client connects to, as a URL, with *** for its password.

    For Sentinel it has the addresses of the Sentinels, and the name of the service.
    """
    settings = pool.connection_kwargs
    kind = pool.connection_class
    if kind.__module__.partition(".")[0] == "fakeredis":
        return "fakeredis"
    database = settings.get("db") or 0
    who = _user_of(settings)
    if issubclass(kind, redis_asyncio.UnixDomainSocketConnection):
        return f"unix://{who}{settings.get('path', '')}" + (f"?db={database}" if database else "")
    scheme = "rediss" if issubclass(kind, redis_asyncio.SSLConnection) else "redis"
    service = getattr(pool, "service_name", None)
    if service is not None:
        places = ",".join(f"{_bracketed(host)}:{port}" for host, port in sentinels_of(pool))
        return f"{scheme}+sentinel://{who}{places}/{quote(str(service))}/{database}"
    host, port = settings.get("host") or "localhost", settings.get("port") or 6379
    return f"{scheme}://{who}{_bracketed(host)}:{port}/{database}"


def sentinels_of(pool: Any) -> list[tuple[str, int]]:
    """Hosts and ports of the Sentinels that a pool asks; an empty list if it asks none."""
    manager = getattr(pool, "sentinel_manager", None)
    parts = [one.connection_pool.connection_kwargs for one in getattr(manager, "sentinels", ())]
    return [(str(one.get("host", "localhost")), int(one.get("port", 26379))) for one in parts]


def _user_of(settings: Mapping[str, Any]) -> str:
    """The part before the host. A user name alone is hidden: it may be a misplaced password."""
    user, password = settings.get("username"), settings.get("password")
    if user and password:
        return f"{quote(str(user))}:***@"
    return ":***@" if password else "***@" if user else ""


def _bracketed(host: object) -> str:
    return f"[{host}]" if ":" in str(host) else str(host)
