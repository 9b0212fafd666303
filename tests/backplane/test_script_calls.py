"""Python's arguments of a script match the Lua file: names, order, fields of lists."""

import asyncio
import re
from collections.abc import Iterator
from importlib.resources import files
from typing import Any, NamedTuple

import pytest

from cluster_pool import Connection, SendResult
from cluster_pool.backplane import history_calls, script_calls, scripts
from cluster_pool.backplane.command_connection import ScriptCall
from cluster_pool.backplane.script_calls import (
    AssertedClaims,
    ComparedClaims,
    Envelope,
    SendRun,
)
from cluster_pool.core.keys import Keys
from cluster_pool.testing import FakeWebSocket
from tests.clusters import Backend
from tests.support import async_test

KEYS: Any = Keys()
SPACES = ("one", "two")
HELD: Any = "held"
CHECKSUM: Any = "checksum"
KEPT: Any = "kept"
NOT_AFTER: Any = "not_after"
VIEW_ENDS: Any = "view_ends"
COUNTS = ("size", "after", "envelope_count", "told_count")
"""Numbers, whose correctness the scripts' own tests check."""

LOCAL = re.compile(r"local (\w+) = (?:tonumber\()?(KEYS|ARGV)\[(\d+)\]\)?(?: -- .*)?")
LIST = re.compile(r"local (\w+) = list\((KEYS|ARGV), ([^,]+), (\d+)(?:, .+)?\) -- (\w+(?:, \w+)*)")


class Header(NamedTuple):
    """The first locals of a script: single ones, then the fields of each list."""

    keys: list[str]
    key_lists: list[list[str]]
    arguments: list[str]
    argument_lists: list[list[str]]


def header_of(name: str) -> Header:
    """Read the first block of a Lua file; the places must go up from 1 without a gap."""
    text = (files(scripts.__package__) / "lua" / f"{name}.lua").read_text("utf-8")
    block = text.split("\n\n")[1].splitlines()
    header = Header([], [], [], [])
    for line in block:
        if line.startswith("-- "):
            continue
        if found := LOCAL.fullmatch(line):
            local, source, place = found.groups()
            names = header.keys if source == "KEYS" else header.arguments
            names.append(local)
            assert int(place) == len(names), line
            continue
        found = LIST.fullmatch(line)
        assert found, f"{name}: {line}"
        _, source, begin, stride, fields = found.groups()
        singles, lists = (
            (header.keys, header.key_lists)
            if source == "KEYS"
            else (header.arguments, header.argument_lists)
        )
        lists.append(fields.split(", "))
        assert int(stride) == len(lists[-1]), line
        assert begin == str(len(singles) + 1) or begin.endswith(".last + 1"), line
    rest = text.split("\n\n", 2)[2]
    assert not re.search(r"(KEYS|ARGV)\[|list\((KEYS|ARGV)", rest), "all stand in the header"
    return header


def calls(spaces: tuple[str, ...]) -> Iterator[ScriptCall]:
    """Each function, called with the names of its parameters and fields as their values."""
    yield script_calls.join(
        KEYS,
        **named("node start incarnation ttl_ms info headroom new_epoch instead_of"),
    )
    yield script_calls.heartbeat(KEYS, **named("node incarnation ttl_ms info headroom lease_epoch"))
    yield script_calls.living(KEYS, asked=[b"incarnation"] * 2)
    yield script_calls.bury(KEYS, **named("incarnation why"))
    yield script_calls.sweep(KEYS, **named("ttl_ms most"), cursors=[b"cursor"] * 4)
    yield script_calls.renew_epoch(KEYS, **named("old new"))
    yield script_calls.revoke(KEYS, entries=[entry("token_id until_ms")] * 2)
    yield script_calls.read_revocations(KEYS, **named("last_read most"))
    yield script_calls.drain(
        KEYS,
        **named("not_after node own state remaining total time_left max_rate spent known closable"),
    )
    yield script_calls.add_namespaces(KEYS, **named("incarnation"), names=["namespace"] * 2)
    yield script_calls.claim(
        KEYS,
        spaces[0],
        **named("sender incarnation start node conflict dead most history counted_by"),
        told=[entry("place profile")] * 2,
        claims=[entry("id nonce first_attempt not_after reader")] * 2,
    )
    yield script_calls.release(KEYS, spaces[0], node="node", claims=[entry("id claim entry")] * 2)
    yield script_calls.reap(
        KEYS, spaces[0], **named("incarnation node cursor most extent removal lives_on")
    )
    yield script_calls.correct(KEYS, spaces[0], **named("not_after incarnation count checksum"))
    yield script_calls.inform(
        KEYS, spaces[0], **named("not_after node"), updates=[entry("id time nonce profile")] * 2
    )
    yield history_calls.store_positions(KEYS, spaces[0], positions=[entry("id mark entry")] * 2)
    yield history_calls.read_history(KEYS, spaces[0], **named("start newest_first most most_bytes"))
    yield script_calls.assert_claims(
        KEYS,
        **named("not_after sender incarnation start node counted_by"),
        told=[entry("place profile")] * 2,
        groups=[AssertedClaims(name, "history", [entry("id time nonce")] * 2) for name in spaces],
    )
    yield script_calls.compare(
        KEYS,
        **named("incarnation counted_by"),
        holdings=[
            ComparedClaims(name, HELD, CHECKSUM, "history", [entry("id claim")] * 2)
            for name in spaces
        ],
    )
    yield script_calls.tallies(KEYS, incarnation="incarnation", namespaces=spaces)
    numbers = [KEYS.numbers(KEYS.channel(name)) for name in spaces]
    yield script_calls.counters(counters=[(key, *entry("epoch last former")) for key in numbers])
    yield script_calls.publish(
        KEYS,
        **named("sender counted_by"),
        envelopes=[
            Envelope(KEYS.channel(name), KEYS.members(name), *entry("not_after messages items"))
            for name in spaces
        ],
    )
    envelopes = [
        Envelope(KEYS.channel(name), KEYS.members(name), *entry("not_after messages items"))
        for name in spaces
    ]
    yield script_calls.send(
        KEYS,
        **named("sender counted_by"),
        start_prefix="start_prefix",
        own_start="own_start",
        ended=b"ended",
        view_ends=VIEW_ENDS,
        doubted="doubted",
        runs=[
            *[
                SendRun(KEYS.members(name), key, NOT_AFTER, KEPT, ["id", "item"] * 2)
                for name, key in zip(spaces, numbers, strict=True)
            ],
            *envelopes,
        ],
    )


def named(names: str) -> dict[str, Any]:
    """Each name as its own value."""
    return {name: name for name in names.split()}


def entry(fields: str) -> Any:
    """Each field's name as its value."""
    return tuple(fields.split())


def word_of(argument: Any) -> str:
    """The local for an argument: keys and channels tell it by their last part."""
    text = argument.decode() if isinstance(argument, bytes) else str(argument)
    if "{" not in text:
        return text
    last = text.partition("}")[2].strip(":").partition(":")[0]
    return {"": "channel", "start": "start_prefix"}.get(last, last)


def is_for(local: str, argument: Any) -> bool:
    """Whether an argument is for that local; a size is a number."""
    if local in COUNTS:
        return type(argument) is int
    return word_of(argument) == re.sub("_(key|channel)$", "", local)


@pytest.mark.parametrize("name", scripts.NAMES)
def test_a_call_matches_the_header_of_its_script(name: str) -> None:
    """Every key and argument in its place; lists in whole entries to the end."""
    header = header_of(name)
    found = next((call for call in calls(SPACES) if call.name == name), None)
    assert found is not None, "no function makes this call"
    _, keys, arguments = found
    for singles, lists, given in (
        (header.keys, header.key_lists, keys),
        (header.arguments, header.argument_lists, arguments),
    ):
        rest: list[Any] = list(given)
        assert all(map(is_for, singles, rest)), (singles, rest)
        rest = rest[len(singles) :]
        for fields in lists:
            count = 0
            while len(rest) >= len(fields) and all(map(is_for, fields, rest)):
                rest, count = rest[len(fields) :], count + 1
            assert count >= len(SPACES), (fields, rest)
        assert not rest


def test_a_call_touches_one_hash_tag_for_each_namespace() -> None:
    """On a Redis Cluster they are in one slot; only the targeted send names the starts', too."""
    for call in calls(SPACES[:1]):
        name, keys, arguments = call
        tags = {tag for key in keys for tag in re.findall(r"\{(.*?)\}", key)}
        assert len(tags) == 1, name
        channels = {tag for one in arguments for tag in re.findall(r"\{(.*?)\}", str(one))}
        assert channels <= (tags | {"~"} if name == "send" else tags)
    several = {call.name for call in calls(SPACES) if "two" in str(call.keys)}
    assert several == {"assert", "compare", "counters", "publish", "send", "tallies"}


GUARD = """
local declared = {}
for _, key in ipairs(KEYS) do declared[key] = true end
local keyless = {TIME = true, PUBLISH = true, SPUBLISH = true, PUBSUB = true}
local function guarded(how, command, key, ...)
  if keyless[command] or declared[key] or string.find(key, ':start:[^:]*:numbers$')
    or string.sub(key, -8) == ':history' or string.find(key, 'positions$') then
    if key then return how(command, key, ...) end
    return how(command)
  end
  error('not declared: ' .. command .. ' ' .. key)
end
local plain = redis
local server = {
  call = function(...) return guarded(plain.call, ...) end,
  pcall = function(...) return guarded(plain.pcall, ...) end,
}
"""


@async_test
async def test_scripts_touch_no_key_that_is_not_declared(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through a life of members and nodes, except for the counters of starts' channels, and for
    histories and positions, which counters name."""
    plain = scripts.sources

    def guarded(publish: str) -> dict[str, str]:
        texts = plain(publish).items()
        return {name: text.replace("local server = redis\n", GUARD) for name, text in texts}

    def digests(publish: str) -> dict[str, str]:
        return {name: scripts.digest(text) for name, text in guarded(publish).items()}

    assert all(GUARD in text for text in guarded(scripts.PUBLISH).values())
    for module in (scripts, "cluster_pool.backplane.command_connection"):
        target = module if isinstance(module, str) else module.__name__
        monkeypatch.setattr(f"{target}.sources", guarded)
        monkeypatch.setattr(f"{target}.digests", digests)
    async with backend.pools(2) as (one, two), backend.publisher() as publisher:
        alice = await one.host("n", "alice")
        await two.host("n", "alice")
        assert await alice.wait_closed() == (4409, "taken over")
        held = Connection("bob", "n", bob := FakeWebSocket(), user="42", info={"name": "Bob"})
        await two.new_connection(held)
        await held.update_info({"name": "Bobby"})
        assert await publisher.send("n", "bob", "x", confirm=True) is SendResult.DELIVERED
        assert await one.send("n", "nobody", "x") is SendResult.ABSENT
        assert await publisher.broadcast_message("n", "y") >= 1
        assert await bob.wait_sent(2) == ["x", "y"]
        await two.remove_connection(held)
        await asyncio.sleep(2 * one.timing.heartbeat)
        assert not one.trouble
        assert not two.trouble
