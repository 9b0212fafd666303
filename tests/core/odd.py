"""Values of classes whose str() or format() differs from their content."""

from enum import Enum, IntEnum


class Odd(str, Enum):  # noqa: UP042  # formats otherwise than a StrEnum
    """The kind that FastAPI advises for path parameters; it formats as "Odd.NAME"."""

    NAME = "name"


class Code(IntEnum):
    """A close code with a name."""

    GONE = 4000


class Loud(bytes):
    """Gives other bytes than it has."""

    def __bytes__(self) -> bytes:
        return b"LOUD"
