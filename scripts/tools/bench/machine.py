"""The machine of the run, for the head of the table."""

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

import cluster_pool

PACKAGES = ("cluster-pool", "websockets", "redis", "hiredis", "uvloop")


def description(server: str) -> dict[str, str]:
    """The machine, the versions, and which tree of the package is measured."""
    cpus = len(os.sched_getaffinity(0))
    there = {one.name.replace("_", "-"): one.version for one in metadata.distributions()}
    return {
        "machine": f"{cpus} CPUs ({_cpu_model()}), Linux {platform.release()}, loopback",
        "python": platform.python_version(),
        **{name: there[name] for name in PACKAGES if name in there},
        "server": _server_version(server),
        "package": str(Path(cluster_pool.__file__).parent),
    }


def _server_version(program: str) -> str:
    """As in ``Valkey 9.1.2 with malloc=libc``: what allocates decides about a server's speed."""
    said = subprocess.run((program, "--version"), capture_output=True, text=True, check=True).stdout
    named = dict(word.split("=", 1) for word in said.split() if "=" in word)
    return f"{said.split()[0]} {named.get('v')} with {named.get('malloc')}"


def _cpu_model() -> str:
    with open("/proc/cpuinfo") as lines:
        for line in lines:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()
