"""File descriptors: how many a process may have."""

import resource

SPARE = 200
"""What a process needs beside its connections."""


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
