"""Announced addresses are mapped to addresses that are reachable from here."""

import pytest

from cluster_pool.backplane.remap import read_remap, unchanged
from cluster_pool.exceptions import InvalidValueError


def test_hosts_and_ports_are_mapped() -> None:
    """The first entry that matches counts; without a port the announced one stays."""
    remap = read_remap("10.0.0.2:6379=127.0.0.1:7001,10.0.0.2=b,[::1]:5=[::2]:6")
    assert remap(("10.0.0.2", 6379)) == ("127.0.0.1", 7001)
    assert remap(("10.0.0.2", 6380)) == ("b", 6380)
    assert remap(("::1", 5)) == ("::2", 6)
    assert remap(("::1", 7)) == ("::1", 7)
    assert unchanged(("a", 1)) == ("a", 1)


def test_every_host_may_be_mapped_to_one() -> None:
    """As with containers, whose ports are published on the host."""
    assert read_remap("*=127.0.0.1")(("172.18.0.9", 7000)) == ("127.0.0.1", 7000)
    assert read_remap("*:1=127.0.0.1:2")(("172.18.0.9", 1)) == ("127.0.0.1", 2)


@pytest.mark.parametrize("text", ["", "a", "a=", "=b", "a=b,", "a=*", "a=b=c", "a:x=b", "::1=b"])
def test_an_invalid_mapping_is_refused(text: str) -> None:
    """The error shows the right form."""
    with pytest.raises(InvalidValueError, match="ANNOUNCED=USED"):
        read_remap(text)
