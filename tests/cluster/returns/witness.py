"""A witness of all that is recorded in histories, before it leaves them."""

from typing import NamedTuple

from redis import Redis

from cluster_pool.core.history import NOBODY, Entry
from cluster_pool.core.keys import Keys


class Spot(NamedTuple):
    """A place in a history: later ones are greater, also those of later epochs."""

    epoch: int
    number: int


class Record(NamedTuple):
    """One recorded message, and its readers: all but the excluded ids, or one id with a word."""

    spot: Spot
    message: int
    id: str
    word: str
    excluded: tuple[str, ...]

    def is_for(self, id: str, word: str) -> bool:
        """Whether it is for a reader."""
        if self.id:
            return (self.id, self.word) == (id, word) and word != NOBODY
        return id not in self.excluded


class Witness:
    """Reads the streams of some namespaces whenever it is told to look.

    Attributes:
        records: by namespace and number of a message; the first place of each.
    """

    def __init__(self, redis: Redis, keys: Keys, namespaces: tuple[str, ...]) -> None:
        self._redis = redis
        self._keys = keys
        self._namespaces = namespaces
        self.records: dict[str, dict[int, Record]] = {one: {} for one in namespaces}
        self._last = dict.fromkeys(namespaces, Spot(0, 0))

    def look(self) -> None:
        """Note what is new."""
        for namespace in self._namespaces:
            name = f"{self._keys.prefix}:{{{namespace}}}:history"
            last = self._last[namespace]
            for id, fields in self._redis.xrange(name):
                flat = [part for pair in fields.items() for part in pair]
                entry = Entry.read(id, flat)
                if entry is not None:
                    self._note(namespace, entry)
            self._last[namespace] = max([last, *self._spots(namespace)])

    def _spots(self, namespace: str) -> list[Spot]:
        return [one.spot for one in self.records[namespace].values()][-100:]

    def _note(self, namespace: str, entry: Entry) -> None:
        for place, item in entry.placed():
            id, word, excluded = "", "", ()
            if entry.targeted:
                id, word, item, *_ = item
                payload = item[3]
            else:
                payload, excluded = item[1], tuple(item[2])
            record = Record(Spot(int(place.epoch), place.number), int(payload), id, word, excluded)
            self.records[namespace].setdefault(record.message, record)

    def last(self, namespace: str) -> Spot:
        """The place of the last message that was seen."""
        return self._last[namespace]
