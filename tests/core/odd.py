"""Values of classes that say something else than they are."""

from enum import Enum, IntEnum


class Odd(str, Enum):  # noqa: UP042  # formats otherwise than a StrEnum
    """As FastAPI advises for path parameters; it formats as "Odd.NAME"."""

    NAME = "name"


class Code(IntEnum):
    """A close code with a name."""

    GONE = 4000


class Loud(bytes):
    """Gives other bytes than it has."""

    def __bytes__(self) -> bytes:
        return b"LOUD"
