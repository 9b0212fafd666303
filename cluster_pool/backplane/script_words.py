"""Constants that Python and the Lua files share.

Each name in capitals is a local of the same name in every script that uses it.
"""

from cluster_pool.core import claims, envelope, events, history, profiles

CHECKSUM_MODULUS = claims.CHECKSUM_MODULUS
LATEST = claims.LATEST
LONGEST_CLAIM = claims.LONGEST
ENVELOPE = envelope.ENVELOPE
TAKEN_ITEM = envelope.TAKEN_ITEM
EVENTS_EPOCH, EVENTS = events.COUNTER
EVENTS_BYTES = events.PAYLOAD_BYTES
NO_PROFILE = profiles.NO_PROFILE
MARKS = history.MARKS
ENTRY_BYTES = history.ENTRY_BYTES
LARGEST_HISTORY = history.LARGEST

OK = "OK"
LATE = "LATE"
"""The script came after its ``not_after`` and has changed nothing."""
GONE = "GONE"
DONE = "DONE"
HELD = "HELD"
"""Not executed, since something before it was not."""
MENDED = "MENDED"

# Outcomes of a claim.
CLAIMED = "CLAIMED"
TAKEN = "TAKEN"
FULL = "FULL"

# States of an incarnation; the third is GONE.
LIVES = "LIVES"
OVER = "OVER"

# Words among the arguments.
TAKEOVER = "takeover"
REJECT = "reject"
SAME_USER = "same_user"
OWN = "own"
EXPIRED = "expired"
ORPHAN = "orphan"
COUNTED = "counted"
ALL = "all"
KNOWN = "known"
CLAIMS = "C"
LEASES = "L"

# A digit for each item of a send, each claim that is asserted, each claim that is released.
ABSENT, ROUTED, UNREACHABLE, REFUSED, LATE_ITEM, UNKNOWN, HELD_ITEM, GONE_ITEM, PARKED = "012345678"
LOST, KEPT, MISSED = "014"
NOT_REGISTERED, RELEASED, EMPTIED = "012"

# Seconds until a counter or an emptying release expires, and how many of these releases are kept.
MINUTE, DAY = 60, 86_400
REMEMBERED = 100


def constants() -> dict[str, str | int | bytes]:
    """All constants by name."""
    return {name: value for name, value in globals().items() if name.isupper()}
