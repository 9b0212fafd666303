"""Starting the processes of a benchmark, talking to them, and asking the kernel what they used."""

import contextlib
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cluster_pool.embedded import EmbeddedServer, bound_to_parent

TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(*pids: int) -> float:
    """User and system time that these processes have used."""
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICKS


def resident_bytes(pid: int) -> int:
    """Memory of a process that is in RAM."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()


def need_descriptors(count: int) -> None:
    """Raise the soft limit as far as needed; exit with a clear word if the hard one forbids."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    need = count + 200
    if hard != resource.RLIM_INFINITY and need > hard:
        sys.exit(f"{count} connections need {need} descriptors; the limit here is {hard}")
    if need > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (need, hard))


class Worker:
    """A Python process that obeys JSON lines."""

    def __init__(self, module: str, *arguments: str) -> None:
        self.process = subprocess.Popen(
            bound_to_parent([sys.executable, "-m", module, *arguments]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    @property
    def pid(self) -> int:
        """Of the process."""
        return self.process.pid

    def answer(self) -> dict[str, Any]:
        """The next line that it says."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("a worker has died")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def tell(self, do: str, **order: Any) -> None:
        """Give an order and do not wait."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": do, **order}).encode() + b"\n")
        self.process.stdin.flush()

    def ask(self, do: str, **order: Any) -> dict[str, Any]:
        """Give an order and wait until it is carried out."""
        self.tell(do, **order)
        return self.answer()

    def kill(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()


class Bench:
    """A Redis, node A that sends, node B that serves, and the clients of B."""

    def __init__(self, loop: str) -> None:
        self.loop = loop
        self._workers: list[Worker] = []
        self._stack = contextlib.ExitStack()
        self.redis = EmbeddedServer()

    def __enter__(self) -> "Bench":
        self._stack.enter_context(self.redis)
        return self

    def __exit__(self, *error: object) -> None:
        for worker in self._workers:
            worker.kill()
        self._stack.close()

    def sender(self) -> Worker:
        """Node A."""
        worker = self._add(Worker("benchmarks.sender", self.redis.url, self.loop))
        worker.answer()
        return worker

    def server(self) -> tuple[Worker, int]:
        """Node B, and its port."""
        flag = "--uvloop" if self.loop == "uvloop" else "--no-uvloop"
        worker = self._add(
            Worker(
                *("cluster_pool", "serve", "--redis", self.redis.url, "--port", "0", "--json"),
                *("--node-id", "B", "--log-level", "error", flag),
            )
        )
        return worker, int(worker.answer()["port"])

    def clients(self) -> Worker:
        """A process for clients."""
        return self._add(Worker("benchmarks.sink"))

    def _add(self, worker: Worker) -> Worker:
        self._workers.append(worker)
        return worker


def received_all(clients: Worker, expected: int, seconds: float = 20.0) -> int:
    """Wait until the clients have this many bytes; gives what they have."""
    deadline = time.monotonic() + seconds
    while True:
        got = int(clients.ask("read")["bytes"])
        if got >= expected or time.monotonic() > deadline:
            return got
        time.sleep(0.05)


@contextlib.contextmanager
def connected(loop: str, count: int) -> Iterator[tuple[Bench, Worker, Worker, Worker]]:
    """A bench with ``count`` clients on node B: the bench, A, B and the clients."""
    with Bench(loop) as bench:
        a = bench.sender()
        b, port = bench.server()
        clients = bench.clients()
        clients.ask("connect", port=port, namespace="bench", prefix="c", first=0, count=count)
        yield bench, a, b, clients
