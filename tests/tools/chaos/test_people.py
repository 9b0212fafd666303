"""The rules of the chaos test about users: each fails when nodes, Redis or calls differ."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from tools.chaos import people
from tools.chaos.ledger import Ledger
from tools.chaos.people import People
from tools.chaos.visits import ALL_USERS, MOST

ALICE, BOB = ALL_USERS[:2]


@dataclass
class Cluster:
    """One node and a publisher that say what a test tells them to."""

    standing: list[tuple[str, ...]] = field(
        default_factory=lambda: [
            ("house-0", "seat-1", "a", ALICE, "", f"{ALICE}/1"),
            ("house-0", "seat-2", "a", BOB, "7", f"{BOB}/1"),
            ("house-1", "seat-1", "a", BOB, "7", f"{BOB}/1"),
        ]
    )
    registered: list[tuple[str, ...]] | None = None
    online: dict[str, int] = field(default_factory=dict)
    in_redis: list[str] = field(default_factory=lambda: ["1"])
    deaf: bool = False
    unkicked: bool = False
    door: dict[str, str] = field(default_factory=dict)
    node: str = "a"
    arrived: dict[str, bool] = field(default_factory=dict)

    @property
    def program(self) -> "Cluster":
        return self

    def of(self, user: str) -> list[tuple[str, ...]]:
        return [one for one in self.standing if one[3] == user]

    async def ask(self, do: str, **fields: Any) -> Any:
        return getattr(self, f"_{do}")(**fields)

    def _standing(self) -> list[tuple[str, ...]]:
        return self.standing

    def _registered_people(self, houses: list[str]) -> list[tuple[str, ...]]:
        return [one[:5] for one in self.standing] if self.registered is None else self.registered

    def _arrivals(self) -> dict[str, bool]:
        return {user: bool(self.of(user)) for user in (ALICE, BOB)} | self.arrived

    def _held_of_users(self) -> list[tuple[str, str]]:
        return [(user, "1") for user in ALL_USERS if self.of(user)]

    def redis(self, *words: str) -> str:
        """The members of a user in Redis: "1" for those that the node has there, and others."""
        user = words[1].partition("~user:")[2].partition("}")[0]
        ids = [id for id in self.in_redis if id != "1" or self.of(user)]
        return "".join([f"*{len(ids)}\r\n", *(f"${len(id)}\r\n{id}\r\n" for id in ids)])

    def _online(self, users: list[str]) -> dict[str, int]:
        return {user: len(self.of(user)) for user in users} | self.online

    def _attempt(self, user: str, token: str) -> str:
        full = "limit" if len(self.of(user)) >= MOST else "accepted"
        return self.door.get(token, full)

    def _send_user(self, user: str, text: str) -> int:
        return len(self.of(user))

    def _heard_by_users(self, text: str) -> list[list[str]]:
        return [] if self.deaf else [[*one[:2]] for one in self.of(text.split(" ")[0])]

    def _close_user(self, user: str, code: int) -> None:
        if not self.unkicked:
            self.standing = [one for one in self.standing if one[3] != user]


def failures(cluster: Cluster, revoked: Iterable[str] = ()) -> str:
    ledger = Ledger()
    ledger.revoked.update(revoked)
    made = People([cluster], cluster, cluster.redis, ledger, 0)  # type: ignore[list-item, arg-type]
    made._random.choice = lambda some: some[0]  # type: ignore[method-assign, assignment]
    return "; ".join(asyncio.run(made.failures())[1])


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here comes later."""
    monkeypatch.setattr(people, "PATIENCE", 0.0)


def test_nothing_is_wrong_when_all_agree() -> None:
    """All stand, are online and hear; what is revoked is refused."""
    assert failures(Cluster(door={f"{BOB}/0": "revoked"}), [f"{BOB}/0"]) == ""


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"registered": []}, f"house-0/seat-1/a/{ALICE}/ is not registered"),
        ({"online": {ALICE: 2}}, f"2 connections of {ALICE} are online, 1 stand"),
        ({"in_redis": ["1", "2"]}, f"2 of {ALICE} is a ghost"),
        ({"in_redis": []}, f"1 of {ALICE} is not registered"),
        ({"door": {"unrevoked": "limit"}}, "limit, not accepted"),
        ({"arrived": {ALICE: False}}, f"{ALICE} is gone to the watcher at a"),
        ({"deaf": True}, f"1 of {ALICE} were told to have a message, [] heard it"),
        ({"unkicked": True}, f"after a kick of {ALICE}"),
    ],
)
def test_each_rule_fails(wrong: dict[str, Any], told: str) -> None:
    """One thing is not as it must be."""
    assert told in failures(replace(Cluster(), **wrong))


def test_a_member_that_no_node_holds_is_a_ghost() -> None:
    """No node holds it."""
    ghost = ("house-5", "seat-1", "dead", ALICE, "")
    cluster = Cluster()
    cluster.registered = [*(one[:5] for one in cluster.standing), ghost]
    assert failures(cluster) == f"house-5/seat-1/dead/{ALICE}/ is a ghost"


def test_revoked_tokens_hold_no_connection_and_open_no_door() -> None:
    """Neither one that stands nor one that is accepted."""
    assert f"{ALICE}/1 is revoked" in failures(Cluster(), [f"{ALICE}/1"])
    assert "accepted, not revoked" in failures(Cluster(), [f"{ALICE}/0"])


def test_too_many_connections_must_be_refused() -> None:
    """A user at the limit who is accepted once more is a failure."""
    cluster = Cluster(door={"unrevoked": "accepted"})
    cluster.standing = [
        ("house-0", f"{at}", "a", user, "", "t") for user in ALL_USERS for at in "1234"
    ]
    assert "accepted, not limit" in failures(cluster)


def test_an_expectation_of_a_gap_is_for_one_round() -> None:
    """Messages to users are in no books; what of them may be missing, gaps may name."""
    ledger = Ledger()
    ledger.told("a", "unkept", ["", 4])
    ledger.told("a", "unkept", ["", -3])
    first, second = (ledger.close([], [], 0, []) for _ in range(2))
    assert (dict(first.unkept), dict(second.unkept)) == ({"": 1}, {})
