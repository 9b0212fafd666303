"""The HTTP request that asked for a WebSocket: one small type for every library.

It keeps four strings and makes everything else from them on access. So a process with many
connections, which reads a request once, keeps only the strings.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Self
from urllib.parse import parse_qsl, unquote

_ESCAPE: Final = re.compile(r"\\(?:([0-3][0-7][0-7])|(.))")


class Fields(Mapping[str, str]):
    """Names with one or more values, in the order in which they came.

    As a mapping it gives the first value of each name; :meth:`get_all` gives every one.
    """

    __slots__ = ("_values",)

    def __init__(self, pairs: Iterable[tuple[str, str]] = ()) -> None:
        self._values: dict[str, list[str]] = {}
        for name, value in pairs:
            self._values.setdefault(self._key(name), []).append(value)

    @staticmethod
    def _key(name: str) -> str:
        return name

    def get_all(self, name: str) -> tuple[str, ...]:
        """Every value of a name, in the order in which they came; empty when it is absent."""
        return tuple(self._values.get(self._key(name), ()))

    def __getitem__(self, name: str) -> str:
        return self._values[self._key(name)][0]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {', '.join(self)}>"  # values may be secret


class Headers(Fields):
    """Headers: as :class:`Fields`, but upper and lower case are the same. Iterates in lower case.

    Values are decoded as ISO 8859-1, without the white space around them.
    """

    __slots__ = ()

    @staticmethod
    def _key(name: str) -> str:
        return name.lower()


@dataclass(frozen=True, slots=True, repr=False)
class Request:
    """The request with which a client opened its WebSocket.

    For tests of your own it may be made by hand:
    ``Request("/ws/room", "token=secret", "Cookie: session=1\\nOrigin: https://app.example")``.

    Attributes:
        path: percent-decoded, without the query; "" when nothing is known of the request.
        query_string: behind the question mark, as it was sent; "" for none.
        header_lines: ``name: value`` in the order in which they came, one a line.
        client: the client's IP address, without a port; None when it is not known. Behind a proxy
            it is the proxy's, unless the server trusts the proxy: ``serve`` by
            ``--forwarded-allow-ips``, an ASGI server by its own option.
    """

    path: str = ""
    query_string: str = ""
    header_lines: str = ""
    client: str | None = None

    @classmethod
    def of_target(
        cls, target: str, headers: Iterable[tuple[str, str]], client: str | None = None
    ) -> Self:
        """The request for a path that is still percent-encoded, with its query.

        Args:
            headers: values whose bytes above 127 are ISO 8859-1 or surrogates.
        """
        path, _, query = target.partition("?")
        return cls(unquote(path), query, lines_of(headers), client)

    @property
    def headers(self) -> Headers:
        """All headers; made anew at each access."""
        lines = self.header_lines.split("\n") if self.header_lines else []
        pairs = (line.partition(":") for line in lines)
        return Headers((name.strip(), value.strip(" \t")) for name, _, value in pairs)

    @property
    def query(self) -> Fields:
        """The query's parameters, percent-decoded, those without a value included; made anew."""
        return Fields(parse_qsl(self.query_string, keep_blank_values=True, errors="replace"))

    @property
    def cookies(self) -> dict[str, str]:
        """The cookies by name; of several with one name the first, which is the most specific.

        See RFC 6265 section 5.4. Values in quotation marks are unquoted. Made anew.
        """
        cookies: dict[str, str] = {}
        for header in self.headers.get_all("cookie"):
            for part in header.split(";"):
                name, separator, value = part.partition("=")
                if separator and name.strip():
                    cookies.setdefault(name.strip(), _unquoted(value.strip()))
        return cookies

    @property
    def subprotocols(self) -> tuple[str, ...]:
        """The subprotocols that the client offers, the one it likes best first; made anew."""
        offered = ",".join(self.headers.get_all("sec-websocket-protocol")).split(",")
        return tuple(name.strip() for name in offered if name.strip())

    def __repr__(self) -> str:
        return f"<Request {self.path!a} of {self.client}>"  # the rest may be secret


def _unquoted(value: str) -> str:
    """The value of a cookie without its quotation marks and escapes.

    Strangers send them. ``http.cookies`` needs seconds for 16 KiB of backslashes before Python
    3.11.10 and 3.12.6 (CVE-2024-7592); this takes time in proportion to the length.
    """
    if len(value) < 2 or value[0] != '"' or value[-1] != '"':
        return value
    return _ESCAPE.sub(lambda one: chr(int(one[1], 8)) if one[1] else one[2], value[1:-1])


def lines_of(headers: Iterable[tuple[str, str]]) -> str:
    """Headers as :attr:`Request.header_lines`.

    The ``websockets`` library gives bytes above 127 as surrogates before its version 17.
    """
    text = "\n".join(f"{name}: {value}" for name, value in headers)
    return text if text.isascii() else _as_latin1(text)


def _as_latin1(text: str) -> str:
    return "".join(chr(ord(one) - 0xDC00) if 0xDC80 <= ord(one) <= 0xDCFF else one for one in text)
