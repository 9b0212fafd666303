"""The faults that only a Redis Cluster can have."""

import sys

import pytest

from tools.chaos.__main__ import main
from tools.chaos.cluster import CLUSTER, SINGLE
from tools.chaos.harm import FAULTS
from tools.chaos.harm_cluster import CLUSTER_FAULTS, faults_of


def test_a_cluster_has_every_fault_of_one_server_and_its_own() -> None:
    """The help tells of each."""
    assert faults_of(SINGLE) == FAULTS
    assert faults_of(CLUSTER).keys() == FAULTS.keys() | CLUSTER_FAULTS.keys()
    assert all(str(fault.__doc__).startswith("Cluster: ") for fault in CLUSTER_FAULTS.values())


def test_a_fault_of_a_cluster_is_refused_for_one_server(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is started."""
    monkeypatch.setattr(sys, "argv", ["chaos", "--faults", "slot-moves", "--faults", "cut"])
    assert main() == 2
    assert "needs --topology cluster: slot-moves" in capsys.readouterr().err
