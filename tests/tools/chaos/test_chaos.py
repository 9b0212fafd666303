"""A short run of scripts/chaos: real processes, quick faults, every message accounted for."""

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[3] / "scripts"

FAULTS = ("refuse", "stop", "kill", "mute", "unread", "redis-empty", "redis-snapshot")
HEALED = {"kill": 12.0}
"""Seconds until the registry is whole again: of a killed node its lease and 2, of all else:"""
SOON = 5.0
NOTICED = 3.5
"""Targets of docs/faults.md; here three times as long may do."""
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
            *("--members", "1000"),
        ],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(_path())},
        preexec_fn=_ahead,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    told = json.loads(result.read_text())
    account = told["account"]
    assert account["failures"] == []
    assert sorted(one["fault"] for one in told["rounds"]) == sorted(FAULTS)
    for one in told["rounds"]:
        assert one["registered"] <= 3 * HEALED.get(one["fault"], SOON), one
        if one["noticed"] is not None:
            assert one["noticed"] <= 3 * NOTICED, one
    for kind, row in account["rows"].items():
        assert row["calls"] > 0, kind
        assert row["delivered"] > 0, kind
    for kind in ("close", "count", "members", "locate"):
        assert account["others"][kind] > 0, kind
    assert account["unanswered"] == 0
    assert account["followed"] > 0
    assert account["last_ones"] > 0
    assert account["roamed"] > 0
    assert account["people"] > 0
    assert told["past"]["pairs"]["received"] > 0
    assert told["past"]["returns"]["True"] > 0
    assert account["rows"]["broadcast"]["missing"] > 0


def _ahead() -> None:
    """Ahead of the other tests, where that is allowed: calls that time out on a machine which is
    too busy for them are no faults of ours."""
    with contextlib.suppress(PermissionError):
        os.nice(-10)


def _path() -> list[str]:
    """Where the programs of the run find themselves, and whatever this test was told to use."""
    return [str(SCRIPTS), *filter(None, [os.environ.get("PYTHONPATH")])]
