"""Histories: the services' pure functions on a virtual clock and a hostile bus.

Every service runs the same :class:`services.bus.fold.Fold` and the same ``work`` functions
as in production. What differs is around them: the bus hands over any waiting message, in
any order, more than once; a node may crash at each seam of a step, and then has only its
store; a replica of it may do the same work at the same time, so that one of the two loses the
guarded write; desks may be dead for a while.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from random import Random
from typing import Any

from services.bus.errors import BrokerAway, Refused
from services.bus.fold import Fold, Outcome, Record, Work, Write
from services.bus.memory import MemoryStore
from services.dispatch import model as dispatch
from services.escalation import model as escalation
from services.grid.atlas import Atlas
from services.grid.clock import FrozenClock, Instant
from services.grid.events import Event, of_consumer
from services.intake import model as intake
from services.notify import model as notify
from tests.simulator.county import GRID, LEVELS


class Crash(Exception):
    """The process is gone; only its store and what it has published remain."""


class Seams:
    """Decides at each seam of a step whether the process dies there."""

    def __init__(self, random: Random, probability: float) -> None:
        self._random = random
        self.probability = probability

    def pass_through(self) -> None:
        """A seam: here the process may die."""
        if self.probability and self._random.random() < self.probability:
            raise Crash


class CrashingStore(MemoryStore):
    """A store whose process may die before or after any call.

    ``rival`` is called before each write: what another replica does just then.
    """

    def __init__(self, seams: Seams) -> None:
        super().__init__()
        self._seams = seams
        self.rival: Callable[[], None] = lambda: None

    def read(self, keys: Sequence[str]) -> dict[str, Record]:
        """A read between two seams."""
        self._seams.pass_through()
        return super().read(keys)

    def write(self, writes: Sequence[Write], written: float) -> set[str]:
        """A write between two seams."""
        self._seams.pass_through()
        self.rival()
        conflicts = super().write(writes, written)
        self._seams.pass_through()
        return conflicts

    def clear(self, published: Mapping[str, Sequence[Event]], at: Instant) -> None:
        """A clearing between two seams."""
        self._seams.pass_through()
        super().clear(published, at)
        self._seams.pass_through()


class Node:
    """One service's shell: its queue, its fold, and how it turns an event into work."""

    def __init__(self, world: World, name: str, work: Callable[[Event], Work]) -> None:
        self.name = name
        self.work = work
        self.queue: list[bytes] = []
        self.store = CrashingStore(world.seams)
        self.fold = Fold(self.store, world, world.clock)

    def run(
        self,
        works: Sequence[Work],
        written: Callable[[list[Outcome]], None] | None = None,
        *,
        rival: bool = False,
    ) -> list[Outcome]:
        """A step; with a ``rival`` a replica does the same between its read and its write."""

        def other() -> None:
            self.store.rival = lambda: None
            # It gets its own copy of the messages, and dies or not by itself.
            with suppress(Crash):
                self.fold.run(works)

        self.store.rival = other if rival else lambda: None
        try:
            return self.fold.run(works, written)
        finally:
            self.store.rival = lambda: None


class World:
    """All nodes, the bus between them, and everything that was ever published and when.

    :param crashes: how likely a process dies at a seam.
    :param rivals: how likely a replica does the same work at the same time.
    """

    def __init__(
        self, random: Random, atlas: Atlas, crashes: float = 0.0, rivals: float = 0.0
    ) -> None:
        self.random = random
        self.rivals = rivals
        self.atlas = atlas
        self.clock = FrozenClock()
        self.seams = Seams(random, crashes)
        self.published: list[Event] = []
        self.published_at: list[Instant] = []
        self.nodes = {
            "intake": Node(self, "intake", intake.work),
            "escalation": Node(
                self, "escalation", lambda event: escalation.work(event, atlas, self.clock.now())
            ),
            "notify": Node(
                self, "notify", lambda event: notify.work(event, atlas, self.clock.now())
            ),
            **{level: self._desk(level) for level in LEVELS},
        }
        self._takes = {
            name: {kind.name for kind in of_consumer("dispatch" if name in LEVELS else name)}
            for name in self.nodes
        }

    def _desk(self, level: str) -> Node:
        return Node(
            self, level, lambda event: dispatch.work(event, level, self.atlas, self.clock.now())
        )

    def publish(self, events: Sequence[Event]) -> set[str]:
        """The bus: every event reaches every queue bound to it, unless the process dies."""
        confirmed: set[str] = set()
        for event in events:
            self.seams.pass_through()
            self.published.append(event)
            self.published_at.append(self.clock.now())
            for name, node in self.nodes.items():
                addressed = name not in LEVELS or event.key.split(".")[2] == name
                if event.type in self._takes[name] and addressed:
                    node.queue.append(event.body())
            confirmed.add(event.id)
        if self.seams.probability and self.random.random() < self.seams.probability:
            raise BrokerAway("a confirm was lost")
        return confirmed

    def deliver(self, node: Node, most: int = 3) -> None:
        """Hands over some waiting messages in any order, some of them once more later."""
        if not node.queue:
            return
        count = self.random.randint(1, min(most, len(node.queue)))
        batch = [node.queue.pop(self.random.randrange(len(node.queue))) for _ in range(count)]
        if self.seams.probability and self.random.random() < 0.1:
            node.queue.append(self.random.choice(batch))
        acknowledged: list[bool] = []

        def written(_outcomes: object) -> None:
            self.seams.pass_through()
            acknowledged.append(True)

        try:
            works = [node.work(Event.read(body)) for body in batch]
            outcomes = node.run(works, written, rival=self._rival())
        except Crash:
            if not acknowledged:
                node.queue.extend(batch)
            return
        for outcome in outcomes:
            outcome.result()

    def report(self, case: str, urgency: str = "ordinary", division: str = GRID) -> None:
        """Somebody reports a case; a client sends it again until it is answered."""
        report = {
            "title": "路灯不亮",
            "category": "facility",
            "urgency": urgency,
            "source": "app",
            "digest": case,
            "reporter": None,
        }
        place = self.atlas.directory.division(division)
        assert place is not None

        def change(record: Record) -> Any:
            return intake.open_case(
                record.document,
                case,
                report,
                place,
                certain=True,
                profile=self.atlas.current[0],
                atlas=self.atlas,
                now=self.clock.now(),
            )

        self._until_done(lambda: self.nodes["intake"].fold.run([Work(case, change)])[0].result())

    def entries(self, level: str, status: str = "live") -> list[str]:
        """The keys of a desk's docket entries with a state."""
        documents = self.nodes[level].store.documents()
        return [
            key
            for key, document in documents.items()
            if document["status"] == status and document["state"] is not None
        ]

    def act(self, level: str, entry: str, action: str) -> bool:
        """An officer of a desk acts on an entry; whether the desk let them."""

        def change(record: Record) -> Any:
            assert record.document is not None
            now = self.clock.now()
            if action == "acknowledge":
                return dispatch.acknowledge(
                    record.document, f"officer-{level}", "", atlas=self.atlas, now=now
                )
            return dispatch.resolve(
                record.document, f"officer-{level}", "settled", "好", atlas=self.atlas, now=now
            )

        node, rival = self.nodes[level], self._rival()
        try:
            self._until_done(lambda: node.run([Work(entry, change)], rival=rival)[0].result())
        except Refused:
            return False
        return True

    def fire(self, horizon: Instant | None = None) -> None:
        """The custodian acts on what is due by ``horizon``, or by now."""
        node = self.nodes["escalation"]
        now = self.clock.now()
        horizon = horizon or now
        due = [
            case
            for case, document in node.store.documents().items()
            if document["next_due"] is not None and document["next_due"] <= now
        ]
        try:
            works = [escalation.due_work(case, self.atlas, now, horizon) for case in due]
            node.run(works, rival=self._rival())
        except Crash:
            return

    def sweep(self, node: Node) -> None:
        """Publishes what a crash left."""
        try:
            node.fold.sweep(older_than=-1)
        except (Crash, BrokerAway):
            return

    def _rival(self) -> bool:
        return bool(self.rivals) and self.random.random() < self.rivals

    def settle(self, dead: Sequence[str] = ()) -> None:
        """No more crashes: everything is swept and delivered until the bus is quiet."""
        crashes, self.seams.probability = self.seams.probability, 0.0
        alive = [node for name, node in self.nodes.items() if name not in dead]
        while True:
            for node in alive:
                while node.fold.sweep(older_than=-1):
                    pass
                while node.queue:
                    self.deliver(node)
            if not any(node.queue for node in alive):
                break
        self.seams.probability = crashes

    def _until_done(self, act: Callable[[], Any]) -> Any:
        """A client tries again; the third time the process lives."""
        crashes = self.seams.probability
        try:
            for _ in range(2):
                try:
                    return act()
                except Crash:
                    continue
            self.seams.probability = 0.0
            return act()
        finally:
            self.seams.probability = crashes
