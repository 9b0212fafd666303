"""The arguments of each Lua file: a function of its name, which makes a call of the script.

No more. The parameters have the names of the locals with which the file begins, and a test compares
both: names, order, and the fields of lists. A function that takes one namespace touches one hash
tag; those that take several (``assert_claims``, ``compare``, ``counters``, ``publish``, ``send``,
``tallies``) touch one for each namespace, and ``send`` besides publishes on the channels of starts.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from cluster_pool.backplane.command_connection import Argument, ScriptCall
from cluster_pool.core.keys import Keys

# -- leases ------------------------------------------------------------------------------------


def join(
    keys: Keys,
    *,
    node: str,
    start: str,
    incarnation: str,
    ttl_ms: int,
    info: str,
    headroom: str,
    new_epoch: str,
    instead_of: str,
) -> ScriptCall:
    """Take a lease for a new incarnation of a node."""
    names = [
        *(keys.leases, keys.incarnations, keys.nodes, keys.infos),
        *(keys.epoch, keys.headrooms, keys.drains, keys.dead),
    ]
    return ScriptCall(
        "join", names, [node, start, incarnation, ttl_ms, info, headroom, new_epoch, instead_of]
    )


def heartbeat(
    keys: Keys,
    *,
    node: str,
    incarnation: str,
    ttl_ms: int,
    info: str,
    headroom: str,
    lease_epoch: str,
) -> ScriptCall:
    """Renew a lease that is still held."""
    names = [
        *(keys.leases, keys.nodes, keys.infos, keys.epoch),
        *(keys.headrooms, keys.drains, keys.incarnations),
    ]
    return ScriptCall("heartbeat", names, [node, incarnation, ttl_ms, info, headroom, lease_epoch])


def living(keys: Keys, *, asked: Sequence[bytes]) -> ScriptCall:
    """Read the leases, and what has become of the incarnations in ``asked``."""
    return ScriptCall("living", [keys.leases, keys.dead], [*asked])


def bury(keys: Keys, *, incarnation: str, why: str) -> ScriptCall:
    """End an incarnation for good."""
    names = [
        *(keys.leases, keys.incarnations, keys.nodes, keys.infos),
        *(keys.dead, keys.epoch, keys.headrooms),
    ]
    return ScriptCall("bury", names, [incarnation, why])


def sweep(keys: Keys, *, ttl_ms: int, most: int, cursors: Sequence[bytes]) -> ScriptCall:
    """Find leases and entries that nothing else would ever remove."""
    names = [keys.leases, keys.dead, keys.incarnations, keys.nodes, keys.infos, keys.headrooms]
    return ScriptCall("sweep", names, [ttl_ms, most, *cursors])


def renew_epoch(keys: Keys, *, old: str, new: str) -> ScriptCall:
    """Replace an epoch that is older than this Redis process."""
    return ScriptCall("renew_epoch", [keys.epoch], [old, new])


def revoke(keys: Keys, *, entries: Sequence[tuple[str, int]]) -> ScriptCall:
    """Record tokens as revoked."""
    fields: list[Argument] = [field for entry in entries for field in entry]
    return ScriptCall("revoke", [keys.revoked, keys.revocations], fields)


def read_revocations(keys: Keys, *, last_read: int, most: int) -> ScriptCall:
    """Read a page of revocations."""
    return ScriptCall("read_revocations", [keys.revoked, keys.revocations], [last_read, most])


def drain(
    keys: Keys,
    *,
    not_after: int,
    node: str,
    own: str,
    state: str,
    remaining: int,
    total: int,
    time_left: int,
    max_rate: str,
    spent: str,
    known: str,
    closable: str,
) -> ScriptCall:
    """Ask for a share of the cluster's closes per second."""
    names = [keys.drains, keys.calm, keys.leases, keys.headrooms, keys.budget, keys.incarnations]
    return ScriptCall(
        "drain",
        names,
        [
            *(not_after, node, own, state, remaining, total),
            *(time_left, max_rate, spent, known, closable),
        ],
    )


def add_namespaces(keys: Keys, *, incarnation: str, names: Sequence[str]) -> ScriptCall:
    """Add to the list of namespaces in which an incarnation may hold members."""
    keys_used = [keys.leases, keys.namespaces(incarnation)]
    return ScriptCall("add_namespaces", keys_used, [incarnation, *names])


# -- one namespace -----------------------------------------------------------------------------


def claim(
    keys: Keys,
    namespace: str,
    *,
    sender: str,
    incarnation: str,
    start: str,
    node: str,
    conflict: str,
    dead: str,
    most: int,
    history: str,
    counted_by: str,
    told: Sequence[tuple[int, str]],
    claims: Iterable[tuple[str, str, int, int, str]],
) -> ScriptCall:
    """Claim ids for an incarnation.

    Args:
        history: the setting that is asked for, "" for none: see :meth:`.HistoryRules.asked`.
        told: the places of claims that have a profile, from 1 on, and these.
        claims: id, nonce, the time of the first attempt (0 if this is the first) and the time
            after which it must not be executed, both in µs of Redis, and the reader: see
            :meth:`.HistoryRules.reader`.
    """
    channel = keys.channel(namespace)
    return ScriptCall(
        "claim",
        [
            keys.members(namespace),
            keys.owners(namespace),
            keys.numbers(channel),
            keys.profiles(namespace),
        ],
        [
            *(sender, channel, keys.events(namespace), incarnation, start, node),
            *(conflict, dead, most, history, counted_by, len(told)),
            *[field for entry in told for field in entry],
            *[field for entry in claims for field in entry],
        ],
    )


def release(
    keys: Keys,
    namespace: str,
    *,
    node: str,
    claims: Iterable[tuple[str | bytes, str | bytes, str]],
) -> ScriptCall:
    """Release claims: ids, the claims that must be registered for them, and, where it is known, up
    to which position the id has received the history: "epoch number reader"."""
    names = [
        keys.members(namespace),
        keys.owners(namespace),
        keys.emptied(namespace),
        keys.numbers(keys.channel(namespace)),
        keys.profiles(namespace),
    ]
    fields = [field for entry in claims for field in entry]
    return ScriptCall("release", names, [keys.events(namespace), node, *fields])


def reap(
    keys: Keys,
    namespace: str,
    *,
    incarnation: str,
    node: str,
    cursor: str,
    most: int,
    extent: str,
    removal: str,
    lives_on: str,
) -> ScriptCall:
    """Remove a batch of the members of a dead incarnation."""
    names = [
        keys.members(namespace),
        keys.owners(namespace),
        keys.numbers(keys.channel(namespace)),
        keys.emptied(namespace),
        keys.profiles(namespace),
    ]
    events = keys.events(namespace)
    return ScriptCall(
        "reap", names, [incarnation, node, cursor, most, events, extent, removal, lives_on]
    )


def correct(
    keys: Keys, namespace: str, *, not_after: int, incarnation: str, count: int, checksum: int
) -> ScriptCall:
    """Correct the count and checksum of one owner."""
    names = [keys.members(namespace), keys.owners(namespace), keys.profiles(namespace)]
    return ScriptCall("correct", names, [not_after, incarnation, count, checksum])


def inform(
    keys: Keys,
    namespace: str,
    *,
    not_after: int,
    node: str,
    updates: Iterable[tuple[str, int, str, str]],
) -> ScriptCall:
    """Replace profiles: the id of each member, the time and nonce of its claim, and the profile."""
    names = [keys.members(namespace), keys.owners(namespace), keys.profiles(namespace)]
    fields = [field for entry in updates for field in entry]
    return ScriptCall("inform", names, [not_after, keys.events(namespace), node, *fields])


# -- several namespaces ------------------------------------------------------------------------


class AssertedClaims(NamedTuple):
    """The claims of a node in one namespace: id, time and nonce of each; and the history there."""

    namespace: str
    history: str
    claims: Sequence[tuple[str, int, str]]


def assert_claims(
    keys: Keys,
    *,
    not_after: int,
    sender: str,
    incarnation: str,
    start: str,
    node: str,
    counted_by: str,
    told: Sequence[tuple[int, str]],
    groups: Sequence[AssertedClaims],
) -> ScriptCall:
    """Register claims that a node holds already, under its present incarnation.

    Args:
        told: the places of claims that have a profile, among all of them, from 1 on, and these.
    """
    names: list[str] = []
    heads: list[Argument] = []
    for namespace, history, claims in groups:
        channel = keys.channel(namespace)
        names += (keys.members(namespace), keys.owners(namespace))
        names += (keys.numbers(channel), keys.profiles(namespace))
        heads += (channel, keys.events(namespace), history, len(claims))
    fields = [field for group in groups for entry in group.claims for field in entry]
    profiles = [field for entry in told for field in entry]
    singles: list[Argument] = [not_after, sender, incarnation, start, node, counted_by, len(told)]
    return ScriptCall("assert", names, [*singles, *profiles, *heads, *fields])


class ComparedClaims(NamedTuple):
    """The claims of a node in one namespace: size, checksum, and some ids with their claims; and
    the history there."""

    namespace: str
    held: int
    checksum: int
    history: str
    sample: Sequence[tuple[str, str]]


def compare(
    keys: Keys, *, incarnation: str, counted_by: str, holdings: Sequence[ComparedClaims]
) -> ScriptCall:
    """Compare what is registered in namespaces with what a node holds there, and renew the
    settings of their histories."""
    names: list[str] = []
    heads: list[Argument] = []
    for namespace, held, checksum, history, sample in holdings:
        names += (keys.members(namespace), keys.owners(namespace))
        names.append(keys.numbers(keys.channel(namespace)))
        heads += (held, checksum, history, len(sample))
    fields = [field for holding in holdings for entry in holding.sample for field in entry]
    return ScriptCall("compare", names, [incarnation, counted_by, *heads, *fields])


def tallies(keys: Keys, *, incarnation: str, namespaces: Iterable[str]) -> ScriptCall:
    """Read the count and checksum of one incarnation in each namespace."""
    return ScriptCall(
        "tallies", [keys.owners(namespace) for namespace in namespaces], [incarnation]
    )


def counters(*, counters: Iterable[tuple[str, str, str, str]]) -> ScriptCall:
    """Read counters: the hash of each, and its fields with the epoch, the last number and the
    former server's."""
    every = list(counters)
    fields: list[Argument] = [field for _, *names in every for field in names]
    return ScriptCall("counters", [hash for hash, *_ in every], fields)


class Envelope(NamedTuple):
    """Items that are published together on one channel.

    ``members`` is the key of the namespace's members, "" for the channel of a node; ``messages``
    is how many of the items are messages.
    """

    channel: str
    members: str
    not_after: int
    messages: int
    items: bytes


def publish(
    keys: Keys, *, sender: str, counted_by: str, envelopes: Iterable[Envelope]
) -> ScriptCall:
    """Publish numbered envelopes, in order."""
    names: list[str] = []
    arguments: list[Argument] = [sender, counted_by]
    for channel, members, not_after, messages, items in envelopes:
        numbers = keys.numbers(channel)
        names += (numbers, members or numbers)
        arguments += (channel, not_after, messages, items)
    return ScriptCall("publish", names, arguments)


class SendRun(NamedTuple):
    """Targeted items of one namespace, by the keys of its members and of its numbers.

    ``kept`` is 1 if a history keeps them; ``fields`` are the id and the item of each, in order.
    """

    members: str
    numbers: str
    not_after: int
    kept: int
    fields: list[Argument]


def send(
    keys: Keys,
    *,
    sender: str,
    counted_by: str,
    start_prefix: str,
    own_start: str,
    ended: bytes,
    view_ends: int,
    doubted: str,
    runs: Iterable[SendRun | Envelope],
) -> ScriptCall:
    """Execute runs in order: route targeted items to their owners' starts, publish the others."""
    targets: list[str] = []
    spaces: list[str] = []
    envelopes: list[Argument] = []
    heads: list[Argument] = []
    items: list[Argument] = []
    for run in runs:
        if isinstance(run, SendRun):
            targets += (run.members, run.numbers)
            heads += (run.not_after, run.kept, len(run.fields) // 2)
            items += run.fields
        else:
            numbers = keys.numbers(run.channel)
            spaces += (numbers, run.members or numbers)
            envelopes += (len(targets) // 2, run.channel, run.not_after, run.messages, run.items)
    arguments: list[Argument] = [
        sender,
        counted_by,
        start_prefix,
        own_start,
        ended,
        view_ends,
        doubted,
        len(spaces) // 2,
    ]
    return ScriptCall("send", targets + spaces, [*arguments, *envelopes, *heads, *items])
