"""Targets that are plain calls: requests as ``serve`` reads them, and what an operator may set."""

import contextlib
import re
from collections.abc import Callable
from dataclasses import fields
from random import Random
from typing import Any

from websockets.datastructures import Headers
from websockets.http11 import Request

from cluster_pool.backplane.address import Address
from cluster_pool.core import ids
from cluster_pool.core.closing import check_close
from cluster_pool.core.config import Limits, Timing, check_on_conflict
from cluster_pool.core.handshake import check_offers
from cluster_pool.core.keys import Keys
from cluster_pool.core.message import encode
from cluster_pool.core.origins import Origins
from cluster_pool.core.proxies import Proxies
from cluster_pool.core.request import Request as AskedRequest
from cluster_pool.exceptions import InvalidValueError
from cluster_pool.server.http import Target, split_target, target_of
from tools.fuzz import mutation

PATHS = (
    *(b"/ws/room?id=alice", b"/ws/al%20ice?id=%C3%BC&x=1", b"/ws/room", b"/readyz", b"/healthz"),
    *(b"http://host:80/ws/room?id=a", b"/ws/%7B?id=%00", b"/ws/r%2F?id=a%2Bb&id=", b"//ws//?;&=%"),
)
HEADERS = (
    *("Origin", "Host", "X-Forwarded-For", "X-Forwarded-Host", "Cookie"),
    *("Sec-WebSocket-Protocol", "Sec-WebSocket-Extensions"),
)
HEADER_VALUES = (
    *("http://a.example:80", "a.example", "null", "http://[::1]", "[::1]:8000", "http://u@a", ":"),
    *("10.0.0.1, [::1]:80", "1.2.3.4:5", 'a=1; b; =c; d="\\303"', "chat, ,", 'a; b="\\'),
    *(
        "",
        "\xff\xe4",
        "x" * 5000,
        'p; q="' + "\\" * 3000,
        "a ;" * 1000,
        "a" + " " * 999 + "@",
    ),
)
SECRET = "s3cr3t"
URLS = (
    *(
        f"redis://:{SECRET}@127.0.0.1:6379/0",
        f"rediss://user:{SECRET}@127.0.0.1/0?ssl_cert_reqs=none",
    ),
    *(f"unix://user@/tmp/redis.sock?password={SECRET}&db=1", "redis://[::1]:1/0?timeout=1&x=y"),
    *(f"redis://user:{SECRET}/#?@127.0.0.1:x", f"user:{SECRET}@127.0.0.1", "redis://127.0.0.1"),
    f"redis+sentinel://user:{SECRET}@127.0.0.1:1,[::1]:2/main/0?sentinel_password={SECRET}",
    f"rediss+cluster://:{SECRET}@a,b:1?address_remap=a:1=b:2,*=c&ssl_ca_certs=/nowhere",
)
PASSWORD = re.compile(f"^(?:\\w+://)?+[^:]*:.*{SECRET}.*@|^[^:]*[?&]password={SECRET}", re.DOTALL)
"""Where the secret stands in the place of a password, well formed or not."""


def hostile_path(random: Random) -> str:
    """A request target as the HTTP parser hands it on: bytes above 127 are lone surrogates."""
    path = mutation.mutated(random, random.choice(PATHS), PATHS)
    if random.random() < 0.2:
        path += mutation.text(random).encode(errors="surrogatepass")
    if random.random() < 0.01:
        path = path.replace(b"?", b"?" + b"&a=%ff" * random.randint(1, 1000))
    return path.decode("ascii", "surrogateescape")


class Requests:
    """Paths, query strings, and the headers by which a handshake is judged."""

    name, share = "requests", 15.0

    def make(self, random: Random) -> Request:
        headers = Headers()
        for _ in range(random.randint(0, 6)):
            headers[random.choice(HEADERS)] = random.choice(HEADER_VALUES)
        return Request(hostile_path(random), headers)

    def judge(self, case: Request) -> bool:
        split_target(case.path)
        asked = AskedRequest.of_target(case.path, case.headers.raw_items(), "::1")
        assert Proxies("*").client("::1", asked.headers.get_all("X-Forwarded-For"))
        Origins().allow(asked.headers.get_all("Origin"), asked.headers.get_all("Host"))
        assert asked.query is not None
        assert asked.cookies is not None
        with contextlib.suppress(InvalidValueError):
            check_offers(asked, None)
        try:
            target = target_of(case.path)
        except InvalidValueError as error:
            str(error).encode()  # it becomes the body of the answer
            return False
        if target is None:
            return False
        id = None if target.id is None else ids.check_id(target.id)
        assert target == Target(ids.check_namespace(target.namespace), id)
        return True


Call = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]


class Settings:
    """Ids, namespaces, prefixes, close codes, messages, limits and times."""

    name, share = "settings", 8.0

    def make(self, random: Random) -> Call:
        function = random.choice(
            (
                *(ids.check_id, ids.check_node_id, ids.check_namespace, Keys, check_on_conflict),
                *(check_close, encode, Limits, Timing),
            )
        )
        if function in (Limits, Timing):
            names = random.sample([field.name for field in fields(function)], 2)
            return function, (), {name: _number(random) for name in names}
        if function is encode:
            return function, (_anything(random), random.randint(0, 200)), {}
        if function is check_close:
            return function, (_number(random), _anything(random)), {}
        return function, (_anything(random),), {}

    def judge(self, case: Call) -> bool:
        function, positional, named = case
        try:
            function(*positional, **named)
        except InvalidValueError as error:
            str(error).encode()
            return False
        return True


class Urls:
    """Where Redis is, as an operator may have typed it. No error and no log names the password."""

    name, share = "urls", 4.0

    def make(self, random: Random) -> str:
        url = random.choice(URLS).encode()
        if random.random() < 0.9:
            url = mutation.mutated(random, url, [other.encode() for other in URLS])
        return url.decode(errors="surrogateescape")

    def judge(self, case: str) -> bool:
        try:
            said = Address(case, 1.0).shown
        except InvalidValueError as error:
            said, accepted = str(error), False
        else:
            accepted = True
        if case.count(SECRET) == 1 and PASSWORD.search(case):
            assert SECRET not in said, said
        return accepted


def _number(random: Random) -> Any:
    return random.choice(
        (
            *mutation.TELLING_NUMBERS,
            *(0.5, 1.0, 3.0, 10.0, -0.0, 1e308, float("inf"), float("nan"), True, None, "1", b"1"),
            *(10**400, -(10**5000), [], {}, 1j),
        )
    )


def _anything(random: Random) -> Any:
    return mutation.text(random) if random.random() < 0.8 else mutation.value(random)
