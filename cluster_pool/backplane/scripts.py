"""The Lua files: one operation each, loaded on every new link before anything else is sent."""

import hashlib
from functools import cache
from importlib.resources import files
from typing import Any, Final

NAMES = (
    "assert",
    "bury",
    "claim",
    "compare",
    "correct",
    "drain",
    "enlist",
    "heartbeat",
    "join",
    "publish",
    "reap",
    "release",
    "renew",
    "send",
    "sweep",
    "tallies",
)

MENDED: Final = b"MENDED"
END: Final = """
local reply = main()
if #mended > 0 then return {'MENDED', mended, reply} end
return reply
"""
"""Says beside the reply what was found in our keys that cannot be ours; see ``common.lua``."""


@cache
def sources() -> dict[str, str]:
    """The text of each script by name, with what all of them share in front."""
    folder = files(__package__) / "lua"
    common = (folder / "common.lua").read_text("utf-8")

    def script(name: str) -> str:
        own = (folder / f"{name}.lua").read_text("utf-8")  # whatever the locale
        return f"{common}\nlocal function main()\n{own}\nend\n{END}"

    return {name: script(name) for name in NAMES}


@cache
def digests() -> dict[str, str]:
    """The SHA-1 by which Redis knows each script."""
    return {name: digest(text) for name, text in sources().items()}


def digest(text: str) -> str:
    """The SHA-1 by which Redis knows a script."""
    return hashlib.sha1(text.encode()).hexdigest()


def mended(reply: Any) -> list[bytes]:
    """What a script found and mended, when ``reply`` says so; the script's own reply is its last.

    No other reply is a list of three whose first is that word and whose second is a list.
    """
    if (
        type(reply) is list
        and len(reply) == 3
        and reply[0] == MENDED
        and isinstance(reply[1], list)
    ):
        found: list[bytes] = reply[1]
        return found
    return []
