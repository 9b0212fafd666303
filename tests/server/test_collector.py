"""The garbage collector of a process that is a node."""

import subprocess
import sys

from cluster_pool.server.collector import MIDDLE, OLD, YOUNG

PROGRAM = """
import gc
from cluster_pool.server import collector
collector.tune()
print(gc.get_freeze_count() > 10_000, *gc.get_threshold())
"""


def test_loaded_program_is_excluded_and_new_objects_are_collected_less_often() -> None:
    """In a process of its own, because the settings hold for all of it."""
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", str(YOUNG), str(MIDDLE), str(OLD)]
