"""The transport is picked by the type of the WebSocket."""

import pytest

from cluster_pool.transports.pick import transport_for


def test_an_object_that_is_no_websocket_is_refused() -> None:
    """The error names the type."""
    for thing in (None, 5, (print,), (print, 5), object()):
        with pytest.raises(TypeError, match=type(thing).__name__):
            transport_for(thing)


def test_an_object_of_an_unknown_library_is_refused() -> None:
    """Its ``send`` may expect something else than a message; the error names what to pass."""

    class Socket:
        async def send(self, event: dict[str, str]) -> None: ...
        async def close(self, code: int, reason: str) -> None: ...

    with pytest.raises(TypeError, match=r"Socket .* pair of callables \(send, close\)"):
        transport_for(Socket())


def test_a_socket_of_litestar_is_refused() -> None:
    """Taken silently, its sends would count as delivered, and its client would get nothing."""
    litestar = pytest.importorskip("litestar")

    async def nothing(*event: object) -> None: ...

    socket = litestar.WebSocket({"type": "websocket"}, nothing, nothing)
    with pytest.raises(TypeError, match="litestar"):
        transport_for(socket)
