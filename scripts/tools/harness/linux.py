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
