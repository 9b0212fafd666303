"""Hosts that are this machine alone."""

import pytest

from cluster_pool.core.loopback import is_loopback


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.8.8", "::1"])
def test_loopback(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "10.0.0.1", "localhost.example", "127.1"])
def test_other_hosts(host: str) -> None:
    assert not is_loopback(host)
