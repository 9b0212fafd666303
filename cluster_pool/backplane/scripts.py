"""The Lua files: one operation each, loaded on every new connection before anything else is sent.

Their arguments are in :mod:`.script_calls`, the constants that they share with Python in
:mod:`.script_words`.
"""

import hashlib
import re
from functools import cache
from importlib.resources import files
from typing import Any, Final

from cluster_pool.backplane import script_words

NAMES: Final = (
    "add_namespaces",
    "assert",
    "bury",
    "claim",
    "compare",
    "correct",
    "counters",
    "drain",
    "heartbeat",
    "inform",
    "join",
    "living",
    "publish",
    "read_history",
    "read_revocations",
    "reap",
    "release",
    "renew_epoch",
    "revoke",
    "send",
    "store_positions",
    "sweep",
    "tallies",
)

DEFERRED: Final = ("history", "positions", "recording")
"""Files whose functions are made only where they are needed, since most calls need none of them."""

MAKER: Final = """\
local function {}(redis, server, mended)
{}
end
"""
"""Makes what such a file returns. It has definitions of its own: one that it shared with the rest
of the script would cost every call."""

PUBLISH: Final = "PUBLISH"
SHARDED_PUBLISH: Final = "SPUBLISH"
"""The command on a cluster: it reaches subscribers at the primary that has the channel's slot."""

_MENDED: Final = script_words.MENDED.encode()
_DEFINITION: Final = re.compile(
    r"(?:--.*\n)*local (?:function )?(\w+)\b(?!(?s:.*)\n(?:local|function) )"
)
"""A paragraph with the definition of one local, and nothing else."""
_COMMENT: Final = re.compile(r"--.*")
_WORD: Final = re.compile(r"\w+")

END: Final = """
local reply = main()
if #mended > 0 then return {MENDED, mended, reply} end
return reply
"""
"""Adds to the reply which values were repaired that this library never writes: ``common.lua``."""


@cache
def sources(publish: str = PUBLISH) -> dict[str, str]:
    """The text of each script by name, behind the shared constants and functions that it uses.

    Redis runs the whole text at each call, so an unused definition would cost every call.

    Args:
        publish: the command by which they publish: ``PUBLISH``, or ``SPUBLISH`` on a cluster.
    """

    def read(name: str) -> str:
        return (files(__package__) / "lua" / f"{name}.lua").read_text("utf-8")

    command = f"local PUBLISH = {_lua(publish)}"
    shared = [command, *constants(), *read("common").split("\n\n")]
    makers = {f"make_{name}": _maker(name, shared, read(name)) for name in DEFERRED}
    shared += read("envelopes").split("\n\n")

    def script(name: str) -> str:
        main = f"local function main()\n{read(name)}\nend\n{END}"
        text = "\n\n".join([*used(shared, main), main])
        return "\n".join([*(makers[one] for one in sorted(_words(text) & {*makers})), text])

    return {name: script(name) for name in NAMES}


def constants() -> list[str]:
    """The shared constants as Lua definitions."""
    words = script_words.constants().items()
    return [f"local {name} = {_lua(value)}" for name, value in words]


def used(paragraphs: list[str], text: str) -> list[str]:
    """The paragraphs that ``text`` needs: each defines one local, which later ones may use.

    A paragraph that does more is always kept.
    """
    needed, kept = _words(text), []
    for paragraph in reversed(paragraphs):
        defined = _DEFINITION.match(paragraph)
        if defined is None or defined[1] in needed:
            needed |= _words(paragraph)
            kept.append(paragraph)
    return kept[::-1]


def _maker(name: str, shared: list[str], text: str) -> str:
    """The function that makes what a deferred file returns, without comments."""
    single = [(one, _DEFINITION.match(one)) for one in shared]
    own = [one for one, defined in single if defined is not None and defined[1] != "mended"]
    body = _COMMENT.sub("", "\n".join([*used(own, text), text]))
    lines = [f"  {line}" for line in body.splitlines() if line.strip()]
    return MAKER.format(f"make_{name}", "\n".join(lines))


def _words(text: str) -> set[str]:
    return set(_WORD.findall(_COMMENT.sub("", text)))


def _lua(value: str | int | bytes) -> str:
    """A constant as a Lua literal."""
    if isinstance(value, int):
        return str(value)
    raw = value if isinstance(value, bytes) else value.encode()
    return "'{}'".format(
        "".join(chr(x) if chr(x).isalnum() and x < 128 else f"\\{x:03}" for x in raw)
    )


@cache
def digests(publish: str = PUBLISH) -> dict[str, str]:
    """The SHA-1 by which Redis knows each script."""
    return {name: digest(text) for name, text in sources(publish).items()}


def digest(text: str) -> str:
    """The SHA-1 by which Redis knows a script."""
    return hashlib.sha1(text.encode()).hexdigest()


def mended(reply: Any) -> list[bytes]:
    """The repairs of a script, if ``reply`` has any; its last item is then the script's own reply.

    No other reply is a list of three with that word first and a list second.
    """
    if (
        type(reply) is list
        and len(reply) == 3
        and reply[0] == _MENDED
        and isinstance(reply[1], list)
    ):
        found: list[bytes] = reply[1]
        return found
    return []
