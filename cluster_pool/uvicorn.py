"""The WebSocket protocol to give to uvicorn, for broadcasts as cheap as in ``cluster-pool serve``.

``uvicorn app:app --ws cluster_pool.uvicorn:Protocol``, or ``uvicorn.run(app, ws=Protocol)``.
"""

from cluster_pool.transports.uvicorn import Protocol

__all__ = ["Protocol"]
