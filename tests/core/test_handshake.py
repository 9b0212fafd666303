"""Offers that a server could not answer are refused before a claim is made."""

import time

import pytest

from cluster_pool import InvalidValueError, Request
from cluster_pool.core.handshake import check_offers, check_subprotocols


@pytest.mark.parametrize(
    "lines",
    [
        "",
        "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits",
        'Sec-WebSocket-Extensions: a; b="c\\"d"; e = f , g,,h;i=1',
        "Sec-WebSocket-Extensions: ,\t, a",
        "Sec-WebSocket-Protocol: v1 , v2,\nSec-WebSocket-Protocol: v3",
    ],
)
def test_readable_headers_pass(lines: str) -> None:
    """Lists as RFC 9110 section 5.6 has them."""
    check_offers(Request("/", "", lines), None)


@pytest.mark.parametrize(
    "lines",
    [
        "Sec-WebSocket-Extensions: @",
        "Sec-WebSocket-Extensions:",
        "Sec-WebSocket-Extensions: , ,",
        "Sec-WebSocket-Protocol:",
        "Sec-WebSocket-Extensions: a; b=",
        "Sec-WebSocket-Extensions: a b",
        "Sec-WebSocket-Extensions: a;",
        'Sec-WebSocket-Extensions: a; b="c',
        "Sec-WebSocket-Extensions: a\nSec-WebSocket-Extensions: =",
        "Sec-WebSocket-Protocol: v 1",
        "Sec-WebSocket-Protocol: ümlaut",
        "Sec-WebSocket-Protocol: a/b",
    ],
)
def test_unreadable_headers_are_refused(lines: str) -> None:
    """The header is named."""
    with pytest.raises(InvalidValueError, match="Sec-WebSocket-"):
        check_offers(Request("/", "", lines), None)


def test_an_offer_that_cannot_be_read_is_not_shown() -> None:
    """It may be a token."""
    with pytest.raises(InvalidValueError) as refused:
        check_offers(Request("/", "", "Sec-WebSocket-Protocol: cluster-pool.token.abc, ("), None)
    assert "abc" not in str(refused.value)


def test_a_client_refuses_an_answer_that_it_did_not_offer() -> None:
    """The handshake would fail, so it is refused before."""
    request = Request("/", "", "Sec-WebSocket-Protocol: v1, v2")
    check_offers(request, "v2")
    for answered in ("v3", "V1", ""):
        with pytest.raises(InvalidValueError, match="does not offer"):
            check_offers(request, answered)
    with pytest.raises(InvalidValueError, match="does not offer"):
        check_offers(Request(), "v1")


@pytest.mark.parametrize(
    "value",
    [
        'a; b="' + "\\" * 60_000,
        "a ;" * 20_000,
        "a" + " " * 60_000 + "@",
        "," * 60_000,
        '"' * 60_000,
    ],
)
def test_no_header_takes_long_to_read(value: str) -> None:
    """The work grows no faster than the length: the limit is a hundred times the usual time."""
    request = Request("/", "", f"Sec-WebSocket-Extensions: {value}\nSec-WebSocket-Protocol: a")
    before = time.process_time()
    with pytest.raises(InvalidValueError):
        check_offers(request, None)
    assert time.process_time() - before < 1


def test_names_of_subprotocols() -> None:
    """Tokens (RFC 9110 section 5.6.2)."""
    assert check_subprotocols(["v1.chat", "v2"]) == ("v1.chat", "v2")
    for name in ("", "a b", "a,b", "ü", 5):
        with pytest.raises(InvalidValueError, match="no name of a subprotocol"):
            check_subprotocols([name])  # type: ignore[list-item]
