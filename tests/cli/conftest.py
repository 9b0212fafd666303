"""A node that several tests of the command line need."""

from collections.abc import Iterator

import pytest

from tests.servers import RedisServer
from tools.harness.nodes import NodeProcess


@pytest.fixture
def node(own_server: RedisServer) -> Iterator[NodeProcess]:
    """A running node with the id "a"."""
    with NodeProcess(own_server.url, "--node-id", "a") as one:
        yield one
