"""The invariants: at any time, whenever all is calm, and for every message that was ever sent."""

from collections import Counter
from collections.abc import Iterator

from cluster_pool import (
    BackplaneUnavailableError,
    ClusterPoolError,
    Delivery,
    IdTakenError,
    MembershipLimitError,
    SendResult,
)
from cluster_pool.core.claims import Claim
from cluster_pool.core.closing import NORMAL, TAKEN_OVER
from cluster_pool.core.profiles import NO_PROFILE, entry
from cluster_pool.exceptions import ConnectionClosedError, PoolClosedError
from cluster_pool.local.profiles import profile_of
from tests.cluster.machine.registry import Raw
from tests.cluster.machine.world import Client, Message, Node, World

SLACK = 1.0
"""Seconds after the end of a lease at which the ids of a dead node must be free."""
REFUSALS = (SendResult.ABSENT, SendResult.UNREACHABLE, SendResult.REFUSED)
HONEST = BackplaneUnavailableError, ConnectionClosedError, IdTakenError, PoolClosedError

Held = dict[tuple[str, str], list[tuple[Client, Claim]]]


def held(world: World) -> Held:
    """The clients that pools of living nodes list as owners, whatever the registry says."""
    found: Held = {}
    for node in world.alive:
        for membership in node.pool._parts.table.memberships():
            if membership.claim is not None and not membership.namespace.startswith("~"):
                connection = membership.connection
                client = world.latest(connection, membership.namespace)
                assert client is not None
                assert client.key == (membership.namespace, membership.id)
                found.setdefault(client.key, []).append((client, membership.claim))
    return found


def held_of_users(world: World) -> dict[tuple[str, str], Claim]:
    """The claims in the namespaces of users that pools of living nodes list, by namespace and id.

    No two nodes have the same id there.
    """
    found: dict[tuple[str, str], Claim] = {}
    for node in world.alive:
        for one in node.pool._parts.table.memberships():
            if one.claim is not None and one.namespace.startswith("~"):
                assert one.namespace == f"~user:{one.connection.user}", one
                assert (one.namespace, one.id) not in found, one
                found[one.namespace, one.id] = one.claim
    return found


def check_always(world: World) -> None:
    """Each id has one registered owner, who keeps it; and the counts agree with the members."""
    raw = world.look()
    for key, holders in held(world).items():
        standing = raw.members.get(key[0], {}).get(key[1])
        owners = [client for client, claim in holders if claim == standing]
        assert len(owners) <= 1, f"{len(owners)} owners of {key}: {owners}"
        for client, claim in holders:
            assert not is_safe(world, client) or (
                standing is not None and standing[1:] == claim[1:]
            ), f"{client} holds {claim}, registered is {standing}"
    if "harm" not in world.troubles:
        assert raw.owners == raw.tallied(), f"counts {raw.owners}, members {raw.tallied()}"


def is_safe(world: World, client: Client) -> bool:
    """Whether nothing has happened that could have removed a client from the registry."""
    pool = client.node.pool
    return (
        client.settled
        and pool.ready
        and not any(one.key in world.closed for one in world.family(client))
        and client.user not in world.kicked
        and (client.home is None or is_safe(world, client.home))
        and "harm" not in world.troubles
        and pool.statistics()["incarnation"] not in world.lost
        and not rivals(world, client)
    )


RESTLESS = "generations", "rejoins", "repaired", "reaped", "gaps"
"""Counters that grow only when something was wrong."""


def unrest(world: World) -> dict[Node, list[int]]:
    """The value of each of these counters on every living node."""
    return {node: [getattr(node.pool.counters, name) for name in RESTLESS] for node in world.alive}


def check_quiet(world: World) -> None:
    """Nothing was repaired while nothing was wrong."""
    for node, counted in unrest(world).items():
        before = world.unrest.setdefault(node, counted)
        assert counted == before, f"{node.name} had {before} of {RESTLESS}, now {counted}"


def disagreement(world: World) -> str:
    """Why the registry is not the union of the pools yet; "" when it is."""
    unready = [node.name for node in world.alive if not node.pool.ready]
    if unready:
        return f"{unready} not ready"
    raw, pools, users = world.look(), held(world), held_of_users(world)
    if raw.dead:
        return f"not reaped: {raw.dead}"
    if raw.leased != {node.pool.statistics()["incarnation"] for node in world.alive}:
        return f"leases of {raw.leased}"
    if raw.owners != raw.tallied():
        return f"counts {raw.owners}, members {raw.tallied()}"
    union = {key: claim for key, holders in pools.items() for _, claim in holders}
    if sum(map(len, pools.values())) != len(union):
        return f"held twice: {pools}"
    homes = Counter(
        f"~user:{one.user}" for held_by in pools.values() for one, _ in held_by if one.user
    )
    if Counter(namespace for namespace, _ in users) != homes:
        return f"of users {users}, at home {homes}"
    union |= users
    if registered(raw) != union:
        return f"registered {registered(raw)}, held {pools} and of users {users}"
    for namespace, id, due in told(world):
        if raw.profiles.get(namespace, {}).get(id) != due:
            return f"profiles {raw.profiles}, and {due} of {id} in {namespace}"
    if any(key[0] not in raw.noted.get(claim.incarnation, ()) for key, claim in union.items()):
        return f"noted only {raw.noted}"
    return ""


def told(world: World) -> Iterator[tuple[str, str, bytes | None]]:
    """Each membership that pools of living nodes list: namespace, id, and the entry of its profile,
    which it does not have without user and info."""
    for node in world.alive:
        for one in node.pool._parts.table.memberships():
            if one.claim is not None:
                profile = profile_of(one) or NO_PROFILE
                yield one.namespace, one.id, entry(one.claim, profile)


def registered(raw: Raw) -> dict[tuple[str, str], Claim]:
    """Every claim by namespace and id."""
    return {
        (namespace, id): claim
        for namespace, claims in raw.members.items()
        for id, claim in claims.items()
    }


def objection(world: World) -> str:
    """Why the calm world is not as the model has it; "" when it is."""
    owners = {key: holders[0][0] for key, holders in held(world).items()}
    if owners != world.owners:
        return f"owned {owners}, expected {world.owners}"
    return disagreement(world)


def check_clients(world: World) -> None:
    """Once all is calm, no client was closed without a reason, and none was forgotten."""
    for client in world.clients:
        owns = world.owners.get(client.key) is client
        if not client.settled:
            assert not owns, f"{client} should own nothing"
            lost = client.told and not client.leaves
            assert not lost or rivals(world, client), f"{client} lost its id to nobody"
        elif client.home is not None:
            assert owns, f"{client} is a guest that was told nothing, and owns nothing"
        elif client.websocket.closed is None:
            assert owns, f"{client} is open and owns nothing"
        elif client.websocket.closed[0] == TAKEN_OVER:
            assert rivals(world, client), f"{client} lost its id to nobody"
        else:
            assert client.websocket.closed[0] == NORMAL, client
            closed = client.user in world.kicked or any(
                one.key in world.closed for one in world.family(client)
            )
            assert closed, f"nobody asked to close {client}"


def not_closed(client: Client, code: int) -> str:
    """Why a connection is not closed as it must be."""
    closed = client.websocket.closed
    return "" if closed is not None and closed[0] == code else f"closed: {closed}, not {code}"


def not_told(client: Client) -> str:
    """Why a guest does not know that it has lost its place, as it must."""
    return "" if client.told else f"{client} was not told"


def not_got(world: World, message: Message, by: set[Client]) -> str:
    """Why a message is not where it must be."""
    got = world.got(message)
    return "" if set(got) == by else f"{message} came to {got}, not to {by}"


def rivals(world: World, client: Client) -> list[Client]:
    """Other attempts on the same id that may have come after this one."""
    return [
        one
        for one in world.clients
        if one.key == client.key and one is not client and one.ended >= client.began
    ]


def check_attempt(world: World, client: Client) -> None:
    """Check the answer of an attempt that has ended."""
    assert client.attempt is not None
    error = None if client.attempt.cancelled() else client.attempt.exception()
    if client.home is not None and client.home.leaves and type(error) is ClusterPoolError:
        return  # it was no member any more, and its connection is open
    if isinstance(error, IdTakenError) and not client.takeover:
        others = [one for one in world.clients if one.key == client.key and one is not client]
        assert any(
            one.gone + SLACK >= client.began and one.began <= client.ended for one in others
        ), f"{client} was refused, and nobody had its id"
    elif isinstance(error, MembershipLimitError):
        assert client.user is not None, client
    else:
        assert error is None or isinstance(error, HONEST), repr(error)


def check_messages(world: World) -> None:
    """Nothing came twice or to another client; every answer was true; order was kept."""
    for message in world.messages:
        got, result = world.got(message), message.result
        assert len(got) == len(set(got)), f"{message} came twice"
        if message.user is None:
            assert all(one.key[0] == message.namespace for one in got), message
        else:
            assert all(one.user == message.user for one in got), message
            delivered = message.result.delivered if isinstance(message.result, Delivery) else 0
            assert len(got) >= delivered, f"{message} came to {got}"
        if isinstance(result, BackplaneUnavailableError) and not result.maybe_executed:
            assert not got, f"{message} was not sent, and came"
        if message.id:
            assert all(one.key[1] == message.id for one in got), message
            assert len(got) <= 1, f"{message} came to {got}"
            if result is SendResult.DELIVERED:
                assert got, f"{message} did not come"
            elif result in REFUSALS:
                assert not got, f"{message} came all the same"
    check_order(world)


def check_order(world: World) -> None:
    """From one node to one connection in the order of the calls, in each namespace."""
    messages = {str(message.number): message for message in world.messages}
    for client in world.clients:
        got = [messages[str(text)] for text in client.websocket.sent]
        for node in world.nodes:
            numbers = [
                one.number for one in got if one.sender is node and one.namespace == client.key[0]
            ]
            assert numbers == sorted(numbers), f"{client} got {numbers} from {node.name}"
