"""A worker of gunicorn with our protocol of uvicorn, as the documentation writes it."""

from uvicorn_worker import UvicornWorker


class Worker(UvicornWorker):
    """See the module."""

    CONFIG_KWARGS = {**UvicornWorker.CONFIG_KWARGS, "ws": "cluster_pool.uvicorn:Protocol"}  # noqa: RUF012  # as theirs
