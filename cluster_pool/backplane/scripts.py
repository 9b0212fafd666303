"""The Lua files: one operation each, loaded on every new link before anything else is sent."""

import hashlib
from functools import cache
from importlib.resources import files

NAMES = (
    "assert",
    "bury",
    "claim",
    "drain",
    "enlist",
    "heartbeat",
    "join",
    "publish",
    "reap",
    "release",
    "renew",
    "send",
    "tallies",
)


@cache
def sources() -> dict[str, str]:
    """The text of each script by name, with what all of them share in front."""
    folder = files(__package__) / "lua"
    common = (folder / "common.lua").read_text()
    return {name: common + (folder / f"{name}.lua").read_text() for name in NAMES}


@cache
def digests() -> dict[str, str]:
    """The SHA-1 by which Redis knows each script."""
    return {name: digest(text) for name, text in sources().items()}


def digest(text: str) -> str:
    """The SHA-1 by which Redis knows a script."""
    return hashlib.sha1(text.encode()).hexdigest()
