"""A service in a history: its store, its queue, its processes, and what can go wrong in each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple, Protocol, cast

from services.bus.errors import DatabaseAway, Refused, Retry
from services.bus.fold import Fold, Record, Work, Write
from services.bus.memory import MemoryStore
from services.bus.shell import Shell
from services.escalation.firing import MARKER, Markers
from services.grid.atlas import Atlas, UnknownProfile
from services.grid.clock import FrozenClock, Instant, moment, plus
from services.grid.events import Event
from services.grid.moving import WrongPlace
from services.grid.profile import Profile
from services.grid.whistles import WrongCall

REPLICAS = 2
"""How many processes each service has."""


class Crash(Exception):
    """The process is gone; only its store and what it has published remain."""


class Seams:
    """Lets a process die at the seam of a step that the history chose, if it chose one."""

    def __init__(self) -> None:
        self._left = 0
        self.loses_last = False

    def arm(self, seam: int = 0, *, loses_last: bool = False) -> None:
        """From now on the process dies at the ``seam``-th seam; at none with 0."""
        self._left = seam
        self.loses_last = loses_last

    def pass_through(self) -> None:
        """A seam: here the process may die."""
        if self._left:
            self._left -= 1
            if not self._left:
                raise Crash


class SkewedClock:
    """The clock of one machine: ``ahead`` seconds before the true time, or behind it."""

    def __init__(self, true: FrozenClock, ahead: float) -> None:
        self._true = true
        self.ahead = ahead
        self._last = (true.now(), plus(true.now(), ahead))

    def now(self) -> Instant:
        """See :class:`services.grid.clock.Clock`."""
        true = self._true.now()
        if true != self._last[0]:
            self._last = (true, plus(true, self.ahead))
        return self._last[1]

    def real(self) -> float:
        """See :class:`services.grid.clock.Clock`."""
        return moment(self.now()).timestamp()

    def real_seconds(self, virtual_seconds: float) -> float:
        """See :class:`services.grid.clock.Clock`."""
        return virtual_seconds


class HostileStore(MemoryStore):
    """A store that may be away, and whose process may die before or after any call.

    ``rival`` is called once before the next write or clearing: what another replica does just
    then. ``writes`` are all that went through, in their order.
    """

    def __init__(self, seams: Seams) -> None:
        super().__init__()
        self._seams = seams
        self._rival: Callable[[], object] | None = None
        self.away = False
        self.writes: list[Write] = []

    def meets(self, rival: Callable[[], object] | None) -> None:
        """What a replica does between the next read and write."""
        self._rival = rival

    @property
    def met(self) -> bool:
        """Whether it met who it was to meet."""
        return self._rival is None

    def read(self, keys: Sequence[str]) -> dict[str, Record]:
        """A read after a seam."""
        self._enter()
        return super().read(keys)

    def write(self, writes: Sequence[Write], written: float) -> set[str]:
        """A write between two seams."""
        self._enter()
        self._meet_rival()
        conflicts = super().write(writes, written)
        self.writes += [write for write in writes if write.key not in conflicts]
        self._seams.pass_through()
        return conflicts

    def clear(self, published: Mapping[str, Sequence[Event]], at: Instant) -> None:
        """A clearing between two seams."""
        self._enter()
        self._meet_rival()
        super().clear(published, at)
        self._seams.pass_through()

    def unpublished(self, before: float, limit: int) -> list[Record]:
        """A query after a seam."""
        self._enter()
        return super().unpublished(before, limit)

    def _enter(self) -> None:
        if self.away:
            raise DatabaseAway("no database")
        self._seams.pass_through()

    def _meet_rival(self) -> None:
        rival, self._rival = self._rival, None
        if rival is not None:
            # It dies or not by itself.
            with suppress(Crash, Refused, Retry, UnknownProfile, WrongPlace, WrongCall):
                rival()


class Bus(Protocol):
    """What a node publishes to, and what the directory says now."""

    atlas: Atlas

    def publish(self, node: Node, events: Sequence[Event]) -> set[str]:
        """See :class:`services.bus.fold.Publisher`."""


class _Line:
    """A node's connection to the bus."""

    def __init__(self, bus: Bus, node: Node) -> None:
        self._bus = bus
        self._node = node

    def publish(self, events: Sequence[Event]) -> set[str]:
        """See :class:`services.bus.fold.Publisher`."""
        return self._bus.publish(self._node, events)


class Reached:
    """Whose markers were read, as the custodians' store keeps it for all of them."""

    def __init__(self, store: HostileStore) -> None:
        self._store = store
        self._at: dict[str, Instant] = {}

    def reach(self, by: str, at: Instant) -> None:
        """See :class:`services.escalation.store.Custodians`."""
        self._database()
        self._at[by] = max(self._at.get(by, at), at)

    def reached(self, by: str) -> Instant | None:
        """See :class:`services.escalation.store.Custodians`."""
        self._database()
        return self._at.get(by)

    def _database(self) -> None:
        if self._store.away:
            raise DatabaseAway("no database")


class Heard:
    """A process's copy of the directory, which may be old; it asks anew for what it must know."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._atlas = bus.atlas

    def atlas(self) -> Atlas:
        """See :class:`services.bus.directory.Follower`."""
        return self._atlas

    def rules_for(self, facts: Mapping[str, Any]) -> Profile:
        """See :class:`services.bus.directory.Follower`."""
        if not self._atlas.knows(facts):
            self.hear()
        return self._atlas.rules_for(facts)

    def hear(self) -> bool:
        """Asks; whether there was anything new."""
        before, self._atlas = self._atlas, self._bus.atlas
        return self._atlas is not before


class Replica:
    """One process of a service: its clock, and what it keeps in memory until it dies.

    It has what :mod:`services.escalation.firing` asks of a custodian's shell.
    """

    def __init__(self, node: Node, number: int, clock: SkewedClock) -> None:
        self.node = node
        self.number = number
        self.clock = clock
        self.ahead = clock.ahead
        self.publisher = node.line
        self.fold = Fold(node.store, node.line, clock)
        self.custodians = node.reached
        self.markers = Markers(clock)
        self.county = Heard(node.bus)

    @property
    def now(self) -> Instant:
        """The time as this process sees it."""
        return self.clock.now()

    def restart(self) -> None:
        """A new process in its place: nothing that was only in memory is left."""
        self.markers = Markers(self.clock)

    def beat(self) -> None:
        """Says that it lives: needs the database."""
        self.custodians.reached(self.markers.by)

    def ring(self) -> None:
        """Nobody sleeps in a history."""

    def works(self, events: Sequence[Event], make: Callable[[Event, Atlas], Work]) -> list[Work]:
        """See :class:`services.bus.shell.Shell`: nothing here is wrong or stays unknown."""
        for event in events:
            if "case" in event.data:
                self.county.rules_for(event.data["case"])
        return [self.knowing(partial(make, event)) for event in events]

    def knowing(self, make: Callable[[Atlas], Work]) -> Work:
        """See :class:`services.bus.shell.Shell`, whose it is."""
        return Shell.knowing(cast(Any, self), make, self.atlas)

    @property
    def atlas(self) -> Atlas:
        """What this process has heard of the county."""
        return self.county.atlas()


class Waiting(NamedTuple):
    """A message in a queue; ``number`` is its place, ``again`` says that it was read before."""

    number: int
    event: Event
    again: bool = False


class Node:
    """One service: a store and a queue that its processes share.

    ``work`` turns an event into work at a time; ``cut`` says that the network between it and
    the broker is down.
    """

    def __init__(
        self,
        bus: Bus,
        name: str,
        seams: Seams,
        *,
        work: Callable[[Event, Instant, Atlas], Work],
        clocks: Sequence[SkewedClock],
    ) -> None:
        self.name = name
        self.bus = bus
        self.work = work
        self.cut = False
        self.queue: list[Waiting] = []
        self.store = HostileStore(seams)
        self.line = _Line(bus, self)
        self.reached = Reached(self.store)
        self.replicas = [Replica(self, number, clock) for number, clock in enumerate(clocks)]

    def hear(self) -> bool:
        """All its processes hear what the directory says; whether there was anything new."""
        heard = [replica.county.hear() for replica in self.replicas]
        return any(heard)

    def readable(self) -> list[Waiting]:
        """What may be read next: anything, but a marker only once all before it was read.

        RabbitMQ keeps a queue's order save for redeliveries, and the custodian's marker stands
        on that: what was not acknowledged comes again before what is behind it. All else may
        come in any order.
        """
        if not any(item.event.type == MARKER for item in self.queue):
            return self.queue
        oldest = min((item.number for item in self.queue if not _may_pass(item)), default=None)
        return [
            item
            for item in self.queue
            if item.event.type != MARKER or oldest is None or item.number < oldest
        ]


def _may_pass(item: Waiting) -> bool:
    """Whether a marker may be read before it: it was read once, or is a marker itself."""
    return item.again or item.event.type == MARKER
