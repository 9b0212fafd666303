"""The state that the parts of a connection share."""

from cluster_pool import Connection
from cluster_pool.local.state import ConnectionState
from cluster_pool.testing import FakeWebSocket
from tests.support import async_test


@async_test
async def test_a_connection_adds_no_slot_and_no_dict() -> None:
    """All of its data are in one place, so that its memory is known."""
    connection = Connection("1", "n", FakeWebSocket())
    assert not hasattr(connection, "__dict__")
    assert Connection.__slots__ == ()
    kept = [name for name in ConnectionState.__slots__ if name != "__weakref__"]
    assert all(hasattr(connection, name) for name in kept), "complete when it is made"


@async_test
async def test_a_connections_name_in_the_log_cannot_forge_a_line() -> None:
    """Id and namespace are escaped; the state is shown."""
    text = repr(Connection("a\u202e", "n", FakeWebSocket()))
    assert text == "<Connection 'a\\u202e' in 'n', open>"
