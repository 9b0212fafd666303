"""The application of the demo's nodes: it sends from its node what a client asks it to send.

A client says ``{"send": ID, "text": …}`` or ``{"broadcast": TEXT}``; the result comes back as
``{"result": …}``.
"""

import json

from cluster_pool.cluster.pool import ClusterPool
from cluster_pool.local.connection import Connection


async def handler(pool: ClusterPool, connection: Connection) -> None:
    """Serve one client of the demo until it leaves."""
    async for message in connection:
        wish = json.loads(message)
        if "send" in wish:
            result = await pool.send(connection.namespace, wish["send"], wish["text"], confirm=True)
            await connection.send_json({"result": result.value})
        else:
            nodes = await pool.broadcast_message(connection.namespace, wish["broadcast"])
            await connection.send_json({"result": nodes})
