"""Three nodes behind the real proxies, with the files that we ship."""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from tools.harness.haproxy import DEPLOY, running
from tools.harness.haproxy import haproxy as real_haproxy
from tools.harness.nodes import Fleet

NODES = ("n1", "n2", "n3")
SHIPPED_PORTS = (8000, 8001, 8002)
STOP = ("--announce", "1.5", "--grace", "10", "--close-rate", "20")

Proxy = Callable[..., contextlib.AbstractContextManager[object]]


class Cluster(Fleet):
    """Three nodes with short times."""

    def __init__(
        self,
        redis: str,
        stack: contextlib.ExitStack,
        *options: str,
        folder: Path | None = None,
    ) -> None:
        super().__init__(redis, NODES, stack, *STOP, *options, folder=folder)


@contextlib.contextmanager
def haproxy(cluster: Cluster, front: int, folder: Path, page: str = "") -> Iterator[Path]:
    """A real HAProxy; gives its command socket. It answers ``/page`` itself with ``page``."""
    with real_haproxy(cluster.addresses, front, folder, page) as control:
        yield control


def replaced(file: str, pairs: Iterable[tuple[str, str]]) -> str:
    """A file that we ship, with texts replaced that must be there once."""
    text = (DEPLOY / file).read_text()
    for old, new in pairs:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


def nginx_file(ports: list[int], front: int) -> str:
    """The file that we ship, with the addresses of this test."""
    ours = [f"server 127.0.0.1:{port} " for port in ports]
    theirs = [f"server 127.0.0.1:{port} " for port in SHIPPED_PORTS]
    front_pair = ("127.0.0.1:8080", f"127.0.0.1:{front}")
    return replaced("nginx.conf", [*zip(theirs, ours, strict=True), front_pair])


@contextlib.contextmanager
def nginx(cluster: Cluster, front: int, folder: Path, page: str = "") -> Iterator[None]:
    """A real nginx, which writes below one folder only; ``page`` as for HAProxy."""
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


@contextlib.contextmanager
def caddy(cluster: Cluster, front: int, folder: Path) -> Iterator[Path]:
    """A real Caddy, which writes below one folder only; gives the file that it has read."""
    theirs, ours = (
        " ".join(f"127.0.0.1:{port}" for port in ports)
        for ports in (SHIPPED_PORTS, [node.port for node in cluster.nodes.values()])
    )
    file = folder / "Caddyfile"
    file.write_text(
        replaced("Caddyfile", [(theirs, ours), ("\nhttp://:8080 ", f"\nhttp://:{front} ")])
    )
    homes = {"HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    control = {"CADDY_ADMIN": f"unix/{folder}/admin"}
    words = ("--adapter", "caddyfile", "--config", str(file))
    with running(["caddy", "run", *words], **homes, **control):
        yield file


@contextlib.contextmanager
def traefik(cluster: Cluster, front: int, folder: Path) -> Iterator[None]:
    """A real Traefik."""
    ports = [node.port for node in cluster.nodes.values()]
    ours = [f"url: http://127.0.0.1:{port}\n" for port in ports]
    theirs = [f"url: http://127.0.0.1:{port}\n" for port in SHIPPED_PORTS]
    nodes, file = folder / "traefik-nodes.yaml", folder / "traefik.yaml"
    nodes.write_text(replaced(nodes.name, zip(theirs, ours, strict=True)))
    where = ("filename: /etc/traefik/traefik-nodes.yaml", f"filename: {nodes}")
    file.write_text(replaced(file.name, [("127.0.0.1:8080", f"127.0.0.1:{front}"), where]))
    with running(["traefik", f"--configFile={file}"]):
        yield
