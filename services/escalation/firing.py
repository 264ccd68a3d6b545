"""When the custodian acts on deadlines: as soon as they are due, and no sooner than it may.

The custodian fires only what was due by the last marker that came back through its own
queue, plus a small slack: what was answered in time has then been read, even if the
custodian was away in between. The queue has one reader at a time; whose markers it read, all
replicas know from the store, and each fires the cases of its share. A replica goes by its own
markers alone: those of a clock that runs ahead or behind would say something else to it.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import cast

from eventlet.event import Event as GreenEvent
from nameko.extensions import DependencyProvider

from services.bus import logs, metrics
from services.bus.consumer import Batch
from services.bus.errors import Retry
from services.bus.fold import NOTHING, Outcome, Work
from services.escalation import model
from services.escalation.shell import CustodianShell
from services.grid.atlas import Atlas
from services.grid.clock import Clock, Instant, plus, seconds_between
from services.grid.events import Event

log = logs.get(__name__)

BATCH = 300
LANES = 2
"""Into how many parts a process divides its share; each is fired by itself."""
FRESH_SECONDS = 2.0
"""Real seconds: what became due since then has half of the places of a full batch."""
SLACK_SECONDS = 1.5
"""Real seconds: markers go out each second, so without trouble nothing waits for them."""
LATER_SECONDS = 300.0
"""Real seconds until a case that can't be fired is looked at again."""
MARKER = "custodian.marker"
_IDLE_SECONDS = 1.0
_BLOCKED_SECONDS = 0.05


class Markers:
    """How far the custodians' queue was read, by this process's own clock.

    Once that was set back, what its markers said lies ahead, and nothing would fire until then:
    the process goes on under another name, for which nobody has read anything yet.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._begin()

    def _begin(self) -> None:
        self.by = str(uuid.uuid4())
        self._caught_up: Instant | None = None
        self._sent: Instant | None = None

    def next(self) -> Event:
        """The marker to send now."""
        now = self._clock.now()
        if self._sent is not None and now < self._sent:
            log.warning("the clock was set back", before=self._sent, now=now)
            self._begin()
        self._sent = now
        return Event(
            id=str(uuid.uuid4()),
            type=MARKER,
            subject=self.by,
            time=now,
            source="huashi/escalation",
            data={"by": self.by, "at": now},
            key=MARKER,
        )

    def came_back(self, event: Event) -> None:
        """A marker of this process was read: so was everything queued before it."""
        at = min(event.data["at"], self._clock.now())
        self._caught_up = max(self._caught_up or at, at)

    def read(self, reached: Instant | None) -> Instant | None:
        """Up to where the queue was read; none before the first marker is back.

        :param reached: the last of its own markers that another replica has read.
        """
        # What lies ahead was said before the clock was set back: it says nothing.
        latest = plus(self._clock.now(), self._slack())
        known = [at for at in (self._caught_up, reached) if at is not None and at <= latest]
        return max(known, default=None)

    def horizon(self, reached: Instant | None) -> Instant | None:
        """Up to which due time deadlines may fire, see :meth:`read`."""
        read = self.read(reached)
        return None if read is None else min(self._clock.now(), plus(read, self._slack()))

    def _slack(self) -> float:
        return SLACK_SECONDS / self._clock.real_seconds(1)


class _Attachment(DependencyProvider):
    """Makes the markers of a process, and injects them."""

    def setup(self) -> None:
        self._markers = Markers(self.container.config["CLOCK"])

    def get_dependency(self, worker_ctx: object) -> Markers:
        return self._markers


def attach_markers() -> Markers:
    """The markers as an attribute of a nameko service class."""
    return cast(Markers, _Attachment())


def absorb(custodian: CustodianShell, markers: Markers, batch: Batch) -> None:
    """Takes a batch from the custodian's queue, and then the markers among it."""
    events = batch.events
    now = custodian.now

    def work(event: Event, atlas: Atlas) -> Work:
        return NOTHING if event.type == MARKER else model.work(event, atlas, now)

    outcomes = custodian.fold.run(custodian.works(events, work), batch.acknowledge)
    metrics.TIMES_CLAMPED.inc(sum(1 for outcome in outcomes if outcome.answer))
    returned = [event for event in events if event.type == MARKER]
    others: dict[str, Instant] = {}
    for event in returned:
        if event.data["by"] == markers.by:
            markers.came_back(event)
        else:
            others[event.data["by"]] = event.data["at"]
    for by, at in others.items():
        _tell(custodian, by, at)
    custodian.ring()


def _tell(custodian: CustodianShell, by: str, at: Instant) -> None:
    """Another replica: the batch is acknowledged already, so this must not fail."""
    try:
        custodian.custodians.reach(by, at)
    except Retry as error:
        log.warning("another replica doesn't know how far was read", why=str(error))


def beat(custodian: CustodianShell, markers: Markers) -> None:
    """Each second: says that it lives, and sends the queue a marker; deadlines wait for both."""
    try:
        custodian.beat()
        custodian.publisher.publish([markers.next()])
    except Retry as error:
        log.warning("deadlines wait", why=str(error))


def fire(custodian: CustodianShell, markers: Markers, lane: int) -> float:
    """Acts on what is due in one of the lanes, at most ``BATCH`` cases.

    :returns: real seconds until the next is due.
    """
    clock, shards = custodian.clock, custodian.shards[lane::LANES]
    horizon = markers.horizon(custodian.custodians.reached(markers.by))
    if horizon is None or not shards:
        _wait(custodian, lane, shards)
        return _IDLE_SECONDS
    fresh = plus(horizon, -FRESH_SECONDS / clock.real_seconds(1))
    cases = custodian.store.due(horizon, BATCH, shards, fresh)
    if cases:
        atlas, now = custodian.county.atlas(), clock.now()

        def fires(case: str) -> Work:
            return custodian.knowing(lambda atlas: model.due_work(case, atlas, now, horizon), atlas)

        _written(custodian, [fires(case) for case in cases])
    wait = _wait(custodian, lane, shards)
    return 0.0 if len(cases) == BATCH else max(_BLOCKED_SECONDS, wait)


def _wait(custodian: CustodianShell, lane: int, shards: Sequence[int]) -> float:
    """Real seconds until the next of these is due; measures for how long one is overdue.

    Also in a storm, and while nothing may fire: there it counts.
    """
    due, clock = custodian.store.next_due(shards), custodian.clock
    wait = _IDLE_SECONDS
    if due is not None:
        wait = clock.real_seconds(seconds_between(clock.now(), due))
    metrics.DEADLINES_OVERDUE.labels(str(lane)).set(max(0.0, -wait))
    return wait


def _written(custodian: CustodianShell, works: list[Work]) -> None:
    """Fires a batch; returns when it is written, and lets it be published meanwhile.

    :raises Retry: the database is away.
    """
    written = GreenEvent()

    def run() -> None:
        try:
            _run(custodian, works, written)
        except Exception as error:
            if written.ready():
                log.exception("failed after deadlines were written")
            else:
                written.send_exception(error)

    # As many at most as keep the broker busy: when it is slow, firing waits here.
    custodian.firing.spawn_n(run)
    written.wait()


def _run(custodian: CustodianShell, works: list[Work], written: GreenEvent | None = None) -> None:
    """One case that can't be fired is put off, and takes no other along."""
    clock = custodian.clock

    def on_disk(_outcomes: list[Outcome]) -> None:
        if written is not None and not written.ready():
            written.send()

    try:
        outcomes = custodian.fold.run(works, on_disk)
    except Retry:
        raise
    except Exception:
        if len(works) > 1:
            middle = len(works) // 2
            _run(custodian, works[:middle])
            _run(custodian, works[middle:])
            on_disk([])
            return
        metrics.DEADLINES_FAILED.inc()
        log.exception("a deadline can't be fired and is put off", case=works[0].key)
        at = plus(clock.now(), LATER_SECONDS / clock.real_seconds(1))
        custodian.fold.run([model.later_work(works[0].key, at)], on_disk)
        return
    for outcome in outcomes:
        _count(clock, outcome)


def _count(clock: Clock, outcome: Outcome) -> None:
    fired = outcome.answer or ()
    facts = outcome.document["facts"] if outcome.document is not None else {}
    mode = "emergency" if facts.get("emergency") else "ordinary"
    for item in fired:
        level = item["address"]["level"]
        kind, due = item["deadline"]["kind"], item["deadline"]["due"]
        late = max(0.0, clock.real_seconds(seconds_between(due, item["fired_at"])))
        metrics.DEADLINES_FIRED.labels(level, kind, mode).inc()
        metrics.DEADLINE_LATENESS.labels(level, kind, mode).observe(late)
        case = (outcome.document or {})["case"]
        log.info("deadline fired", case=case, level=level, kind=kind, due=due, late_seconds=late)
