"""A short run of scripts/chaos: real processes, quick faults, every message accounted for."""

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[3] / "scripts"

FAULTS = ("refuse", "stop", "kill", "redis-empty")
TIMEOUT = 180


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_every_message_is_accounted_for(tmp_path: Path) -> None:
    """A fixed seed, two nodes, the faults that pass quickly."""
    result = tmp_path / "chaos.json"
    chosen = [word for name in FAULTS for word in ("--faults", name)]
    run = subprocess.run(
        [
            *(sys.executable, "-P", "-m", "tools.chaos", *chosen, "--json", str(result)),
            *("--seed", "52", "--nodes", "2", "--clients", "12", "--rate", "100", "--sparse", "40"),
        ],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(_path())},
        preexec_fn=_ahead,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    told = json.loads(result.read_text())
    assert told["failures"] == []
    assert sorted(one["fault"] for one in told["faults"]) == sorted(FAULTS)
    for kind, row in told["messages"].items():
        assert row["calls"] > 0, kind
        assert row["delivered"] > 0, kind
    for kind in ("close", "count", "members", "locate"):
        assert told["others"][kind] > 0, kind
    assert told["unanswered"] == 0
    assert told["followed"] > 0
    assert told["last_ones"] > 0
    assert told["messages"]["broadcast"]["missing"] > 0


def _ahead() -> None:
    """Ahead of the other tests, where that is allowed: calls that time out on a machine which is
    too busy for them are no faults of ours."""
    with contextlib.suppress(PermissionError):
        os.nice(-10)


def _path() -> list[str]:
    """Where the programs of the run find themselves, and whatever this test was told to use."""
    return [str(SCRIPTS), *filter(None, [os.environ.get("PYTHONPATH")])]
