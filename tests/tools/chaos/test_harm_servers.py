"""The faults of each kind of Redis."""

import sys

import pytest

from cluster_pool.backplane.slots import slot_of
from tools.chaos.__main__ import main
from tools.chaos.books import CROWDS
from tools.chaos.cluster import CLUSTER, SENTINEL, SINGLE
from tools.chaos.harm import FAULTS
from tools.chaos.harm_primary import PRIMARY_FAULTS
from tools.chaos.harm_servers import CLUSTER_FAULTS, SENTINEL_FAULTS, faults_of


def test_several_servers_have_every_fault_of_one_and_their_own() -> None:
    """Each fault says what it is."""
    assert faults_of(SINGLE) == FAULTS
    assert faults_of(CLUSTER) == {**FAULTS, **PRIMARY_FAULTS, **CLUSTER_FAULTS}
    assert faults_of(SENTINEL) == {**FAULTS, **PRIMARY_FAULTS, **SENTINEL_FAULTS}
    every = [*faults_of(CLUSTER).values(), *SENTINEL_FAULTS.values()]
    assert all(fault.__doc__ for fault in every)


def test_a_fault_of_a_cluster_is_refused_for_one_server(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is started."""
    monkeypatch.setattr(sys, "argv", ["chaos", "--faults", "slot-moves", "--faults", "cut"])
    assert main() == 2
    assert "not with --topology single: slot-moves" in capsys.readouterr().err


def test_the_help_names_every_fault(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the kind of Redis that can have it."""
    monkeypatch.setattr(sys, "argv", ["chaos", "--help"])
    with pytest.raises(SystemExit, match="0"):
        main()
    said = capsys.readouterr().out
    for topology in (SINGLE, CLUSTER, SENTINEL):
        for name in faults_of(topology):
            assert f"\n  {name} " in said


def test_each_shard_has_a_crowd() -> None:
    """Their slots are in different thirds, as those of a new cluster's primaries."""
    assert [slot_of(name) * 3 // 16384 for name in CROWDS] == [0, 1, 2]
