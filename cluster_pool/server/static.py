"""The client for browsers, as a file that pages load from a node."""

import http
from importlib.resources import files
from typing import Final

from cluster_pool.cluster.answers import Answer

CLIENT_PATH: Final = "/cluster-socket.js"
_CLIENT: Final = Answer(
    http.HTTPStatus.OK,
    (files("cluster_pool") / "static" / "cluster-socket.js").read_text("utf-8"),
    "text/javascript; charset=utf-8",
    {
        "Cache-Control": "public, max-age=3600",  # its URL is that of the next version, too
        "Access-Control-Allow-Origin": "*",  # a module of another origin is not loaded without it
        "X-Content-Type-Options": "nosniff",
    },
)
_OTHER_METHOD: Final = Answer(
    http.HTTPStatus.METHOD_NOT_ALLOWED, "GET it\n", headers={"Allow": "GET, HEAD"}
)


def client_file(method: str) -> Answer:
    """The answer to a request for the client."""
    return _CLIENT if method in ("GET", "HEAD") else _OTHER_METHOD
