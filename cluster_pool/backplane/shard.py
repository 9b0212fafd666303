"""One Redis primary, as one start of a node or publisher uses it.

A generation is one pair of sockets, a command connection and a subscriber, which are opened anew
together after any fault. It ends when either socket fails or three probes are not heard. The next
one begins at once if the last one was up for a while, else after a backoff with jitter, which grows
while no generation comes up. It subscribes everything again, and reports what was missed.

Owns the sockets and this loop. :mod:`.generation` knows which generation is up, :mod:`.health`
whether it is healthy, :mod:`.subscriptions` which channels it has, :mod:`.receiver` what it hears.
"""

import asyncio
import logging
import random
from collections.abc import Coroutine
from typing import Any, Final

from cluster_pool.backplane.address import Primaries
from cluster_pool.backplane.attempt import Attempt, until_one_fails
from cluster_pool.backplane.calls import Deadline, deadline_in
from cluster_pool.backplane.channel_commands import PLAIN, ChannelCommands
from cluster_pool.backplane.command_connection import Argument, CommandConnection, ScriptCall
from cluster_pool.backplane.generation import Generation, Generations
from cluster_pool.backplane.health import PROBES_LOST, Health
from cluster_pool.backplane.outage import Outage
from cluster_pool.backplane.receiver import Receiver
from cluster_pool.backplane.refusals import is_elsewhere
from cluster_pool.backplane.shard_context import Part, ShardContext, ShardObserver
from cluster_pool.backplane.subscriber import Subscriber
from cluster_pool.backplane.subscriptions import Subscriptions
from cluster_pool.backplane.succession import Succession
from cluster_pool.core.numbers import ServerChange
from cluster_pool.exceptions import BackplaneUnavailableError

log = logging.getLogger("cluster_pool.backplane")

FIRST_PAUSE: Final = 0.05
LONGEST_PAUSE: Final = 1.0
LONGEST_REFUSED: Final = 2.0
"""The longest pause when Redis accepts the connection and then refuses a command, which costs more.
"""
MOVED_PAUSE: Final = 0.2
"""Seconds in which a probe whose slot has moved is changed for another one, mostly."""
SLOTS_MOVED: Final = "slots have moved"
READ_LATE: Final = "an interruption, of which the counters could not be read at once"
DROPPED: Final = "messages were dropped: too many, or too large"
OUTLASTED: Final = "an interruption was longer than the history"
STEADY: Final = 1.0
"""Seconds that a generation must have been up for the next one to begin without a pause."""


class Shard:
    """Commands and subscriptions that outlive any one socket.

    Nothing is connected, and the observer is not called, before :meth:`start`.

    Args:
        context: what all shards of this start share.
        channels: the commands of pub/sub here.
        part: what makes it one of several; None where it is home, or the only one.
    """

    def __init__(
        self,
        address: Primaries,
        context: ShardContext,
        observer: ShardObserver,
        *,
        channels: ChannelCommands = PLAIN,
        part: Part | None = None,
    ) -> None:
        identity = context.identity
        self.address = address
        self.outage = Outage(address.shown)
        self.receiver = Receiver(context, self.redis_time_at_most)
        self.generations = Generations(identity.start, self.outage, context.numbers)
        probed = self.receiver.probed
        self.health = Health(context, self.generations, probed, channels, home=part is None)
        self._part = part
        self._state: Health | Part = self.health if part is None else part
        self.subscriptions = Subscriptions(
            identity,
            self.generations,
            self.health,
            self.receiver,
            (lambda: identity.probe_channel) if part is None else part.probe_channel,
            observer.forgotten,
            observer.elsewhere,
        )
        self._channels = channels
        self.clock = self.health.clock
        self.listens = self.subscriptions.listens
        self._identity = identity
        self._observer = observer
        self._counters, self._timing = context.counters, context.timing
        self._failed = asyncio.Event()
        """Set when the first generation has ended, or did not come up."""
        self._attempt = Attempt()
        self.succession = Succession()
        self._raises = False
        """Whether the start gives up, and raises the error, after a first failure."""
        self._task: asyncio.Task[None] | None = None

    # -- state -----------------------------------------------------------------------------

    @property
    def up(self) -> bool:
        """Whether commands can be sent and this node has lately heard itself."""
        return self.generations.current is not None

    @property
    def generation(self) -> int:
        """The number of the newest generation that subscribed everything."""
        return self.generations.number

    @property
    def current(self) -> Generation | None:
        """The generation that is up; None while none is."""
        return self.generations.current

    @property
    def commands(self) -> CommandConnection | None:
        """The command connection of the generation that is up."""
        return self.generations.commands

    @property
    def start_name(self) -> str:
        """The name of this start, which no other has."""
        return self._identity.start

    @property
    def sender(self) -> str:
        """The name of this generation in the headers of envelopes."""
        return self.generations.sender

    def redis_time(self) -> int:
        """The time of Redis in µs, as far as this process knows; never ahead of it."""
        return self.health.redis_time()

    def redis_time_at_most(self) -> int:
        """The time of Redis in µs, or a little more; never behind it."""
        return self.health.redis_time_at_most()

    # -- commands --------------------------------------------------------------------------

    def connected(self, deadline: Deadline) -> Coroutine[Any, Any, Generation]:
        """The generation that is up; see :meth:`.Generations.connected`."""
        return self.generations.connected(deadline)

    def connected_soon(self, deadline: float) -> Coroutine[Any, Any, None]:
        """Wait for a generation as a newcomer does; see :meth:`.Generations.connected_soon`."""
        return self.generations.connected_soon(deadline)

    def call(self, deadline: float, *arguments: Argument) -> Coroutine[Any, Any, Any]:
        """One command; raises BackplaneUnavailableError when it was not answered in time."""
        return self.generations.call(deadline, *arguments)

    def script(self, deadline: float, call: ScriptCall) -> Coroutine[Any, Any, Any]:
        """One of our scripts, as :meth:`call`."""
        return self.generations.script(deadline, call)

    def publish(self, channel: str, payload: bytes, deadline: float) -> Coroutine[Any, Any, int]:
        """Publish a payload that is no envelope, in no order; gives how many heard it."""
        return self.generations.call(deadline, self._channels.publish, channel, payload)

    def listeners(self, channel: str, deadline: float) -> Coroutine[Any, Any, list[Any]]:
        """The channel, and the number of its subscribers by name."""
        return self.generations.call(deadline, "PUBSUB", self._channels.listeners, channel)

    def in_vain(self, *, maybe_executed: bool = False) -> BackplaneUnavailableError:
        """The error for a wait that has timed out and sent no command by itself."""
        return self.generations.in_vain(maybe_executed=maybe_executed)

    # -- lifetime --------------------------------------------------------------------------

    async def start(self, wait: float | None) -> None:
        """Connect. Returns when this process hears its own probe.

        Args:
            wait: seconds to go on trying while Redis cannot be reached; None tries once.

        Raises:
            BackplaneUnavailableError: Redis could not be reached.
        """
        self._raises = wait is None
        self.begin()
        try:
            if wait is None:
                await self.tried()
                if not self.up:
                    raise self.generations.unavailable()
            else:
                await self.connected(deadline_in(wait))
        except BaseException:
            await self.stop()
            raise

    def begin(self) -> None:
        """Begin without waiting."""
        self.generations.open()
        self._task = asyncio.create_task(self._run(), name="cluster_pool shard")

    @property
    def begun(self) -> bool:
        """Whether it has begun and not stopped."""
        return self._task is not None

    async def tried(self) -> None:
        """Wait until a generation is up, or the first has failed."""
        up = asyncio.create_task(self.generations.changed())
        failed = asyncio.create_task(self._failed.wait())
        try:
            await asyncio.wait((up, failed), return_when=asyncio.FIRST_COMPLETED)
        finally:
            up.cancel()
            failed.cancel()

    async def stop(self, *, moved: bool = False) -> None:
        """End: close both sockets and forget every subscription.

        Args:
            moved: see :meth:`.Generations.close`; what was missed until now is reported.
        """
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        if moved:
            self._report_gap(SLOTS_MOVED)
        self.subscriptions.drop_all()
        self.generations.close(moved=moved)

    def begin_anew(self, reason: str) -> None:
        """End this generation: the next one subscribes everything again."""
        self._attempt.why = reason
        self._attempt.unwanted.set()

    # -- generations -----------------------------------------------------------------------

    async def _run(self) -> None:
        """Make one generation after another."""
        pause = FIRST_PAUSE
        while True:
            attempt = self._attempt = Attempt()
            try:
                await self._live_once()
            except Exception as error:
                self.generations.last_error = _reason(error)
            refused = attempt.reached and not attempt.up
            if attempt.up:  # it worked, and then a socket failed
                pause = FIRST_PAUSE
            steady = asyncio.get_running_loop().time() - attempt.up_since >= STEADY
            wait = 0.0 if steady else random.uniform(pause / 2 if refused else 0, pause)
            self._tell_loss(wait)
            self._failed.set()
            if not steady:
                await asyncio.sleep(wait)
                pause = min(pause * 2, LONGEST_REFUSED if refused else LONGEST_PAUSE)

    def _tell_loss(self, wait: float) -> None:
        """Report why a generation ended; one that :meth:`begin_anew` ended is no outage."""
        said, where = str(self.generations.last_error), self.address.shown
        if self._attempt.unwanted.is_set() and self._attempt.up:
            log.info("begins a new link to Redis at %s: %s", where, said)
            return
        if where not in said:
            how = "lost Redis at %s" if self._attempt.up else "no link to Redis at %s"
            said = f"{how % where}: {said}"
        self.outage.fail("link", said, wait, tell=not self._raises)

    async def _live_once(self) -> None:
        """Open both sockets and use them until one fails; ends with the error of the first."""
        channels, subscriptions = self._channels, self.subscriptions
        primary = await self.address.primary()
        commands = CommandConnection(await primary.open(), channels.publish)
        try:
            subscriber = Subscriber(
                await primary.open(), subscriptions.hear, channels, subscriptions.end_by_itself
            )
        except BaseException:
            await commands.drop()
            raise
        self._attempt.reached = True
        self._attempt.unwanted.clear()  # this generation is new
        lost = f"lost Redis at {self.address.shown}"
        try:
            await until_one_fails(
                commands.write_forever(),
                commands.read_forever(),
                subscriber.write_forever(),
                subscriber.read_forever(),
                self._lead(commands, subscriber, primary.server),
                self._recover(commands),
                self._end_unwanted(),
                primary.watch(self._timing.probe),
            )
        except Exception as error:
            lost = f"{lost}: {error}"
            raise
        finally:
            was_up = self.generations.end()
            self.subscriptions.end()
            await commands.fail(BackplaneUnavailableError(lost))
            await subscriber.drop()
            self.receiver.recovery.interrupted()
            self.receiver.interrupted(self.generation)
            if was_up:
                self._observer.down(self)

    async def _end_unwanted(self) -> None:
        """Wait for :meth:`begin_anew`, then raise."""
        attempt = self._attempt
        await attempt.unwanted.wait()
        raise BackplaneUnavailableError(attempt.why)

    async def _lead(self, commands: CommandConnection, subscriber: Subscriber, server: str) -> None:
        """Bring a generation up, then prove every second that it is not deaf."""
        health = self.health
        await health.check_kind(commands)
        await health.soon(commands.load_scripts())
        await health.hear_time(commands)
        await self.subscriptions.begin(subscriber)
        self.generations.count()
        self._counters.generations += 1
        await self._count_missed(commands, subscriber, server)
        self.generations.begin(commands)
        self._attempt.up_since = asyncio.get_running_loop().time()
        self._raises = False
        self.outage.recover("link")
        self._observer.up(self)
        while True:
            await health.rest()
            resubscribed = self.subscriptions.pop_resubscribed()
            read = await self.subscriptions.read_again(commands, subscriber)
            await self._probe_where_it_is(commands)
            await self.subscriptions.compare(resubscribed, ServerChange.MOVED)
            await self.subscriptions.compare(read, ServerChange.SAME)
            await health.hear_time(commands)
            if read:
                self._report_gap(READ_LATE, self.generations.was_down)
            self._report_gap(SLOTS_MOVED if resubscribed else DROPPED)

    async def _count_missed(
        self, commands: CommandConnection, subscriber: Subscriber, server: str
    ) -> None:
        """Find out how much was published while nothing could be heard."""
        lost = await self._state.state_lost(commands)
        change = self.succession.come_to(server, lost=lost)
        counters = await self.subscriptions.read_counters(commands, subscriber)
        await self._probe(commands)
        await self.subscriptions.compare(counters, change)
        self.succession.settle(asyncio.get_running_loop().time(), self._timing.heartbeat)
        self._report_gap(self.generations.why_ended)

    async def _recover(self, commands: CommandConnection) -> None:
        """Close the gaps in namespaces with a history, and report what has left it."""
        await self.generations.changed()  # what the numbers tell is reported first
        while True:
            await self.receiver.found_targets()
            self._report_gap(self.generations.why_ended, self.generations.was_down)
            await self.receiver.recovery.read(commands)
            self._report_gap(OUTLASTED, self.generations.was_down)

    async def _probe_where_it_is(self, commands: CommandConnection) -> None:
        """Probe; on a cluster the slot of the probe may just have moved, which is no fault."""
        for _ in range(PROBES_LOST):
            try:
                await self._probe(commands)
                return
            except BackplaneUnavailableError as error:
                if not (self._channels.sharded and is_elsewhere(error)):
                    raise
            self._observer.elsewhere()
            await asyncio.sleep(MOVED_PAUSE)
        await self._probe(commands)

    async def _probe(self, commands: CommandConnection) -> None:
        """Hear our own probe, or raise, which ends this generation."""
        channel = self.subscriptions.probed
        try:
            await self.health.probe(commands, channel)
        except BackplaneUnavailableError as error:
            if self._part is not None and is_elsewhere(error):
                self._part.avoid(channel)
            raise
        self.subscriptions.heard_probe(channel)

    def _report_gap(self, cause: str, seconds: float = 0.0) -> None:
        """Tell the observer what was missed, if anything was."""
        gap = self.receiver.take_gap(seconds or self.generations.seconds_down(), cause)
        if gap is not None:
            self._observer.gap(gap)


def _reason(error: Exception) -> BackplaneUnavailableError:
    """The error that ended a generation; one not of Redis or the network is our fault: logged."""
    if isinstance(error, BackplaneUnavailableError):
        return error
    log.error("the session failed by itself", exc_info=error)
    return BackplaneUnavailableError(f"the session failed: {error}")
