"""What the kernel tells: CPU time and memory of a process, descriptors, who we run on."""

import os
import platform
import resource
import subprocess
import time
from importlib import metadata

SPARE_DESCRIPTORS = 200
"""What a process needs beside its connections."""
PACKAGES = ("cluster-pool", "websockets", "redis", "hiredis", "uvloop")


def cpu_ns(pid: int) -> int:
    """CPU time, user and system, of all threads of a process so far, in nanoseconds.

    The clock id is Linux's ``MAKE_PROCESS_CPUCLOCK(pid, CPUCLOCK_SCHED)``, which is what
    clock_getcpuclockid(3) returns: precise, where /proc/PID/stat counts ticks of 10 ms.
    """
    return time.clock_gettime_ns((~pid << 3) | 2)


def resident_bytes(pid: int) -> int:
    """Resident memory of a process (proc_pid_statm(5), second field, in pages)."""
    with open(f"/proc/{pid}/statm") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize()


def too_few_descriptors(connections: int) -> str:
    """Raise the soft limit as far as needed; why that many connections cannot be, or ""."""
    need = connections + SPARE_DESCRIPTORS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= need or soft == resource.RLIM_INFINITY:
        return ""
    if hard != resource.RLIM_INFINITY and hard < need:
        return (
            f"{connections} connections to one process need {need} file descriptors, and the "
            f"limit is {hard}: ask for at most {max(hard - SPARE_DESCRIPTORS, 0)}, "
            "or raise it (ulimit -Hn)"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (need, hard))
    return ""


def load() -> float:
    """How many processes wanted a CPU in the last minute."""
    return os.getloadavg()[0]


def description(server: str) -> dict[str, str]:
    """The machine and the versions, for the head of the table."""
    cpus = len(os.sched_getaffinity(0))
    versions = {name: package_version(name) for name in PACKAGES}
    return {
        "machine": f"{cpus} CPUs ({_cpu_model()}), Linux {platform.release()}, loopback",
        "python": platform.python_version(),
        **{name: version for name, version in versions.items() if version},
        "server": server_version(server),
    }


def server_version(program: str) -> str:
    """As in ``Valkey 9.1.2 with malloc=libc``: what allocates decides about a server's speed."""
    said = subprocess.run((program, "--version"), capture_output=True, text=True, check=True).stdout
    named = dict(word.split("=", 1) for word in said.split() if "=" in word)
    return f"{said.split()[0]} {named.get('v')} with {named.get('malloc')}"


def package_version(name: str) -> str:
    """Of an installed package, "" for one that is not."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _cpu_model() -> str:
    with open("/proc/cpuinfo") as lines:
        for line in lines:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()
