"""Memory and descriptors of this process, beside what the system says by other ways."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from cluster_pool.cluster import process as module
from cluster_pool.cluster.process import process

pytestmark = pytest.mark.skipif(not Path(module.STATM).exists(), reason="not on Linux")


def test_it_knows_memory_and_descriptors() -> None:
    """All descriptors, where their numbers have no holes, and the resident memory."""
    program = (
        "import os; from cluster_pool.cluster.process import process\n"
        "held = [os.open('/dev/null', os.O_RDONLY) for _ in range(100)]\n"
        "print(process()['descriptors'], len(os.listdir('/proc/self/fd')) - 1)"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout
    one, other = map(int, told.split())
    assert one == other
    found = process()
    assert found["memory_bytes"] is not None
    assert found["memory_bytes"] > 1024 * 1024
    assert found["descriptors_limit"] == resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def test_without_a_free_descriptor_all_are_in_use() -> None:
    """Just then the number is wanted."""
    program = (
        "import os, resource; from cluster_pool.cluster.process import process\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))\n"
        "try:\n"
        "    while True: os.open('/dev/null', os.O_RDONLY)\n"
        "except OSError: told = process()\n"
        "print(told['descriptors'], told['memory_bytes'])"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout
    assert told.split() == [b"64", b"None"]


def test_it_knows_nothing_where_the_system_does_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the metrics are left out."""
    monkeypatch.setattr(module, "STATM", os.devnull + "/none")
    monkeypatch.setattr(module, "resource", None)
    assert set(process().values()) == {None}
