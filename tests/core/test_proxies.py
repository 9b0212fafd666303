"""Trusted proxies: whose header decides about the client."""

import pytest

from cluster_pool.core.proxies import Proxies
from cluster_pool.exceptions import InvalidValueError

CHAIN = ["6.6.6.6, 203.0.113.7", "10.0.0.2"]


@pytest.mark.parametrize(
    ("named", "peer", "forwarded", "client"),
    [
        (None, "127.0.0.1", CHAIN, "127.0.0.1"),
        ("127.0.0.1", "127.0.0.1", CHAIN, "10.0.0.2"),
        ("127.0.0.1,10.0.0.0/8", "127.0.0.1", CHAIN, "203.0.113.7"),
        (["127.0.0.1", "10.0.0.0/8"], "127.0.0.1", CHAIN, "203.0.113.7"),
        ("10.0.0.0/8", "127.0.0.1", CHAIN, "127.0.0.1"),
        ("*", "127.0.0.1", CHAIN, "6.6.6.6"),
        ("*", None, CHAIN, "6.6.6.6"),
        ("127.0.0.1", None, CHAIN, None),
        ("127.0.0.1", "127.0.0.1", [], "127.0.0.1"),
        ("127.0.0.1", "127.0.0.1", [""], "127.0.0.1"),
        ("127.0.0.1", "127.0.0.1", ["6.6.6.6, unknown"], "127.0.0.1"),
        ("127.0.0.1", "127.0.0.1", ["unknown, 6.6.6.6"], "6.6.6.6"),
        ("127.0.0.1 10.0.0.2", "127.0.0.1", ["nobody, 10.0.0.2"], "10.0.0.2"),
        ("127.0.0.1", "127.0.0.1", ["203.0.113.7:4711"], "203.0.113.7"),
        ("127.0.0.1", "127.0.0.1", ["[2001:DB8::1]:4711"], "2001:db8::1"),
        ("127.0.0.1", "127.0.0.1", ["2001:db8::1"], "2001:db8::1"),
        ("127.0.0.1", "127.0.0.1", ["[2001:db8::1"], "127.0.0.1"),
        ("::1", "::1", ["6.6.6.6"], "6.6.6.6"),
        ("127.0.0.1", "127.0.0.1", ["fe80::1%<b>"], "fe80::1"),
        ("fe80::1", "fe80::1%eth0", ["6.6.6.6"], "6.6.6.6"),
        ("127.0.0.1", "::ffff:127.0.0.1", ["::ffff:6.6.6.6"], "6.6.6.6"),
        ("10.0.0.0/8", "10.1.1.1", ["10.2.2.2, 10.3.3.3"], "10.2.2.2"),
    ],
)
def test_the_client_is_the_rightmost_address_that_is_no_named_proxy(
    named: str | list[str] | None, peer: str | None, forwarded: list[str], client: str | None
) -> None:
    """Addresses further to the left were written by an unnamed party."""
    assert Proxies(named).client(peer, forwarded) == client


def test_the_host_comes_from_a_named_proxy_only() -> None:
    """Its header replaces the request's, as a whole."""
    proxies = Proxies("127.0.0.1")
    assert proxies.hosts("127.0.0.1", ["inside"], ["outside"]) == ["outside"]
    assert proxies.hosts("127.0.0.1", ["inside"], ["a", "b"]) == ["a", "b"]
    assert proxies.hosts("127.0.0.1", ["inside"], []) == ["inside"]
    assert proxies.hosts("127.0.0.2", ["inside"], ["outside"]) == ["inside"]
    assert Proxies().hosts("127.0.0.1", ["inside"], ["outside"]) == ["inside"]


@pytest.mark.parametrize("name", ["proxy.example", "10.0.0.1/8", "10.0.0.0/33", "10.0.0", "**"])
def test_an_invalid_address_is_refused_with_its_name(name: str) -> None:
    """At the start."""
    with pytest.raises(InvalidValueError, match="no address or network"):
        Proxies(f"127.0.0.1,{name}")


def test_no_proxy_is_trusted_by_default() -> None:
    """Also with an empty variable."""
    for named in (None, "", " , ", []):
        assert not Proxies(named).trust("127.0.0.1")
        assert not Proxies(named).trust(None)
