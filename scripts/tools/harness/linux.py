"""Facts and limits of processes under Linux."""

import resource
import time

SPARE = 200
"""The descriptors of a process beside its connections."""


def cpu_ns(pid: int) -> int:
    """CPU time, user and system, of all threads of a process so far, in nanoseconds.

    The clock id is ``MAKE_PROCESS_CPUCLOCK(pid, CPUCLOCK_SCHED)``, which is what
    clock_getcpuclockid(3) returns: precise, where /proc/PID/stat counts ticks of 10 ms.
    """
    return time.clock_gettime_ns((~pid << 3) | 2)


def resident_bytes(pid: int | str = "self") -> int:
    """Resident memory (proc_pid_statm(5), second field, in pages)."""
    with open(f"/proc/{pid}/statm") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize()


def too_few_descriptors(connections: int) -> str:
    """Raise the soft limit as far as needed; why that many connections cannot be, or ""."""
    need = connections + SPARE
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if resource.RLIM_INFINITY in (soft, hard) or hard >= need:
        if soft != resource.RLIM_INFINITY and soft < need:
            resource.setrlimit(resource.RLIMIT_NOFILE, (need, hard))
        return ""
    return (
        f"{connections} connections to one process need {need} file descriptors, and the "
        f"limit is {hard}: ask for at most {max(hard - SPARE, 0)}, or raise it (ulimit -Hn)"
    )


class Busy:
    """The work of all CPUs of the machine from now on, for any program."""

    def __init__(self) -> None:
        self._before = _ticks()

    def share(self) -> float:
        """The part of the time since the start in which they worked."""
        idle, total = (now - before for now, before in zip(_ticks(), self._before, strict=True))
        return 1 - idle / total if total else 0.0


def _ticks() -> tuple[int, int]:
    """Ticks in which the CPUs were idle, and all (proc_stat(5), first line)."""
    with open("/proc/stat") as lines:
        ticks = [int(word) for word in lines.readline().split()[1:9]]
    return ticks[3] + ticks[4], sum(ticks)
