"""What Python and the Lua files both say: each of these is a local of its name in every script.

A name written in capitals is meant for the scripts.
"""

from cluster_pool.core import claims, envelope, events

CHECKSUM_MODULUS = claims.CHECKSUM_MODULUS
LATEST = claims.LATEST
LONGEST_CLAIM = claims.LONGEST
ENVELOPE = envelope.ENVELOPE
TAKEN_ITEM = envelope.TAKEN_ITEM
EVENTS_EPOCH, EVENTS = events.COUNTER

OK = "OK"
LATE = "LATE"
"""The script came after its ``not_after`` and has changed nothing."""
GONE = "GONE"
DONE = "DONE"
HELD = "HELD"
"""Not carried out, since something before it was not."""
MENDED = "MENDED"

# What became of a claim.
CLAIMED = "CLAIMED"
TAKEN = "TAKEN"
FULL = "FULL"

# What has become of an incarnation, or GONE.
LIVES = "LIVES"
OVER = "OVER"

# Words among the arguments.
TAKEOVER = "takeover"
REJECT = "reject"
OWN = "own"
EXPIRED = "expired"
ORPHAN = "orphan"
COUNTED = "counted"
ALL = "all"
KNOWN = "known"

# A digit for each item of a send, each claim that is asserted, each claim that is released.
ABSENT, ROUTED, UNREACHABLE, REFUSED, LATE_ITEM, UNKNOWN, HELD_ITEM = "0123456"
LOST, KEPT = "01"
NOT_REGISTERED, RELEASED, EMPTIED = "012"

# Seconds that a counter or a memory stays, and how many emptying releases are remembered.
MINUTE, DAY = 60, 86_400
REMEMBERED = 100


def constants() -> dict[str, str | int | bytes]:
    """All of the above, by name."""
    return {name: value for name, value in globals().items() if name.isupper()}
