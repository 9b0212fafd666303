"""Three nodes behind the real proxies, with the very files that we ship."""

import contextlib
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.support import eventually
from tools.harness.haproxy import DEPLOY, running
from tools.harness.haproxy import haproxy as real_haproxy
from tools.harness.nodes import NodeProcess, in_thread

NODES = ("n1", "n2", "n3")
STOP = ("--announce", "1.5", "--grace", "10", "--close-rate", "20")

Proxy = Callable[..., contextlib.AbstractContextManager[object]]


class Cluster:
    """Three nodes, each of which can be replaced by a new process on the same ports."""

    def __init__(
        self,
        redis: str,
        stack: contextlib.ExitStack,
        *options: str,
        folder: Path | None = None,
    ) -> None:
        self._folder = folder
        self._redis = redis
        self._stack = stack
        self._options = options
        self.nodes = {name: self._start(name, 0, 0) for name in NODES}

    def _start(self, name: str, port: int, agent: int) -> NodeProcess:
        ports = ("--port", str(port), "--agent-port", str(agent))
        options = ("--node-id", name, *ports, *STOP, *self._options)
        node = NodeProcess(self._redis, *options, folder=self._folder)
        return self._stack.enter_context(node)

    def agent_port(self, name: str) -> int:
        return int(self.nodes[name].listening["agent_port"])

    async def replace(self, name: str, watch: Callable[[str], None]) -> None:
        """SIGTERM, wait for the end, start anew; ``watch`` is called all the while."""
        old = self.nodes[name]

        async def gone() -> bool:
            await in_thread(watch, name)
            return old.process.poll() is not None

        old.signal(signal.SIGTERM)
        await eventually(gone, 30)
        status, said = await in_thread(old.finish)
        assert status == 0, said
        self.nodes[name] = await in_thread(
            self._start, name, old.port, int(old.listening["agent_port"])
        )


@contextlib.contextmanager
def haproxy(cluster: Cluster, front: int, folder: Path, page: str = "") -> Iterator[Path]:
    """The real one; gives its command socket. ``page`` is what it answers itself at ``/page``."""
    nodes = [(node.port, cluster.agent_port(name)) for name, node in cluster.nodes.items()]
    with real_haproxy(nodes, front, folder, page) as control:
        yield control


def nginx_file(ports: list[int], front: int) -> str:
    """The file that we ship, with the addresses of this test."""
    text = (DEPLOY / "nginx.conf").read_text()
    ours = [f"server 127.0.0.1:{port} " for port in ports]
    theirs = [f"server 127.0.0.1:{port} " for port in (8000, 8001, 8002)]
    pairs = [*zip(theirs, ours, strict=True), ("127.0.0.1:8080", f"127.0.0.1:{front}")]
    for old, new in pairs:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


@contextlib.contextmanager
def nginx(cluster: Cluster, front: int, folder: Path, page: str = "") -> Iterator[None]:
    """The real one, everything that it writes below one folder; ``page`` as for HAProxy."""
    ports = [node.port for node in cluster.nodes.values()]
    text, anchor = nginx_file(ports, front), "    location / {"
    assert text.count(anchor) == 1
    answer = f"    location = /page {{ default_type text/html; return 200 '{page}'; }}\n"
    (folder / "ours.conf").write_text(text.replace(anchor, answer + anchor) if page else text)
    folders = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = "".join(f"    {name}_temp_path {folder}/{name};\n" for name in folders)
    (folder / "nginx.conf").write_text(
        "worker_processes 2;\nevents {}\n"
        f"http {{\n{temporary}    access_log off;\n    include {folder}/ours.conf;\n}}\n"
    )
    directives = f"daemon off; pid {folder}/pid; error_log {folder}/error.log;"
    files = ["-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log")]
    with running(["nginx", *files, "-g", directives]):
        yield
