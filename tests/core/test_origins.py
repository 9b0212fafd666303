"""The rule for the header Origin: which pages may open a WebSocket."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster_pool.core.origins import Origins, remedy
from cluster_pool.exceptions import InvalidValueError


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://a.example", "a.example"),
        ("https://a.example", "a.example"),
        ("http://a.example:80", "a.example"),
        ("http://a.example", "a.example:80"),
        ("https://a.example", "a.example:443"),
        ("https://a.example:443", "a.example"),
        ("http://localhost:8000", "localhost:8000"),
        ("HTTP://A.Example:8000", "a.EXAMPLE:8000"),
        ("http://[::1]:8000", "[0:0:0:0:0:0:0:1]:8000"),
        ("http://[::1]", "[::1]"),
        ("http://a.example.", "a.example."),
        ("http://under_score:1", "under_score:1"),
        ("http://xn--bcher-kva.example", "xn--bcher-kva.example"),
    ],
)
def test_the_same_origin_may_connect(origin: str, host: str) -> None:
    """Host and port are compared, without regard to case; a missing port is the scheme's."""
    assert Origins().allow([origin], [host])


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("https://evil.example", "a.example"),
        ("http://a.example", "a.example:8000"),
        ("http://a.example:8000", "a.example"),
        ("https://a.example", "a.example:80"),
        ("https://a.example:80", "a.example"),
        ("http://localhost:8000", "127.0.0.1:8000"),
        ("null", "null"),
        ("null", "a.example"),
        ("", "a.example"),
        ("", ""),
        ("a.example", "a.example"),
        ("http://", ""),
        ("http://:80", ":80"),
        ("http://a.example", ""),
        ("http://a.example/", "a.example"),
        ("http://a.example/x", "a.example"),
        ("http://a.example?x", "a.example"),
        ("http://a.example#x", "a.example"),
        ("http://user@a.example", "a.example"),
        ("http://user@a.example", "user@a.example"),
        ("http://evil.example@a.example", "a.example"),
        ("http://a.example", "user@a.example"),
        ("http://a.example", "a.example/x"),
        ("http://a.example.", "a.example"),
        ("http://a.example", "a.example."),
        ("http://a.example:", "a.example"),
        ("http://a.example", "a.example:"),
        ("http://a.example:65536", "a.example:65536"),
        ("http://a.example:-80", "a.example"),
        ("http://a.example:８０", "a.example"),
        ("http://a.example:80:80", "a.example"),
        ("http://[::1", "[::1"),
        ("http://[::1]", "::1"),
        ("http://::1", "::1"),
        ("http://[::1%eth0]", "[::1%eth0]"),
        ("http://[::1]x", "[::1]x"),
        ("http://[1.2.3.4]", "[1.2.3.4]"),
        ("http://a.example, http://a.example", "a.example"),
        ("http://a.example http://b.example", "a.example"),
        (" http://a.example", "a.example"),
        ("http://a.example\n", "a.example"),
        ("http://a.example", "a.example, a.example"),
        ("http://a%2eexample", "a.example"),
        ("http://bücher.example", "bücher.example"),
        ("http:///a.example", "a.example"),
        ("http:a.example", "a.example"),
        ("//a.example", "a.example"),
        ("://a.example", "a.example"),
        ("chrome-extension://abc", "abc"),
        ("file://", ""),
    ],
)
def test_any_other_origin_is_foreign(origin: str, host: str) -> None:
    """Another host or port, an invalid origin, an unreadable header: the check fails closed."""
    assert not Origins().allow([origin], [host])


@pytest.mark.parametrize(
    ("origins", "hosts"),
    [
        (["http://a"], []),
        (["http://a"], ["a", "a"]),
        (["http://a", "http://a"], ["a"]),
        (["http://a", "http://b"], ["a"]),
    ],
)
def test_a_repeated_or_missing_header_is_foreign(origins: list[str], hosts: list[str]) -> None:
    """Two programs could each read another one of two values."""
    assert not Origins().allow(origins, hosts)
    assert Origins().allow([], hosts), "a client without an Origin is no page"
    assert Origins(["*"]).allow(origins, hosts)


def test_other_origins_may_be_named() -> None:
    """Besides the same origin: in any case, with or without the scheme's port."""
    origins = Origins(["https://App.example", "http://localhost:3000", "null", "app://x"])
    for origin in (
        *("https://app.example", "https://app.example:443", "HTTP://LOCALHOST:3000", "null"),
        *("app://x", "http://here:1"),
    ):
        assert origins.allow([origin], ["here:1"]), origin
    for origin in ("http://app.example", "https://app.example:8443", "https://x.app.example"):
        assert not origins.allow([origin], ["here:1"]), origin
    assert origins.allow(["https://app.example"], []), "whatever the Host is"
    assert not origins.allow(["null", "null"], ["here:1"])
    assert not Origins([]).allow(["http://a"], ["b"])


@pytest.mark.parametrize(
    "name",
    [
        *("app.example", "https://app.example/", "https://*.example", "", " ", "https://", "**"),
        *("https://app.example,https://b.example", "https://u@app.example", "https://büro.example"),
        *("https://app.example:99999", 5, None),
    ],
)
def test_an_invalid_origin_is_refused_with_its_name(name: str) -> None:
    """At the start, with the value and the syntax."""
    with pytest.raises(InvalidValueError, match="SCHEME://HOST"):
        Origins([name])


def test_a_str_is_not_a_list_of_origins() -> None:
    """A str is a sequence of str, too, but its letters are no origins."""
    with pytest.raises(InvalidValueError, match="list"):
        Origins("https://app.example")


def test_the_remedy_would_have_helped() -> None:
    """The option's value, or * where only that would do; escaped."""
    assert remedy(["https://app.example"]) == "'https://app.example'"
    assert remedy(["null"]) == "'null'"
    assert remedy(["x\n"]).startswith("'*'")
    assert remedy(["http://a", "http://a"]).startswith("'*'")


@given(st.text(max_size=40), st.text(max_size=40))
def test_any_header_is_judged_without_an_error(origin: str, host: str) -> None:
    """Only an equal host counts as the same."""
    for one in (origin, f"http://{origin}", f"https://a:{origin}"):
        if Origins().allow([one], [host]):
            assert one.lower().endswith(host.lower()) or ":" in one[6:] or ":" in host
