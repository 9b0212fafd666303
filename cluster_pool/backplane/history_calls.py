"""The arguments of the scripts about histories; see :mod:`.script_calls`."""

from collections.abc import Iterable

from cluster_pool.backplane.command_connection import ScriptCall
from cluster_pool.core.keys import Keys


def read_history(
    keys: Keys, namespace: str, *, start: str, newest_first: int, most: int, most_bytes: int
) -> ScriptCall:
    """Read a page of a history, from an id on, or back if ``newest_first`` is 1."""
    names = [keys.numbers(keys.channel(namespace)), keys.history(namespace)]
    return ScriptCall("read_history", names, [start, newest_first, most, most_bytes])


def store_positions(
    keys: Keys, namespace: str, *, positions: Iterable[tuple[str, str, str]]
) -> ScriptCall:
    """Store how far ids have received the history: id, time and nonce of the claim
    ("time:nonce"), and position and reader ("epoch number reader")."""
    names = [keys.members(namespace), keys.numbers(keys.channel(namespace))]
    return ScriptCall("store_positions", names, [field for entry in positions for field in entry])
