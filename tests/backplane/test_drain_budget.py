"""The drain budget on Redis grants what core.drain_budget grants; and the cost of a call."""

import asyncio
from dataclasses import astuple, replace
from functools import partial
from math import inf
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from cluster_pool.core.drain_budget import (
    ANNOUNCING,
    CLOSABLE,
    DRAINING,
    HEADROOM,
    PAUSED,
    Ask,
    DrainBudget,
)
from tests.backplane.budgets import EPOCH, ScriptedBudget
from tests.clusters import Backend
from tests.servers import RedisServer

TICK = 0.125
"""Seconds; a whole number of ms, and exact in binary, so that both clocks are."""
READS = 1500
"""A call with 100 drainers and 100 living nodes costs no more than so many reads by a script."""
READING = f"for i = 1, {READS} do redis.call('HGET', KEYS[1], i) end"

rates = st.sampled_from([0.5, 7.0, 40.0, 100.0, 333.3, 5000.0])
asks = st.fixed_dictionaries(
    {
        "node": st.sampled_from("abcd"),
        "state": st.sampled_from([DRAINING, DRAINING, DRAINING, PAUSED, ANNOUNCING]),
        "remaining": st.sampled_from([0, 1, 30, 1000, 12_345]),
        "time_left": st.sampled_from([inf, inf, 0.0, 1.25, 4.875, 5.0, 20.0, 90.0]),
        "max_rate": rates | st.just(inf),
        "rate": rates | st.just(0.0),
        "known": st.booleans(),
        "closable": st.sampled_from([CLOSABLE, 25.0]),
    }
)
settled = st.sampled_from([1, 2, 4, 8, 8, 8])
jumps = st.sampled_from([20, 23, 24, 25, 80, 400, -1, -16, -80, -300])
clusters = st.fixed_dictionaries(
    {
        "headroom": st.sampled_from([1.0, 50.0, 200.0, 3000.0]),
        "setting": rates | st.just(inf),
        "acceptors": st.sampled_from([0, 0, 1, 3]),
        "others": st.sampled_from([None, "", "bcd", "abcd", "d", "x"]),
    }
)
histories = st.lists(
    st.one_of(
        *[st.tuples(st.just("ask"), asks) for _ in range(4)],
        *[st.tuples(st.just("clock"), ticks) for ticks in (settled, settled, jumps)],
        st.tuples(st.just("leave"), st.sampled_from("abcd")),
        st.tuples(st.just("cluster"), clusters),
        st.tuples(st.just("flush"), st.none()),
        st.tuples(st.just("renew"), st.tuples(st.just("abcd"), st.just(8))),
        *[
            st.tuples(st.just("renew"), st.tuples(st.sampled_from("abcd"), ticks))
            for ticks in (st.just(1), st.just(8), st.just(24))
        ],
    ),
    min_size=10,
    max_size=30,
)


def asking(node: str, **what: Any) -> tuple[str, Any]:
    """A first ask of a drainer with much to close."""
    usual = {"state": DRAINING, "remaining": 9000, "time_left": inf, "max_rate": inf, "rate": 0.0}
    return "ask", {"node": node, "known": False, "closable": CLOSABLE, **usual, **what}


TELLING: list[tuple[str, Any]] = [
    ("cluster", {"headroom": 3000.0, "setting": 100.0, "acceptors": 2}),
    asking("a"),
    asking("b", time_left=90.0),
    *[("renew", ("b", 1))] * 2,  # b starves for its deadline while a holds everything
    *[("renew", ("ab", 8))] * 2,
    ("flush", None),
    asking("c"),
    *[("renew", ("ab", 8))] * 2,  # nobody grows, c neither, and then everybody
    asking("d", state=PAUSED, max_rate=7.0, time_left=20.0),
    ("flush", None),
    ("cluster", {"headroom": 1.0, "setting": inf, "acceptors": 0}),
    ("renew", ("ab", 8)),  # headrooms are lost, too
    ("renew", ("dba", 8)),
    ("cluster", {"headroom": 1.0, "setting": inf, "acceptors": 0, "others": "abcd"}),
    asking("a", state=ANNOUNCING),
    asking("c", state=PAUSED),  # it may stay
    ("renew", ("abd", 8)),
    asking("c"),
    asking("d"),
    ("renew", ("abcd", 8)),
    ("flush", None),
    ("renew", ("abcd", 8)),
    ("leave", "c"),
    ("renew", ("abd", 8)),
]
"""Histories that random steps reach too seldom."""


class Twins:
    """Both budgets, called alike."""

    def __init__(self, scripted: ScriptedBudget) -> None:
        scripted.forget()
        self.scripted, self.core = scripted, DrainBudget()
        self.now = self.latest = 1000.0
        self.last: dict[str, Ask] = {}
        self.told(headroom=200.0, setting=inf, acceptors=2)

    def told(
        self, headroom: float, setting: float, acceptors: int, others: str | None = None
    ) -> None:
        self.cluster: dict[str, Any] = {
            "headroom": headroom if acceptors else 0.0,
            "setting": setting,
            "living": 7,
            "acceptors": acceptors,
            "others": others,
        }

    def ask(self, ask: Ask) -> None:
        """Both grant the same; it is spent later."""
        cluster = dict(self.cluster)
        if cluster["others"] is not None:
            cluster["others"] = set(cluster["others"]) - {ask.node}
            cluster["living"] = 1 + len(cluster["others"]) + cluster["acceptors"]
        core = self.core.lease(self.now, ask, **cluster)
        scripted = self.scripted.lease(self.now, ask, **cluster)
        assert astuple(scripted) == pytest.approx(astuple(core), rel=1e-4, abs=0.01)
        left = ask.time_left - 1 if ask.time_left > 1 else ask.time_left
        rest = max(0, ask.remaining - int(core.rate))
        self.last[ask.node] = replace(
            ask, remaining=rest, time_left=left, rate=core.rate, known=True
        )

    def renew(self, nodes: str, ticks: int) -> None:
        """Some go on for three renewals, spending what they were granted; the others are silent."""
        for _ in range(3):
            self.turn(ticks)
            for ask in [self.last[node] for node in nodes if node in self.last]:
                self.ask(ask)

    def turn(self, ticks: int) -> None:
        """The script forgets entries of a clock a minute ahead; the steps stay below that."""
        self.now = max(self.now + ticks * TICK, self.latest - 50)
        self.latest = max(self.now, self.latest)

    def run(self, history: list[tuple[str, Any]]) -> None:
        for verb, what in history:
            if verb == "ask":
                self.ask(Ask(total=what["remaining"], **what))
            elif verb == "renew":
                self.renew(*what)
            elif verb == "clock":
                self.turn(what)
            elif verb == "cluster":
                self.told(**what)
            elif verb == "flush":
                self.scripted.forget()
                self.core = DrainBudget()
            else:
                self.scripted.give_back(what)
                self.core.give_back(what)
                self.last.pop(what, None)


def compare(scripted: ScriptedBudget, examples: int) -> None:
    """Let hypothesis run the same histories on both."""

    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(histories)
    @example(TELLING)
    def agree(history: list[tuple[str, Any]]) -> None:
        Twins(scripted).run(history)

    agree()


def test_the_script_and_the_core_agree(own_budget: ScriptedBudget) -> None:
    """With any order of asks, losses, changes and clock steps."""
    compare(own_budget, 60)


def test_the_script_and_the_core_agree_on_fakeredis() -> None:
    """The same on fakeredis, for users that test with it."""
    backend = Backend(None)
    with asyncio.Runner() as runner, backend.sync_client() as client:
        compare(ScriptedBudget(client, backend.prefix, runner), 20)


def test_many_drainers_agree(scripted: ScriptedBudget) -> None:
    """There are so many that they renew less often than every second."""
    core, cluster = DrainBudget(), {"headroom": 4000.0, "living": 80, "acceptors": 20}
    for number in range(120):
        now, node = 10.0 + number * TICK / 5, number % 60
        ask = Ask(f"n{node}", DRAINING, 1000 + node, 2000, 20.0 if node % 3 else inf)
        granted = partial(pytest.approx, rel=1e-3, abs=0.01)
        scripted_grant = scripted.lease(now, ask, **cluster)
        assert astuple(scripted_grant) == granted(astuple(core.lease(now, ask, **cluster)))
    assert scripted_grant.renew == pytest.approx(1.2)


def test_a_clock_set_back_by_minutes_makes_old_grants_void(scripted: ScriptedBudget) -> None:
    """Grants of the other clock are forgotten; otherwise they would last for minutes."""
    first, late = (Ask(node, DRAINING, 100, 100, max_rate=50.0) for node in "ab")
    scripted.lease(1000.0, first)
    assert scripted.lease(1000.0, late).rate == 0
    assert scripted.lease(900.0, late).rate == 50
    assert list(scripted.entries()) == ["b"]


def test_entries_and_calm_have_a_ttl(scripted: ScriptedBudget, backend: Backend) -> None:
    """No key of a drain outlives it by more than a minute."""
    scripted.lease(0.0, Ask("a", DRAINING, 100, 100, known=True))
    ttls = {key.rsplit(":", 1)[1]: ttl for key, ttl in backend.keys().items()}
    assert 0 < ttls["drains"] <= 60_000
    assert "calm" in ttls


def test_stored_entries_can_be_read(scripted: ScriptedBudget) -> None:
    """The display of drains reads them."""
    scripted.lease(1.0, Ask("a", DRAINING, 90, 100, time_left=30.0, max_rate=5.0), setting=50.0)
    scripted.lease(1.0, Ask("b", PAUSED, 1, 2))
    at, ends = (round((EPOCH + seconds) * 1000) for seconds in (1.0, 4.0))
    assert scripted.entries() == {
        "a": f"draining 90 5.0000 {at + 30_000} 5.0000 {at} {ends} 0 100".split(),
        "b": f"paused 1 0.0000 - - {at} {ends} 0 2".split(),
    }


def cpu_of(client: Any) -> float:
    """The CPU seconds that a server has used so far."""
    used = client.info("cpu")
    return float(used["used_cpu_user"] + used["used_cpu_sys"])


def test_the_cost_of_a_call_is_bounded(own_server: RedisServer, own_budget: ScriptedBudget) -> None:
    """With 100 drainers among 200 nodes, in CPU of Redis beside that of reads in the same run."""
    shares = []
    with Backend(own_server).sync_client() as client:
        for turn in range(6):
            began = cpu_of(client)
            for number in range(100):
                ask = Ask(f"n{number}", DRAINING, 9999, 10_000, time_left=60.0, max_rate=300.0)
                now = 10.0 + turn + number / 128
                own_budget.lease(now, ask, headroom=100 * HEADROOM, living=100, acceptors=50)
            asked = cpu_of(client)
            for _ in range(100):
                client.eval(READING, 1, "no such key")
            shares.append((asked - began) / (cpu_of(client) - asked))
    print(f"{own_server.flavour}: a call costs {min(shares[1:]):.2f} times {READS} reads")
    assert min(shares[1:]) < 3
