"""The public name of the protocol for uvicorn."""

import uvicorn

from cluster_pool.transports.uvicorn import DirectProtocol
from cluster_pool.uvicorn import Protocol


def test_uvicorn_loads_it_by_the_name_that_the_documentation_gives() -> None:
    """``--ws`` takes such a name."""
    config = uvicorn.Config("tests.asgi.app:app", ws="cluster_pool.uvicorn:Protocol")
    config.loaded_app = None
    assert Protocol is DirectProtocol
    assert uvicorn.config.import_from_string(config.ws) is Protocol
