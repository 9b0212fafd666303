"""The request of a connection, as a value."""

import time

import pytest

from cluster_pool import Request
from cluster_pool.core.request import Fields, Headers


def test_headers_are_found_in_any_case_and_keep_every_value() -> None:
    """The first value is the mapping's; all of them are there, in order."""
    headers = Request("/", "", "X-A: 1\nx-a:2 \nHost:\t h:80\nEmpty:").headers
    assert headers["X-a"] == "1"
    assert headers.get_all("x-A") == ("1", "2")
    assert headers.get_all("none") == ()
    assert headers.get("none") is None
    assert dict(headers) == {"x-a": "1", "host": "h:80", "empty": ""}
    assert "HOST" in headers
    assert len(headers) == 3


def test_values_are_not_shown() -> None:
    """A representation may get into a log, but cookies must not."""
    request = Request("/ws", "token=secret", "Cookie: a=secret", "10.0.0.1")
    for shown in (repr(request), repr(request.headers), repr(request.query)):
        assert "secret" not in shown
    assert repr(request) == "<Request '/ws' of 10.0.0.1>"


def test_the_query_is_decoded() -> None:
    """Names and values, several of one name, one without a value; bad escapes are replaced."""
    query = Request("/", "a=1&a=2&b&c=%C3%BC+x&d=%ff").query
    assert query.get_all("a") == ("1", "2")
    assert (query["b"], query["c"], query["d"]) == ("", "ü x", "\N{REPLACEMENT CHARACTER}")
    assert Request().query == Fields()
    assert "A" not in query


def test_cookies() -> None:
    """Several headers, quotation marks, parts that are no cookie; the first of a name counts."""
    lines = 'Cookie: a=1; b="x y"; c; =d; e=f=g\ncookie: a=2; h='
    assert Request("/", "", lines).cookies == {"a": "1", "b": "x y", "e": "f=g", "h": ""}
    assert Request().cookies == {}


def test_quoted_cookies_are_unquoted_in_proportion_to_their_length() -> None:
    """Strangers send them; older versions of ``http.cookies`` needed minutes for 64 KiB."""
    assert Request("/", "", r'Cookie: a="\"\101\\"; b="; c=""').cookies == {
        "a": '"A\\',
        "b": '"',
        "c": "",
    }
    began = time.process_time()
    long = Request("/", "", 'Cookie: a="' + "\\" * 60_000 + '"')
    assert long.cookies["a"] == "\\" * 30_000
    assert time.process_time() - began < 1


def test_subprotocols_are_listed_in_the_order_of_the_offer() -> None:
    """In one header or in several."""
    lines = "Sec-WebSocket-Protocol: v2, v1,\nsec-websocket-protocol: v0"
    assert Request("/", "", lines).subprotocols == ("v2", "v1", "v0")
    assert Request().subprotocols == ()


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [("/a%20b?x=%20", "/a b", "x=%20"), ("/?", "/", ""), ("/a?b?c", "/a", "b?c")],
)
def test_a_target_is_decoded(target: str, path: str, query: str) -> None:
    """The path once, the query when it is asked for."""
    request = Request.of_target(target, [("X-Name", "\udcfc")], None)
    assert (request.path, request.query_string) == (path, query)
    assert request.headers["x-name"] == "ü"


def test_a_request_cannot_be_changed() -> None:
    """It stays as it was asked."""
    with pytest.raises(AttributeError):
        Request().path = "/other"  # type: ignore[misc]
    assert Request("/a") == Request("/a")
    assert len({Request("/a"), Request("/a")}) == 1
    assert isinstance(Request().headers, Headers)
