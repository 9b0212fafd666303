"""The places of a token in a request, and the answer to one that is offered as subprotocol."""

import pytest

from cluster_pool import InvalidValueError, Request
from cluster_pool.auth.tokens import answered_subprotocol, bearing, find_token, is_bearer

EVERYWHERE = (
    "Authorization: Bearer header\n"
    "Sec-WebSocket-Protocol: chat, cluster-pool.token.offer, cluster-pool.raw\n"
    "Cookie: session=cookie"
)


def asking(*lines: str, query: str = "") -> Request:
    """A request with these headers."""
    return Request("/ws", query, "\n".join(lines))


def test_a_token_is_looked_for_in_header_offer_cookie_and_query() -> None:
    lines = EVERYWHERE.split("\n")
    found = [
        find_token(asking(*lines[skipped:], query="token=query"), "session", "token")
        for skipped in range(4)
    ]
    assert found == ["header", "offer", "cookie", "query"]
    assert find_token(asking(), "session", "token") is None


def test_cookie_and_query_are_read_under_their_names_only() -> None:
    request = asking("Cookie: session=cookie", query="token=query")
    assert find_token(request, None, None) is None
    assert find_token(request, "other", "key") is None


def test_another_scheme_is_no_token() -> None:
    assert find_token(asking("Authorization: Basic YTpi"), None, None) is None
    assert find_token(asking("authorization: bearer  x "), None, None) == "x"


@pytest.mark.parametrize(
    ("values", "bears"),
    [
        ([b"Bearer t0ken"], True),
        ([b"bearer  t0ken "], True),
        ([b"Bearer t0ke"], False),
        ([b"Bearer t0ken2"], False),
        ([b"Bearer"], False),
        ([b"Bearer "], False),
        ([b"Basic t0ken"], False),
        ([b"t0ken"], False),
        ([b"\xff\xfe"], False),
        ([b"Bearer \xff"], False),
        ([b"Bearer t0ken", b"Bearer t0ken"], False),
        ([], False),
    ],
)
def test_a_bearer_is_known_by_one_header_with_the_whole_token(
    values: list[bytes], bears: bool
) -> None:
    assert is_bearer(values, "t0ken") is bears


def test_a_token_is_never_answered() -> None:
    offered = asking("Sec-WebSocket-Protocol: cluster-pool.token.x, cluster-pool.raw, chat")
    assert answered_subprotocol(offered, None) == "cluster-pool.raw"
    assert answered_subprotocol(offered, "chat") == "chat"
    with pytest.raises(InvalidValueError, match="must not be answered"):
        answered_subprotocol(offered, "cluster-pool.token.x")


def test_a_token_offered_alone_is_refused_since_browsers_drop_such_a_handshake() -> None:
    with pytest.raises(InvalidValueError, match=r"without cluster-pool\.raw"):
        answered_subprotocol(asking("Sec-WebSocket-Protocol: cluster-pool.token.x"), None)


def test_without_a_token_nothing_is_answered_that_the_application_does_not_want() -> None:
    assert answered_subprotocol(asking("Sec-WebSocket-Protocol: cluster-pool.raw"), None) is None
    assert answered_subprotocol(asking(), "chat") == "chat"


def test_a_request_with_another_token_has_no_other_credentials() -> None:
    request = bearing(Request("/ws", "token=old", EVERYWHERE, "10.0.0.1"), "new")
    assert find_token(request, "session", "token") == "new"
    assert (request.path, request.query_string, request.client) == ("/ws", "", "10.0.0.1")
    for odd in ("a\nCookie: b=c", "a b", "é"):
        with pytest.raises(InvalidValueError):
            bearing(request, odd)
