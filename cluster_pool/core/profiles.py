"""The profile of a member, which others see besides its id: its user and its info.

A profile is kept beside the claim, only if there is one, as a JSON object without the fields that
are not there. Its entry begins with the time and nonce of the claim: what an earlier claim of the
id has left behind is not taken for it.
"""

import json
import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from cluster_pool.core.claims import Claim
from cluster_pool.core.ids import check_user
from cluster_pool.exceptions import InvalidIdError, InvalidValueError

_ENTRY: Final = re.compile(rb"(\d+):(\w+) (\{.+\})", re.ASCII)


class Profile(NamedTuple):
    """A profile: see :class:`.Member` for its fields."""

    user: str | None = None
    info: Any = None


MAX_DEPTH: Final = 32
"""Lists and objects within each other in an info, at most: others must be able to read it, and to
compare and print it, whatever their recursion limit."""

NONE: Final = Profile()
NO_PROFILE: Final = "{}"
"""In place of the profile of a member that has none any more; of one that never had any, nothing is
said."""


def encode_info(info: Any, most: int | None = None) -> str:
    """Info as JSON text; raises InvalidValueError for what JSON cannot carry, or is too deep.

    Args:
        most: bytes that it may have, if that is known.
    """
    try:
        text = json.dumps(info, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        text.encode()
    except RecursionError:
        raise _too_deep() from None
    except (TypeError, ValueError) as error:
        raise InvalidValueError(f"info is not JSON: {error}") from error
    if most is not None:
        check_size(text, most)  # before each of its values is looked at, which takes long
    try:
        deep = is_deeper(info, MAX_DEPTH)
    except RecursionError:
        deep = True
    if deep:
        raise _too_deep()
    return text


def _too_deep() -> InvalidValueError:
    return InvalidValueError(f"info has more than {MAX_DEPTH} levels of lists and objects")


def is_deeper(value: Any, levels: int) -> bool:
    """Whether a value has more levels of lists and objects within each other."""
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list | tuple):
        return False
    return not levels or any(is_deeper(one, levels - 1) for one in value)


def check_size(info: str, most: int) -> None:
    """Raise InvalidValueError if info, as JSON text, has more than ``most`` bytes."""
    size = len(info.encode())
    if size > most:
        raise InvalidValueError(f"info has {size} bytes as JSON: {most} are allowed")


def encode(user: str | None, info: str | None) -> str:
    """A profile as a JSON object; "" if it has no field.

    Args:
        info: as JSON text.
    """
    fields = [] if user is None else [f'"user":{json.dumps(user, ensure_ascii=False)}']
    if info is not None:
        fields.append(f'"info":{info}')
    return f"{{{','.join(fields)}}}" if fields else ""


def entry(claim: Claim, profile: str) -> bytes | None:
    """The entry of a profile beside its claim, as the scripts write it; None for NO_PROFILE."""
    return None if profile == NO_PROFILE else f"{claim.time}:{claim.nonce} {profile}".encode()


def read_entry(stored: bytes | None, claim: Claim) -> Profile:
    """The profile of a claim; none if the entry belongs to another claim, or cannot be read."""
    found = _ENTRY.fullmatch(stored or b"")
    if found is None or (int(found[1]), found[2].decode()) != (claim.time, claim.nonce):
        return NONE
    try:
        return read_fields(json.loads(found[3]))
    except (ValueError, RecursionError):
        return NONE


def read_fields(fields: Mapping[str, Any]) -> Profile:
    """The profile among the fields of a JSON object; a user or an info that cannot be one is left
    out."""
    try:
        user = check_user(fields["user"])
    except (KeyError, InvalidIdError):
        user = None
    info = fields.get("info")
    return Profile(user, None if is_deeper(info, MAX_DEPTH) else info)
