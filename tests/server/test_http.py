"""Targets of requests, read without a network."""

import http

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster_pool.cluster.answers import UNAUTHORIZED
from cluster_pool.exceptions import InvalidValueError
from cluster_pool.server.http import (
    Target,
    answer,
    come_back,
    response_of,
    split_target,
    target_of,
)


@pytest.mark.parametrize(
    ("target", "wanted"),
    [
        ("/ws/room?id=alice", Target("room", "alice")),
        ("/ws/a%2Fb%20c?id=%C3%BC", Target("a/b c", "ü")),
        ("/ws/a/b?id=x", Target("a/b", "x")),
        ("/ws/user:42?other=1&id=a%2Bb", Target("user:42", "a+b")),
        ("/ws/room?id=a+b", Target("room", "a b")),
        ("http://host:8000/ws/room?id=a", Target("room", "a")),
        ("/ws/room?rewind=20&id=a", Target("room", "a", 20)),
        ("/", None),
        ("/ws", None),
        ("//[", None),
        ("*", None),
        ("/WS/room", None),
        ("ftp://host/ws/room", None),
    ],
)
def test_target_is_read_from_path_and_query(target: str, wanted: Target | None) -> None:
    """Namespace and id are percent-decoded; every other path is none."""
    assert target_of(target) == wanted


def test_a_target_may_leave_its_id_open() -> None:
    assert target_of("/ws/room") == Target("room", None)


@pytest.mark.parametrize(
    "target",
    [
        "/ws/",
        "/ws/room?id=",
        "/ws/room?id=a&id=b",
        "/ws/room?rewind=",
        "/ws/room?rewind=0",
        "/ws/room?rewind=-5",
        "/ws/room?rewind=20000",
        "/ws/room?rewind=1&rewind=2",
        "/ws/room?rewind=%C2%B2",
        "/ws/%7B",
        "/ws/~?id=a",
        "/ws/room?id=%00",
        "/ws/room?id=%ff",
        "/ws/%ED%A0%80",
        "/ws/room?id=" + "x" * 257,
        "/ws/room?" + "&".join(f"n{at}=1" for at in range(30)),
    ],
)
def test_malformed_targets_are_refused(target: str) -> None:
    """Unlike paths that do not exist, which are not found."""
    with pytest.raises(InvalidValueError):
        target_of(target)


@given(st.text(alphabet=st.characters(max_codepoint=0xDCFF), max_size=60))
def test_any_text_is_a_target_or_an_invalid_value(text: str) -> None:
    """Any text gives a target, none, or our error; each error can be sent as an answer."""
    for target in (text, f"/ws/{text}", f"/ws/room?id={text}"):
        said = "fine"
        try:
            target_of(target)
        except InvalidValueError as error:
            said = str(error)
        assert answer(http.HTTPStatus.BAD_REQUEST, said).body


def test_absolute_target_has_the_same_path() -> None:
    """RFC 9112 section 3.2.2 requires servers to accept it."""
    assert split_target("http://host/healthz?x=1") == ("/healthz", "x=1")
    assert split_target("https://host") == ("/", "")
    assert split_target("/a?b?c") == ("/a", "b?c")


def test_answers_have_length_and_close_the_connection() -> None:
    """Length in bytes, a socket that is not kept, and when to come back."""
    response = come_back("später\n")
    assert (response.status_code, response.body) == (503, "später\n".encode())
    assert response.headers["Content-Length"] == "8"
    assert response.headers["Connection"] == "close"
    assert response.headers["Retry-After"] == "1"


def test_an_answer_about_the_node_keeps_its_headers() -> None:
    """The socket is closed behind it, as behind every other."""
    response = response_of(UNAUTHORIZED)
    assert (response.status_code, response.body) == (401, b"a token is wanted\n")
    assert response.headers["WWW-Authenticate"] == "Bearer"
    assert response.headers["Connection"] == "close"
