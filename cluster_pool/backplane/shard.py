"""The link and the ear of one node, made anew together after any fault.

Owns: the sockets, the wanted channels, the proof that the node hears itself. What is heard is for
:mod:`.receiver`; nothing here knows a connection.

A generation is one pair of sockets. Either of them failing, or three probes unheard, ends it; the
next begins at once if the last one was up for a while, else after a pause with jitter, subscribes
everything again, and says what was missed. The pause grows while none comes up.
"""

import asyncio
import logging
import math
import random
from collections.abc import Awaitable, Coroutine, Iterable
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any, Protocol, TypeVar

from redis.exceptions import ResponseError

from cluster_pool.backplane import script_calls
from cluster_pool.backplane.address import Address
from cluster_pool.backplane.calls import Deadline, ending_at
from cluster_pool.backplane.command_connection import Argument, CommandConnection, ScriptCall
from cluster_pool.backplane.generation import Generation
from cluster_pool.backplane.outage import Outage
from cluster_pool.backplane.receiver import Receiver
from cluster_pool.backplane.refusals import misplaced, needs_another, refusal
from cluster_pool.backplane.script_calls import Envelope
from cluster_pool.backplane.scripts import digest
from cluster_pool.backplane.subscriber import BATCH, Subscriber
from cluster_pool.core.clock import RedisClock
from cluster_pool.core.config import Limits, Timing
from cluster_pool.core.identity import Identity
from cluster_pool.core.keys import Keys
from cluster_pool.core.results import Gap
from cluster_pool.core.statistics import Counters
from cluster_pool.exceptions import BackplaneUnavailableError, PoolClosedError

log = logging.getLogger("cluster_pool.backplane")

T = TypeVar("T")

FIRST_PAUSE = 0.05
LONGEST_PAUSE = 1.0
LONGEST_REFUSED = 2.0
"""The longest pause when Redis lets a node in and then refuses what it needs, which costs more."""
STEADY = 1.0
"""Seconds that a generation must have been up for the next one to begin without a pause."""
A_MOMENT = 1.0
"""Seconds after a link was lost in which another is likely to come up at once."""
PROBES_LOST = 3
STALL = 0.5


class ShardObserver(Protocol):
    """What a shard tells of itself. It calls these from the event loop, and awaits nothing."""

    def up(self) -> None:
        """A generation hears itself: commands can be sent over it."""

    def down(self) -> None:
        """The generation that was up has ended."""

    def gap(self, gap: Gap) -> None:
        """Messages were missed: told before :meth:`up` of the next generation, or between."""

    def forgotten(self, channel: str) -> None:
        """A channel is no longer subscribed: nothing of it will be heard."""


class Shard:
    """Commands and subscriptions that outlive any one socket.

    Nothing is connected, and nothing is told to the observer, before :meth:`start`.
    """

    def __init__(
        self,
        address: Address,
        keys: Keys,
        identity: Identity,
        observer: ShardObserver,
        *,
        limits: Limits,
        timing: Timing,
        counters: Counters,
        sealed: bool,
        holds: bool,
    ) -> None:
        self.address = address
        self._holds = holds
        self.generation = 0
        self.current: Generation | None = None
        """The generation that is up; None while none is."""
        self.clock = RedisClock()
        self.outage = Outage(address.shown)
        self.receiver = Receiver(keys, identity, limits=limits, counters=counters, sealed=sealed)
        self.numbers = self.receiver.numbers
        self.epoch = ""
        """Of the state of Redis, as last told; "" before anything was."""
        self._observer = observer
        self._keys = keys
        self._identity = identity
        self._own = ""
        self._timing = timing
        self._counters = counters
        self._subscriber: Subscriber | None = None
        self._names: dict[bytes, str] = {}
        self._settling: set[str] = set()
        """Channels whose numbers are being read, and that were not left meanwhile."""
        self._up = asyncio.Event()
        self._failed = asyncio.Event()
        self._unwanted = asyncio.Event()
        self._why_unwanted = ""
        self._last_error: BackplaneUnavailableError | None = None
        self._down_since = 0.0
        self._up_since = math.inf
        """When this generation heard itself, if it has."""
        self._reached = False
        """Whether Redis has let this generation in, whatever became of it."""
        self._raises = False
        """Whether a first failure ends the start, which raises it."""
        self._task: asyncio.Task[None] | None = None

    @property
    def up(self) -> bool:
        """Whether commands can be sent and this node has lately heard itself."""
        return self._up.is_set()

    @property
    def commands(self) -> CommandConnection | None:
        """The command connection of the generation that is up."""
        return None if self.current is None else self.current.commands("")

    @property
    def start_name(self) -> str:
        """The name of this start, which no other has."""
        return self._identity.start

    def redis_time(self) -> int:
        """The time of Redis in µs, as far as this process knows; never ahead of it."""
        return self.clock.at(asyncio.get_running_loop().time())

    def redis_time_at_most(self) -> int:
        """The time of Redis in µs, or a little more; never behind it."""
        return self.clock.not_before(asyncio.get_running_loop().time())

    @property
    def sender(self) -> str:
        """How this node names itself in the headers of its envelopes."""
        return f"{self.start_name} {self.generation}"

    # -- lifetime --------------------------------------------------------------------------

    async def start(self, wait: float | None) -> None:
        """Begin. Returns when the node hears itself.

        Args:
            wait: seconds to go on trying while Redis cannot be reached; None tries once.

        Raises:
            BackplaneUnavailableError: Redis could not be reached.
        """
        self._raises = wait is None
        self._task = asyncio.create_task(self._run(), name="cluster_pool session")
        try:
            if wait is None:
                up = asyncio.create_task(self._up.wait())
                failed = asyncio.create_task(self._failed.wait())
                try:
                    await asyncio.wait((up, failed), return_when=asyncio.FIRST_COMPLETED)
                finally:
                    up.cancel()
                    failed.cancel()
                if not self.up:
                    raise self._unavailable()
            else:
                await self.connected(asyncio.get_running_loop().time() + wait)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """End: close both sockets and forget every subscription."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        self._names = {}
        self._own = ""
        gone, self._up = self._up, asyncio.Event()
        gone.set()  # whoever waits for a link learns that there will be none

    async def _run(self) -> None:
        pause = FIRST_PAUSE
        while True:
            self._reached, self._up_since = False, math.inf
            try:
                await self._live_once()
            except Exception as error:
                self._last_error = _reason(error)
            up = self._up_since != math.inf
            refused = self._reached and not up
            if up:  # Redis served it whole, and then a socket failed
                pause = FIRST_PAUSE
            steady = asyncio.get_running_loop().time() - self._up_since >= STEADY
            wait = 0.0 if steady else random.uniform(pause / 2 if refused else 0, pause)
            self._tell_loss(wait)
            self._failed.set()
            if not steady:
                await asyncio.sleep(wait)
                pause = min(pause * 2, LONGEST_REFUSED if refused else LONGEST_PAUSE)

    def _tell_loss(self, wait: float) -> None:
        """Say why a generation ended; one that ended by our own wish is no outage."""
        said, where = str(self._last_error), self.address.shown
        if self._unwanted.is_set() and self._up_since != math.inf:
            log.info("begins a new link to Redis at %s: %s", where, said)
            return
        if where not in said:
            how = "lost Redis at %s" if self._up_since != math.inf else "no link to Redis at %s"
            said = f"{how % where}: {said}"
        self.outage.fail("link", said, wait, tell=not self._raises)

    async def _live_once(self) -> None:
        commands = CommandConnection(await self.address.open())
        try:
            subscriber = Subscriber(await self.address.open(), self._hear)
        except BaseException:
            await commands.drop()
            raise
        self._unwanted.clear()
        self._reached = True
        lost = f"lost Redis at {self.address.shown}"
        try:
            await _until_one_fails(
                commands.write_forever(),
                commands.read_forever(),
                subscriber.write_forever(),
                subscriber.read_forever(),
                self._lead(commands, subscriber),
                self._end_unwanted(),
            )
        except Exception as error:
            lost = f"{lost}: {error}"
            raise
        finally:
            was_up = self.up
            self._up.clear()
            self.current = self._subscriber = None
            await commands.fail(BackplaneUnavailableError(lost))
            await subscriber.drop()
            if was_up:
                self._down_since = asyncio.get_running_loop().time()
                self.receiver.interrupted(self.generation)
                self._observer.down()

    def begin_anew(self, reason: str) -> None:
        """End this generation: the next one subscribes everything again."""
        self._why_unwanted = reason
        self._unwanted.set()

    async def _end_unwanted(self) -> None:
        """Ends only with an error, when :meth:`begin_anew` wants it."""
        await self._unwanted.wait()
        raise BackplaneUnavailableError(self._why_unwanted)

    async def _lead(self, commands: CommandConnection, subscriber: Subscriber) -> None:
        """Bring a generation up, then prove every second that it is not deaf."""
        await self._check_kind(commands)
        await self._soon(commands.load_scripts())
        await self._tell_time(commands)
        self._subscriber = subscriber
        self._want_own()
        channels = list(self._names)
        for at in range(0, len(channels), BATCH):
            await self._soon(subscriber.all_confirmed(channels[at : at + BATCH]))
        self.generation += 1
        self._counters.generations += 1
        await self._settle(commands, [self._names[c] for c in channels if c in self._names])
        self.current = Generation(commands)
        self._up.set()
        self._up_since = asyncio.get_running_loop().time()
        self._raises = False
        self.outage.recover("link")
        self._observer.up()
        while True:
            await self._rest()
            await self._probe(commands)
            await self._tell_time(commands)
            self._report_gap("messages were dropped: too many, or too large")

    async def _check_kind(self, commands: CommandConnection) -> None:
        """Refuse a Redis on which no node can live, and say what it is.

        A cluster of one primary would do half of what is asked, and refuse the rest.
        """
        try:
            said = await self._hello(commands)
        except ResponseError:  # not allowed, or not known: what it is will show
            return
        why = misplaced(said.get(b"mode", b"").decode())
        if why:
            raise BackplaneUnavailableError(f"Redis at {self.address.shown}: {why}")

    async def _hello(self, commands: CommandConnection) -> dict[bytes, bytes]:
        """What Redis says of itself, in the fields that are words."""
        call = commands.call("HELLO")
        await self._soon(asyncio.wait((call,)))
        flat = call.result()
        fields = zip(flat[::2], flat[1::2], strict=False) if isinstance(flat, list) else ()
        return {name: value for name, value in fields if isinstance(value, bytes)}

    def _want_own(self) -> None:
        """The own channel stands first; after a change of the node id it is another."""
        before, own = self._own, self._identity.own_channel
        if before != own:
            self._own = own
            self._names.pop(before.encode(), None)
            self._names = {own.encode(): own, **self._names}
            self.numbers.forget(before)
            self._observer.forgotten(before)

    async def _rest(self) -> None:
        """Until the next probe; a loop that stood still meanwhile is worth a line in the log."""
        loop = asyncio.get_running_loop()
        due = loop.time() + self._timing.probe
        await asyncio.sleep(self._timing.probe)
        late = loop.time() - due
        if late >= STALL:
            self._counters.stalls += 1
            log.warning("the event loop stood still for %.1f s: does something block it?", late)

    async def _settle(self, commands: CommandConnection, channels: list[str]) -> None:
        """Find out what was published while nothing could be heard.

        A channel that is left meanwhile is forgotten, and stays so: what is read of it here would
        be compared with what is published until somebody joins again.
        """
        self._settling = set(channels)
        lost = await self._state_lost(commands)
        counters: list[tuple[str, tuple[str | None, int]]] = []
        for at in range(0, len(channels), BATCH):
            part = channels[at : at + BATCH]
            replies = await self._soon(self._read_counters(commands, part))
            counters.extend(zip(part, replies, strict=True))
        await self._probe(commands)
        for at in range(0, len(counters), BATCH):
            for channel, (epoch, number) in counters[at : at + BATCH]:
                if channel in self._settling:
                    self.receiver.settle(channel, epoch, number, lost=lost)
            await asyncio.sleep(0)
        self._report_gap(str(self._last_error or "the first link"))

    async def _state_lost(self, commands: CommandConnection) -> bool:
        """Whether this Redis may have lost its state since this process was last connected.

        It has then another epoch. One that was restored from a snapshot has the old one, but knows
        no script: then the first node to notice renews the epoch, for all to see.
        """
        epoch = await self._soon(self._read_epoch(commands))
        if epoch and self._holds:
            exists = commands.call("SCRIPT", "EXISTS", digest(_mark(epoch)))
            if not (await self._soon(exists))[0]:
                epoch = await self._renew(commands, epoch)
        before, self.epoch = self.epoch, epoch
        return before != "" and before != epoch

    async def _read_epoch(self, commands: CommandConnection) -> str:
        """The epoch, "" when there is none that a node may have written."""
        try:
            found = await commands.call("GET", self._keys.epoch) or b""
        except ResponseError:  # of a wrong type: the next join deletes it
            return ""
        return found.decode() if found.isdigit() else ""

    async def _renew(self, commands: CommandConnection, epoch: str) -> str:
        new = str(self.redis_time())
        await self._soon(commands.call("SCRIPT", "LOAD", _mark(new)))
        standing: bytes = await self._soon(
            commands.script(script_calls.renew_epoch(self._keys, old=epoch, new=new))
        )
        return standing.decode()

    async def propose_epoch(self, deadline: float) -> str:
        """An epoch for a Redis that has none, marked before anybody can see it; "" if it has one.

        A node that came up between a new epoch and its mark would take it for a restored one.
        """
        if self.epoch:
            return ""
        proposed = str(self.redis_time())
        await self.call(deadline, "SCRIPT", "LOAD", _mark(proposed))
        return proposed

    async def mark(self, epoch: str, deadline: float) -> None:
        """This Redis process is of this epoch: leave what no restart survives."""
        await self.call(deadline, "SCRIPT", "LOAD", _mark(epoch))
        self.epoch = epoch

    async def _read_counters(
        self, commands: CommandConnection, channels: list[str]
    ) -> list[tuple[str | None, int]]:
        calls = [self._ask_counter(commands, channel) for channel in channels]
        return [await _counter(call) for call in calls]

    def _ask_counter(self, commands: CommandConnection, channel: str) -> asyncio.Future[Any]:
        return commands.call("HMGET", *self.receiver.counter_of(channel))

    async def _probe(self, commands: CommandConnection) -> None:
        """Publish to oneself and wait until it is heard; a write, so a replica refuses it."""
        not_after = self.clock.at(asyncio.get_running_loop().time() + self._timing.timeout)
        self.receiver.probed.clear()
        reply = await self._soon(
            commands.script(
                script_calls.publish(
                    self._keys,
                    sender=self.sender,
                    envelopes=[Envelope(self._identity.own_channel, "", not_after, 0, b"")],
                )
            )
        )
        mark, said = reply
        if mark == b"LATE":
            raise BackplaneUnavailableError("Redis is behind its own time")
        refused = "" if mark else refusal(said)
        if needs_another(refused):
            raise BackplaneUnavailableError(refused)
        try:
            silence = "deaf: this node has not heard its own probe"
            await self._soon(self.receiver.probed.wait(), silence)
        except BackplaneUnavailableError as error:
            raise BackplaneUnavailableError(refused or str(error)) from error
        self._tell_refusal(refused)

    def _tell_refusal(self, refused: str) -> None:
        """Hearing goes on while Redis takes no writes, for what comes by a plain PUBLISH."""
        if refused:
            self.outage.fail("probe", refused, self._timing.probe)
        else:
            self.outage.recover("probe")

    async def _tell_time(self, commands: CommandConnection) -> None:
        loop = asyncio.get_running_loop()
        asked = loop.time()
        seconds, micros = await self._soon(commands.call("TIME"))
        self.clock.hear(int(seconds) * 1_000_000 + int(micros), asked, loop.time())

    async def _soon(self, answer: Awaitable[T], silence: str = "Redis said nothing") -> T:
        """What is awaited, or the end of this generation after three probes without anything.

        They are waited for one by one: when the loop stood still, what has arrived meanwhile is
        read before the next, and our own stall is not taken for the silence of Redis.
        """
        waiting = asyncio.ensure_future(answer)
        probes = PROBES_LOST - self.up  # the pause before a probe was the first
        try:
            for _ in range(probes):
                await asyncio.wait((waiting,), timeout=self._timing.probe)
                if waiting.done():
                    return waiting.result()
        except ResponseError as error:
            raise BackplaneUnavailableError(refusal(error)) from error
        finally:
            waiting.cancel()
        raise BackplaneUnavailableError(f"{silence} for {PROBES_LOST * self._timing.probe:g} s")

    # -- hearing ---------------------------------------------------------------------------

    def _hear(self, name: bytes, payload: bytes) -> None:
        channel = self._names.get(name)
        if channel is not None:
            self.receiver.hear(channel, payload)

    def _report_gap(self, cause: str) -> None:
        """Tell what was missed, if anything was."""
        now = asyncio.get_running_loop().time()
        gap = self.receiver.take_gap(0.0 if self.up else now - self._down_since, cause)
        if gap is not None:
            self._observer.gap(gap)

    # -- subscribing -----------------------------------------------------------------------

    async def subscribe(self, channel: str, deadline: float | None, *, counted: str = "") -> None:
        """Want a channel, and wait until the server has confirmed it.

        What is published after this returns is heard. A link that fails meanwhile is no end: the
        next one is waited for. Raises BackplaneUnavailableError when it was not confirmed by
        ``deadline`` (None: there is none) or Redis refused; the channel is then wanted all the
        same.

        Args:
            counted: the hash of owners in which the joins and leaves of this channel are counted;
                "" for a channel of messages.
        """
        if counted:
            self.receiver.events[channel] = counted
        name = channel.encode()
        self._names[name] = channel
        while True:
            generation, subscriber = await self.connected(deadline), self._subscriber
            if subscriber is None:
                continue
            try:
                async with self._ending_at(deadline, maybe_executed=False):
                    if not await subscriber.confirmed(name):
                        continue
                    commands = generation.commands(channel)
                    epoch, number = await _counter(self._ask_counter(commands, channel))
                    self.receiver.begin(channel, epoch, number)
                return
            except BackplaneUnavailableError:
                if generation.lasts:
                    raise

    def unsubscribe(self, channels: Iterable[str]) -> None:
        """Want these channels no longer."""
        names = [channel.encode() for channel in channels]
        for name in names:
            channel = self._names.pop(name, None)
            if channel is not None:
                self._settling.discard(channel)
                self.receiver.forget(channel)
                self._observer.forgotten(channel)
        if self._subscriber is not None and names:
            self._subscriber.unsubscribe(names)

    def listens(self, channel: str) -> bool:
        """Whether ``channel`` is wanted."""
        return channel.encode() in self._names

    # -- commands --------------------------------------------------------------------------

    async def connected(self, deadline: Deadline) -> Generation:
        """The generation that is up, waited for until ``deadline``.

        Raises BackplaneUnavailableError when none is by then.
        """
        if self.current is not None:
            return self.current
        try:
            async with asyncio.timeout_at(deadline):
                while self.current is None:  # it may be lost again before this has its turn
                    if self._task is None:
                        raise PoolClosedError("not started, or stopped")
                    await self._up.wait()
        except TimeoutError:
            raise self._unavailable() from self._last_error
        return self.current

    async def connected_soon(self, deadline: float) -> None:
        """As :meth:`connected`, but wait for none once there has been none for a moment.

        For newcomers: another node may take them, and they learn at once that this one cannot.
        """
        if self.current is None:
            await self.connected(min(deadline, self._down_since + A_MOMENT))

    async def call(self, deadline: float, *arguments: Argument) -> Any:
        """One command; raises BackplaneUnavailableError when it was not answered in time."""
        commands = (await self.connected(deadline)).commands("")
        async with self._ending_at(deadline, maybe_executed=True):
            return await commands.call(*arguments)

    async def script(self, deadline: float, call: ScriptCall) -> Any:
        """One of our scripts, as :meth:`call`."""
        commands = (await self.connected(deadline)).commands("")
        async with self._ending_at(deadline, maybe_executed=True):
            return await commands.script(call)

    def _ending_at(
        self, deadline: Deadline, *, maybe_executed: bool
    ) -> AbstractAsyncContextManager[None]:
        return ending_at(deadline, partial(self._unanswered, maybe_executed=maybe_executed))

    def in_vain(self, *, maybe_executed: bool = False) -> BackplaneUnavailableError:
        """What to raise after something was waited for that sends nothing by itself."""
        if self.current is None and not maybe_executed:
            return self._unavailable()
        return self._unanswered(maybe_executed=maybe_executed)

    def _unanswered(self, *, maybe_executed: bool) -> BackplaneUnavailableError:
        silent = f"Redis at {self.address.shown} did not answer in time"
        what = "not done in time" if self.outage.reason else silent
        return self.outage.error(what, maybe_executed=maybe_executed)

    def _unavailable(self) -> BackplaneUnavailableError:
        reason = self.outage.reason or f"no link to Redis at {self.address.shown} yet"
        return BackplaneUnavailableError(reason)


async def _until_one_fails(*works: Coroutine[Any, Any, None]) -> None:
    """Run what never ends by itself, until one of them raises; then so does this.

    A TaskGroup would do, but that it forgets a cancellation which meets a failure.
    """
    tasks = [asyncio.create_task(work) for work in works]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            raise outcome


async def _counter(call: asyncio.Future[Any]) -> tuple[str | None, int]:
    """Epoch and last number of a channel; None and 0 when nobody may have written them."""
    try:
        epoch, last = await call
    except ResponseError:  # of a wrong type: who publishes next deletes it
        return None, 0
    if epoch is None or not epoch.isdigit():
        return None, 0
    return epoch.decode(), int(last) if (last or b"").isdigit() else 0


def _mark(epoch: str) -> str:
    """A script that does nothing, and that only the process knows to which it was given."""
    return f"return '{epoch}'"


def _reason(error: Exception) -> BackplaneUnavailableError:
    """Why a generation ended; what is not the fault of Redis or the network is ours, and logged."""
    if isinstance(error, BackplaneUnavailableError):
        return error
    log.error("the session failed by itself", exc_info=error)
    return BackplaneUnavailableError(f"the session failed: {error}")
