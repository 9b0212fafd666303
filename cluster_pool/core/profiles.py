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


NONE: Final = Profile()
NO_PROFILE: Final = "{}"
"""In place of the profile of a member that has none any more; of one that never had any, nothing is
said."""


def encode_info(info: Any) -> str:
    """Info as JSON text; raises InvalidValueError for what JSON cannot carry."""
    try:
        text = json.dumps(info, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidValueError(f"info is not JSON: {error}") from error
    return text


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
    """The profile among the fields of a JSON object; a user that cannot be one is left out."""
    try:
        user = check_user(fields["user"])
    except (KeyError, InvalidIdError):
        user = None
    return Profile(user, fields.get("info"))
