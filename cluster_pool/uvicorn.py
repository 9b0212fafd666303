"""The WebSocket protocol to give to uvicorn, for broadcasts as cheap as in ``cluster-pool serve``.

``uvicorn app:app --ws cluster_pool.uvicorn:Protocol``, or ``uvicorn.run(app, ws=Protocol)``.
``CompressingProtocol`` in its place compresses for the clients that offer permessage-deflate.
"""

from cluster_pool.transports.uvicorn import CompressingProtocol, Protocol

__all__ = ["CompressingProtocol", "Protocol"]
