"""The protocol of both pools."""

import inspect

import pytest

from cluster_pool import ClusterPool, ConnectionsPool
from cluster_pool.local.protocol import Pool


@pytest.mark.parametrize("kind", [ConnectionsPool, ClusterPool])
def test_both_pools_have_the_methods_of_the_protocol(kind: type) -> None:
    """The same names, the same parameters in the same order, awaited where it says so."""
    methods = {name: one for name, one in vars(Pool).items() if name[0] != "_" and callable(one)}
    assert "send" in methods
    for name, method in methods.items():
        own = getattr(kind, name)
        assert inspect.iscoroutinefunction(own) == inspect.iscoroutinefunction(method), name
        wanted = list(inspect.signature(method).parameters)
        assert list(inspect.signature(own).parameters)[: len(wanted)] == wanted, name
