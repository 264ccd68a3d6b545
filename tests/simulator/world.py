"""Histories: the services' pure functions on a virtual clock and a hostile bus.

Every service runs the same :class:`services.bus.fold.Fold` and the same ``work`` functions
as in production, the custodian its markers too. What differs is around them: the bus hands
over any waiting message, in any order, more than once; it is away for a while, or cannot
reach a service; a database is away; a process may die at each seam of a step, and then has
only its store; a replica of it may do the same work at the same time, so that one of the two
loses the guarded write; every process has its own clock; desks may be dead for a while.

Nothing here is random: a history says what happens (``history.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache, partial
from typing import Any, NamedTuple, cast

from services.bus.consumer import Batch
from services.bus.errors import BrokerAway, Refused, Retry
from services.bus.fold import Decision, Document, Outcome, Work
from services.dispatch import calls
from services.dispatch import model as dispatch
from services.escalation import duplicates, firing, switching
from services.escalation import model as escalation
from services.grid import whistles
from services.grid.atlas import Atlas, UnknownProfile
from services.grid.clock import FrozenClock, Instant, plus
from services.grid.events import Event, of_consumer
from services.grid.events.bindings import Incoming
from services.grid.moving import WrongPlace
from services.grid.whistles import WrongCall
from services.intake import acting, closing, feedback, linking, updates
from services.intake import model as intake
from services.notify import model as notify
from tests.simulator.county import GRID, LEVELS, PLACES, TEAM, UNIT
from tests.simulator.nodes import REPLICAS, Crash, Node, Replica, Seams, SkewedClock, Waiting

NODES = ("intake", "escalation", "notify", *LEVELS)

ACTIONS: dict[str, Callable[..., Decision]] = {
    "acknowledge": lambda entry, by, **at: dispatch.acknowledge(entry, by, "", **at),
    "resolve": lambda entry, by, **at: dispatch.resolve(entry, by, "settled", "好", **at),
    "suspend": lambda entry, by, **at: dispatch.suspend(entry, by, "waiting", "", **at),
    "resume": lambda entry, by, **at: dispatch.resume(entry, by, "", **at),
    "extend": lambda entry, by, **at: dispatch.ask_extension(entry, by, "1d", "路远", **at),
    "note": lambda entry, by, **at: dispatch.note(
        entry, by, f"进展 {_acts(entry)}", step=_next_step(entry), **at
    ),
    "escalate": lambda entry, by, **at: dispatch.request(entry, by, "escalate", "超出职权", **at),
    "delegate": lambda entry, by, **at: dispatch.request(
        entry, by, "delegate", "就近处理", to=_below(entry), authorise=_gives(entry, **at), **at
    ),
    "transfer": lambda entry, by, **at: dispatch.request(
        entry, by, "transfer", "不属本村", to=_beside(entry), **at
    ),
    "return": lambda entry, by, **at: dispatch.request(entry, by, "return", "办不了", **at),
    "whistle": lambda entry, by, **at: dispatch.whistle(
        entry, by, _uncalled(entry), f"联合处置 {_acts(entry)}", **at
    ),
    "release": lambda entry, by, **at: dispatch.release(
        entry, by, *_longest_there(entry), "来得快", **at
    ),
}
"""What an officer of a desk can do, by name: ``(entry, by, *, atlas, now) -> Decision``."""

TAKES = {
    name: {kind.name for kind in of_consumer("dispatch" if name in LEVELS else name)}
    for name in NODES
}
"""The types of event that each node reads."""

_EVER = -1e9
"""Real seconds: a sweep takes whatever is unpublished, however young."""


def _acts(entry: Document) -> int:
    return int(entry["state"]["token"]["seq"])


def _next_step(entry: Document) -> str | None:
    """The next step of its procedure, if one binds; now and then the one after it."""
    missing = dispatch.missing_steps(entry)
    return missing[-1 if _acts(entry) % 4 == 3 else 0]["id"] if missing else None


def _gives(entry: Document, *, atlas: Atlas, **_at: Any) -> bool:
    """Now and then, where the profile lets a level do so, the authority to settle it."""
    rule, level = atlas.rules_for(entry["facts"]).authority, entry["state"]["address"]["level"]
    return rule is not None and rule.level == level and _acts(entry) % 2 == 1


def _below(entry: Document) -> dict[str, Any]:
    """One level down, now here and now there."""
    address = entry["state"]["address"]
    level = LEVELS[LEVELS.index(address["level"]) - 1]
    return {"division": PLACES[level][entry["hop"] % 2]}


def _beside(entry: Document) -> dict[str, Any]:
    """The other place of its level; at the township the unit, or from it the desk itself."""
    address = entry["state"]["address"]
    if address["level"] == "township" and address["unit"] is None:
        return {"unit": UNIT}
    here, there = PLACES[address["level"]]
    return {"division": there if address["division"] == here else here}


def _uncalled(entry: Document) -> list[str]:
    """Whom to call: one unit, or both, that are not there; now this, now that."""
    there = {item["unit"] for item in whistles.standing(entry["state"])}
    others = [unit for unit in (UNIT, TEAM) if unit not in there]
    return others[: 1 + _acts(entry) % 2] or [UNIT]


def _longest_there(entry: Document) -> tuple[str, int | None]:
    """Whom to release, and how it did; who was never called if nobody is there."""
    state = entry["state"]
    unit = next((str(item["unit"]) for item in whistles.standing(state)), UNIT)
    return unit, None if unit == state["address"].get("unit") else 4


class Sent(NamedTuple):
    """An event that was published: when by the true time, and how it looked on the bus."""

    event: Event
    at: Instant
    body: bytes


@dataclass
class Step:
    """How one step of a history goes: which process does it, and what befalls it.

    ``seam``: it dies at this seam. ``loses_last``: the last event does not reach the broker.
    ``rival``: the other replica does the same between its read and its write.
    """

    replica: int = 0
    seam: int = 0
    loses_last: bool = False
    rival: bool = False
    failed: bool = False
    said: list[str] = field(default_factory=list)

    def fails(self, how: str) -> None:
        """It did not come to its end."""
        self.failed = True
        self.seam = 0
        self.said.append(how)


@lru_cache(maxsize=1024)
def _read(body: bytes) -> Event:
    """A message is validated once, not by each of its readers: no service changes an event."""
    return Event.read(body)


class World:
    """All nodes, the bus between them, and everything that was ever published and when.

    :param ahead: by how many seconds the clocks of a node's processes run ahead; 0 for others.
    :param dead: desks that neither read nor act, until they are taken out.
    """

    def __init__(
        self,
        atlas: Atlas,
        ahead: Mapping[str, Sequence[float]] | None = None,
        dead: Sequence[str] = (),
    ) -> None:
        self.atlas = atlas
        self.dead = tuple(dead)
        self.clock = FrozenClock()
        self.seams = Seams()
        self.broker_away = False
        self.published: list[Sent] = []
        self._number = 0
        ahead = ahead or {}
        self.nodes = {
            name: Node(
                self,
                name,
                self.seams,
                work=self._work(name),
                clocks=[SkewedClock(self.clock, by) for by in ahead.get(name, [0.0] * REPLICAS)],
            )
            for name in NODES
        }

    def _work(self, name: str) -> Callable[[Event, Instant, Atlas], Work]:
        if name == "intake":
            return lambda event, now, atlas: intake.work(event, atlas, now)
        if name in LEVELS:
            return lambda event, now, atlas: dispatch.work(event, name, atlas, now)
        if name == "notify":
            return lambda event, now, atlas: notify.work(event, (), atlas, now)
        return lambda event, now, atlas: escalation.work(event, atlas, now)

    @property
    def alive(self) -> list[Node]:
        """The nodes that are not dead."""
        return [node for name, node in self.nodes.items() if name not in self.dead]

    def publish(self, node: Node, events: Sequence[Event]) -> set[str]:
        """The bus: every event reaches every queue bound to it, unless the process dies."""
        if self.broker_away or node.cut:
            raise BrokerAway("no connection")
        sent = list(events)
        if self.seams.loses_last:
            self.seams.loses_last = False
            sent.pop()
        for event in sent:
            self.seams.pass_through()
            if event.type == firing.MARKER:
                # Said each second and by nobody else: it need not be written and read.
                self._queue(node, event)
                continue
            body = event.body()
            self.published.append(Sent(event, self.clock.now(), body))
            for name in _takers(event.type, event.key.split(".")[2]):
                self._queue(self.nodes[name], _read(body))
        if events and not sent:
            raise BrokerAway("nothing was confirmed")
        return {event.id for event in sent}

    def _queue(self, node: Node, event: Event, *, again: bool = False) -> None:
        self._number += 1
        node.queue.append(Waiting(self._number, event, again))

    def reachable(self, node: Node) -> bool:
        """Whether messages get to a node."""
        return not (self.broker_away or node.cut)

    def read(
        self,
        node: Node,
        pick: Callable[[int], int] = lambda _count: 0,
        most: int = 3,
        step: Step | None = None,
        *,
        again: bool = False,
    ) -> list[Event]:
        """A process reads some waiting messages; ``pick`` says which of so many is next.

        What it did not acknowledge waits on. With ``again`` the first comes once more, later.

        :returns: the messages that it read.
        """
        step = step or Step()
        batch: list[Waiting] = []
        while self.reachable(node) and len(batch) < most:
            readable = node.readable()
            if not readable:
                break
            batch.append(readable[pick(len(readable))])
            node.queue.remove(batch[-1])
        if not batch:
            return []
        events = [item.event for item in batch]
        if again and events[0].type != firing.MARKER:
            self._queue(node, events[0], again=True)
        acknowledged: list[bool] = []

        def acknowledge(outcomes: Sequence[Outcome]) -> None:
            self.seams.pass_through()
            for outcome in outcomes:
                outcome.result()
            acknowledged.append(True)

        self._done(step, node, lambda replica: self._absorb(replica, events, acknowledge))
        if not acknowledged:
            node.queue += batch
        return events

    def _absorb(
        self,
        replica: Replica,
        events: Sequence[Event],
        acknowledge: Callable[[Sequence[Outcome]], None],
    ) -> None:
        node = replica.node
        if node.name == "escalation":
            batch = Batch(events, acknowledge, lambda: False)
            firing.absorb(cast(Any, replica), replica.markers, batch)
            return
        works = replica.works(events, lambda event, atlas: node.work(event, replica.now, atlas))
        replica.fold.run(works, acknowledge)

    def report(
        self,
        case: str,
        urgency: str = "ordinary",
        division: str = GRID,
        step: Step | None = None,
        category: str = "facility",
        *,
        promised: float | None = None,
    ) -> bool:
        """Somebody reports a case; a client sends it again until it is answered.

        :param promised: another system has promised an answer in so many seconds.
        """
        report = {
            "title": "路灯不亮",
            "category": category,
            "urgency": urgency,
            "source": "app",
            "digest": case,
            "reporter": None,
        }
        if promised is not None:
            report |= {"respond_by": plus(self.clock.now(), promised), "inbound": f"hotline:{case}"}
        place = self.atlas.directory.division(division)
        assert place is not None

        def change(document: Document | None, replica: Replica) -> Decision:
            return intake.open_case(
                document,
                case,
                report,
                place,
                certain=True,
                profile=replica.atlas.current[0],
                atlas=replica.atlas,
                now=replica.now,
            )

        return self._client(step or Step(), self.nodes["intake"], case, change)

    def entries(self, level: str, status: str = "live") -> list[str]:
        """The keys of a desk's docket entries with a state."""
        documents = self.nodes[level].store.documents()
        return [
            key
            for key, document in documents.items()
            if document["status"] == status and document["state"] is not None
        ]

    def act(self, level: str, entry: str, action: str, step: Step | None = None) -> bool:
        """An officer of a desk acts on an entry; whether the desk did it."""

        def change(document: Document | None, replica: Replica) -> Decision:
            by, at = f"officer-{level}", {"atlas": replica.atlas, "now": replica.now}
            return ACTIONS[action](document, by, **at)

        return self._client(step or Step(), self.nodes[level], entry, change)

    def asked(self, level: str) -> list[str]:
        """The keys of what a desk is asked for and has not answered."""
        documents = self.nodes[level].store.documents()
        return [key for key, document in documents.items() if document["status"] == "asked"]

    def answer(self, level: str, asked: str, *, granted: bool, step: Step | None = None) -> bool:
        """An officer of the level above grants an extension or refuses it."""

        def change(document: Document | None, replica: Replica) -> Decision:
            by, at = f"officer-{level}", {"atlas": replica.atlas, "now": replica.now}
            return dispatch.answer_extension(document or {}, by, "", granted=granted, **at)

        return self._client(step or Step(), self.nodes[level], asked, change)

    def calls(self, level: str) -> list[str]:
        """The keys of calls of a desk's units that are not over."""
        documents = self.nodes[level].store.documents()
        return [
            key for key, item in documents.items() if "call" in item and item["status"] != "ended"
        ]

    def answer_call(self, level: str, key: str, what: str, step: Step | None = None) -> bool:
        """An officer of a unit checks in, or says that it is done."""
        act = {"check_in": calls.check_in, "finish": calls.finish}[what]

        def change(document: Document | None, replica: Replica) -> Decision:
            by = f"officer-{(document or {})['call']['unit']}"
            return act(document or {}, by, "到了", atlas=replica.atlas, now=replica.now)

        return self._client(step or Step(), self.nodes[level], key, change)

    def reopen(self, case: str, step: Step | None = None) -> bool:
        """Somebody is not satisfied; whether the case was taken up again."""

        def change(document: Document | None, replica: Replica) -> Decision:
            round_ = (document or {})["state"]["token"]["round"]
            why, at = f"又坏了 {round_}", {"atlas": replica.atlas, "now": replica.now}
            return intake.reopen(document or {}, "operator", why, **at)

        return self._client(step or Step(), self.nodes["intake"], case, change)

    def feedback(self, case: str, *, satisfied: bool, step: Step | None = None) -> bool:
        """Who reported a case says whether it helped; whether that was taken."""
        said = {"satisfied": satisfied, "score": 5 if satisfied else 1, "comment": "张三说的"}

        def change(document: Document | None, replica: Replica) -> Decision:
            at = {"atlas": replica.atlas, "now": replica.now}
            return feedback.give(document or {}, said, feedback.BY_CODE, **at)

        return self._client(step or Step(), self.nodes["intake"], case, change)

    def withdraw(self, case: str, step: Step | None = None) -> bool:
        """Who reported a case takes it back; whether that was taken."""

        def change(document: Document | None, replica: Replica) -> Decision:
            at = {"atlas": replica.atlas, "now": replica.now}
            return intake.withdraw(document or {}, "portal", "自己解决了", **at)

        return self._client(step or Step(), self.nodes["intake"], case, change)

    def update(self, case: str, number: int, step: Step | None = None) -> bool:
        """The system that reported a case tells more of it; whether that was taken."""
        said = {"text": f"更新{number}", "attachments": []}

        def change(document: Document | None, replica: Replica) -> Decision:
            at = {"atlas": replica.atlas, "now": replica.now}
            identity = f"update-{number}"
            return updates.update(document or {}, identity, said, "system.hotline", **at)

        return self._client(step or Step(), self.nodes["intake"], case, change)

    def of_units(self) -> list[tuple[str, str]]:
        """Each case with each unit that has, or had, to do with it."""
        documents = self.nodes["intake"].store.documents()
        return [(case, unit) for case, item in documents.items() for unit in acting.units(item)]

    def is_called(self, case: str, unit: str) -> bool:
        """Whether a unit is called to a case, as the register knows."""
        document = self.nodes["intake"].store.documents()[case]
        there = whistles.standing(document["state"])
        return any(
            item["unit"] == unit for item in there if item["id"] in document.get("called", ())
        )

    def ask(self, of: tuple[str, str], act: str, number: int, step: Step | None = None) -> bool:
        """The system of a unit acts for it; whether the unit's desk was asked."""
        case, unit = of
        identity = f"{case}-{unit}-{act}-{number}"
        event = Incoming(identity, "patrol", f"huashi.case.{act}.v1", None)
        said = {"act": act, "note": identity}
        if act == "resolve":
            said["outcome"] = "settled"

        def change(document: Document | None, replica: Replica) -> Decision:
            of = {"system": "patrol", "by": "system.patrol"}
            at = {"atlas": replica.atlas, "now": replica.now}
            there = replica.atlas.directory.units[unit]
            return acting.ask(document or {}, event, identity, said, there, **of, **at)

        return self._client(step or Step(), self.nodes["intake"], case, change)

    def close(self, step: Step | None = None) -> int:
        """Intake closes what nobody has answered in time; returns how many it looked at."""
        step = step or Step()
        looked: list[str] = []

        def closes(replica: Replica) -> None:
            now, atlas = replica.now, replica.atlas
            due = [
                case
                for case, document in replica.node.store.documents().items()
                if document.get("close_due") is not None and document["close_due"] <= now
            ]
            looked.extend(due)
            replica.fold.run([closing.due_work(case, atlas, now) for case in due])

        self._done(step, self.nodes["intake"], closes)
        return len(looked)

    def migrate(self, case: str, version: str, step: Step | None = None) -> bool:
        """An operator brings a case under another version of its profile."""

        def run(replica: Replica) -> None:
            atlas, now = replica.atlas, replica.now
            work = Work(case, lambda record: escalation.migrate(record, version, atlas, now))
            replica.fold.run([work])[0].result()

        return self._asked(step or Step(), self.nodes["escalation"], run)

    def switch(self, division: str) -> bool:
        """An operator switches a division to emergency mode, or back; whether it is on now."""
        known = self.atlas.emergencies.get(division)
        self.atlas = self.atlas.switched(division, on=known is None or not known.on)
        return self.atlas.emergencies[division].on

    def follow(self, step: Step | None = None) -> int:
        """A custodian brings cases in flight over; returns how many it looked at."""
        step = step or Step()
        looked: list[str] = []

        def follows(replica: Replica) -> None:
            if switching.is_behind(cast(Any, replica), replica.markers):
                return
            atlas = replica.atlas
            found = replica.node.store.documents().items()
            held = [
                (case, item) for case, item in found if item["state"]["token"]["stage"] == "held"
            ]
            cases = [case for case, item in held if escalation.switches(item["facts"], atlas)]
            looked.extend(cases)
            replica.fold.run(switching.works(cases, atlas, replica.now))

        self._done(step, self.nodes["escalation"], follows)
        return len(looked)

    def supervise(self, case: str, step: Step | None = None) -> bool:
        """The county wants a case to be supervised; whether it is."""

        def change(document: Document | None, replica: Replica) -> Decision:
            round_ = (document or {"state": {"token": {"round": 0}}})["state"]["token"]["round"]
            why, at = f"久拖不决 {round_}", {"atlas": replica.atlas, "now": replica.now}
            return escalation.supervise(document, "county", why, **at)

        return self._client(step or Step(), self.nodes["escalation"], case, change)

    def merge(self, cases: tuple[str, str], step: Step | None = None) -> bool:
        """Somebody finds that two cases are one matter; whether they are merged."""

        def run(replica: Replica) -> None:
            def read(wanted: Sequence[str]) -> dict[str, Document]:
                records = replica.node.store.read(wanted)
                return {case: item.document for case, item in records.items() if item.document}

            def act(work: Work) -> Document | None:
                done: Document | None = replica.fold.run([work])[0].result()
                return done

            duplicates.merged(
                read,
                act,
                cases,
                by="officer",
                reason="同一盏灯",
                atlas=replica.atlas,
                now=replica.now,
            )

        return self._asked(step or Step(), self.nodes["escalation"], run)

    def link(self, cases: tuple[str, str], *, on: bool, step: Step | None = None) -> bool:
        """Somebody finds that two cases have to do with each other, or not."""
        first, second = linking.decides(*cases)

        def change(document: Document | None, replica: Replica) -> Decision:
            at = {"atlas": replica.atlas, "now": replica.now}
            return linking.link(document or {}, second, "officer", on=on, **at)

        return self._client(step or Step(), self.nodes["intake"], first, change)

    def watch(self, case: str, watcher: str, *, away: bool, step: Step | None = None) -> bool:
        """Somebody wants to be told of what happens to a case, or no longer."""

        def change(document: Document | None, replica: Replica) -> Decision:
            at = {"atlas": replica.atlas, "now": replica.now}
            added, removed = ([], [watcher]) if away else ([watcher], [])
            return intake.watch(document or {}, "officer", added, removed, **at)

        return self._client(step or Step(), self.nodes["intake"], case, change)

    def beat(self, step: Step | None = None) -> None:
        """A custodian says that it lives, and sends its queue a marker."""
        step = step or Step()

        def beats(replica: Replica) -> None:
            firing.beat(cast(Any, replica), replica.markers)

        self._done(step, self.nodes["escalation"], beats)

    def fire(self, step: Step | None = None, *, alone: bool = False) -> int:
        """A custodian acts on what is due in its share, by how far the queue was read.

        ``alone``: it takes its fellows for dead.

        :returns: how many cases it looked at.
        """
        step = step or Step()
        looked: list[str] = []

        def fires(replica: Replica) -> None:
            horizon = replica.markers.horizon(replica.custodians.reached(replica.markers.by))
            if horizon is None:
                return
            due = self._due(replica, horizon, alone=alone or step.rival)
            looked.extend(due)
            now = replica.now

            def fired(case: str) -> Work:
                make = partial(escalation.due_work, case)
                return replica.knowing(lambda atlas: make(atlas, now, horizon))

            replica.fold.run([fired(case) for case in due])

        self._done(step, self.nodes["escalation"], fires)
        return len(looked)

    def _due(self, replica: Replica, horizon: Instant, *, alone: bool) -> list[str]:
        living = [str(replica.number)] if alone else [str(number) for number in range(REPLICAS)]
        shards = escalation.share(str(replica.number), living)
        return [
            case
            for case, document in replica.node.store.documents().items()
            if document["shard"] in shards
            and document["next_due"] is not None
            and document["next_due"] <= horizon
        ]

    def second(self, step: Step | None = None) -> None:
        """What custodians do each second: both beat, one reads the queue to its end, both fire."""
        step = step or Step()
        node = self.nodes["escalation"]
        other = Step(replica=1 - step.replica)
        self.beat(step)
        self.beat(other)
        while self.read(node, step=step) and not step.failed:
            pass
        self.fire(step)
        self.fire(other)

    def sweep(self, node: Node, step: Step | None = None) -> int:
        """Publishes what a crash or an outage left; returns how much."""
        count = []
        self._done(step or Step(), node, lambda replica: count.append(replica.fold.sweep(_EVER)))
        return count[0] if count else 0

    def repair(self) -> bool:
        """All that was away is there again; whether anything was."""
        nodes = self.nodes.values()
        away = self.broker_away or any(node.cut or node.store.away for node in nodes)
        self.broker_away = False
        for node in nodes:
            node.cut = False
            node.store.away = False
        return away

    def settle(self, pick: Callable[[int], int] = lambda _count: 0) -> None:
        """Nothing goes wrong any more: everything is swept and read until the bus is quiet."""
        self.repair()
        self.seams.arm()
        while True:
            for node in self.alive:
                while node.store.owes() and self.sweep(node):
                    pass
                while self.read(node, pick):
                    pass
                node.hear()
            if any(node.queue for node in self.alive):
                continue
            self.beat()
            while self.read(self.nodes["escalation"], pick):
                pass
            if not self.follow():
                return

    def _client(
        self,
        step: Step,
        node: Node,
        key: str,
        change: Callable[[Document | None, Replica], Decision],
    ) -> bool:
        """A person's action: sent again if the process dies, given up if it can't be done."""

        def run(replica: Replica) -> None:
            work = Work(key, lambda record: change(record.document, replica))
            replica.fold.run([work])[0].result()

        return self._asked(step, node, run)

    def _asked(self, step: Step, node: Node, run: Callable[[Replica], object]) -> bool:
        for _ in range(2):
            try:
                self._step(step, node, run)
            except Crash:
                step.fails(f"dies at seam {step.seam}, and the client sends it again")
            except (Refused, Retry, UnknownProfile, WrongPlace, WrongCall) as error:
                step.fails(f"can't: {error}")
                return False
            else:
                return True
        raise AssertionError("it dies only once")

    def _done(self, step: Step, node: Node, act: Callable[[Replica], object]) -> None:
        """A step of a process that nobody waits for: it dies, or waits for what is away."""
        try:
            self._step(step, node, act)
        except Crash:
            step.fails(f"dies at seam {step.seam}")
        except Retry as error:
            step.fails(f"waits: {error}")

    def _step(self, step: Step, node: Node, act: Callable[[Replica], object]) -> None:
        replica = node.replicas[step.replica]
        other = node.replicas[1 - step.replica]
        self.seams.arm(step.seam, loses_last=step.loses_last)
        node.store.meets((lambda: act(other)) if step.rival else None)
        try:
            act(replica)
        except Crash:
            replica.restart()
            raise
        finally:
            if step.rival and node.store.met:
                step.said.append("a rival does the same meanwhile")
            if step.loses_last and not self.seams.loses_last:
                step.said.append("its last event is lost")
            node.store.meets(None)
            self.seams.arm()


@cache
def _takers(kind: str, level: str) -> list[str]:
    """Who reads a type of event: a desk what is addressed to its level, the others any level's."""
    return [name for name in NODES if kind in TAKES[name] and (name not in LEVELS or name == level)]
