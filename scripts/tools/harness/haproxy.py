"""HAProxy with the very file that we ship, before nodes of this machine."""

import contextlib
import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from tools.harness.ports import HOST

DEPLOY = Path(__file__).parents[3] / "deploy"
SHIPPED = 3
"""Servers that the file names; more of them are added behind."""
BACKEND = "    default_backend"


@contextlib.contextmanager
def running(arguments: Sequence[str], **environment: str) -> Iterator[None]:
    """A program, stopped by its pid on leaving."""
    process = subprocess.Popen(
        arguments, env={**os.environ, **environment}, stderr=subprocess.DEVNULL
    )
    try:
        yield
    finally:
        process.terminate()
        process.wait()


@contextlib.contextmanager
def haproxy(
    nodes: Sequence[tuple[int, int]], front: int, folder: Path, page: str = ""
) -> Iterator[Path]:
    """The real one on port ``front``; gives its command socket, which a second file adds.

    Args:
        nodes: port and agent port of each, three at least.
        page: what it answers itself at ``/page``.
    """
    text = (DEPLOY / "haproxy.cfg").read_text()
    addresses = {"CLUSTER_POOL_BIND": f"{HOST}:{front}"}
    for at, (port, agent) in enumerate(nodes, 1):
        if at <= SHIPPED:
            addresses[f"CLUSTER_POOL_NODE{at}"] = f"{HOST}:{port}"
            addresses[f"CLUSTER_POOL_AGENT{at}"] = str(agent)
        else:
            text += f"    server node{at} {HOST}:{port} agent-port {agent}\n"
    if page:
        assert text.count(BACKEND) == 1
        answer = f"    http-request return content-type text/html string '{page}'"
        text = text.replace(BACKEND, f"{answer} if {{ path /page }}\n{BACKEND}")
    (folder / "ours.cfg").write_text(text)
    control = folder / "haproxy.sock"
    (folder / "control.cfg").write_text(f"global\n    stats socket {control} level admin\n")
    files = ["-f", str(folder / "control.cfg"), "-f", str(folder / "ours.cfg")]
    with running(["haproxy", "-db", *files], **addresses):
        yield control
