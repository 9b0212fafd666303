"""The command line as a process of its own."""

import os
import subprocess
import sys


def run(
    *arguments: str, redis: str | None = None, stdin: bytes = b"", **environment: str
) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of one command."""
    done = subprocess.run(
        [sys.executable, "-m", "cluster_pool", *arguments, *(("--redis", redis) if redis else ())],
        input=stdin,
        capture_output=True,
        env={**os.environ, "COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb", **environment},
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()
