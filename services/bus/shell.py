"""The thin shell around a service's fold: what it is connected to, and how it starts.

A service class has one, ``shell = attach(make)``, and its entrypoints use what it offers:
``fold``, ``store``, ``county`` (the directory that it follows), ``clock``, ``config``.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar, cast

from nameko.extensions import DependencyProvider

from services.bus import logs, metrics
from services.bus.alarm import Bell
from services.bus.audit import Auditor, AuditStore, Trail
from services.bus.auth import ApiKeys
from services.bus.config import Config
from services.bus.consumer import Batch
from services.bus.directory import Follower, wanted
from services.bus.errors import DatabaseAway, Defer, Reject, Retry
from services.bus.fold import Decision, Document, Fold, Record, Work, failing
from services.bus.inbound import Rooms
from services.bus.publisher import ConfirmingPublisher
from services.bus.store import MongoStore, connect
from services.bus.topology import instance
from services.grid.atlas import Atlas, UnknownProfile
from services.grid.clock import Clock, Instant, monotonic
from services.grid.events import Event

log = logs.get(__name__)

StoreT = TypeVar("StoreT", bound=MongoStore)
ShellT = TypeVar("ShellT", bound="Shell[Any]")

# What is younger is being published by whoever wrote it.
_SWEEP_AFTER_SECONDS = 5.0
_LONGEST_PAUSE_SECONDS = 5.0
# So long a whole queue waits for a profile that one of its events needs, and not again for a
# while: an event with a profile that never comes must not hold up the others.
_WAIT_SECONDS = 3.0
_WAIT_AGAIN_SECONDS = 300.0


class Shell(Generic[StoreT]):
    """What a service process is connected to.

    Nothing is asked of the broker or the database when it is made; :meth:`until_prepared`
    makes the indexes and, if nothing is known of the county yet, asks for the directory.
    Until that is done :attr:`fold` raises :class:`Retry`, so that inputs wait instead of
    failing.

    :param store: the class of the service's main store.
    :param directory: the collection that keeps the directory; may hold ``{level}`` too.
    """

    def __init__(self, config: Config, store: type[StoreT], directory: str) -> None:
        self.config = config
        self.clock: Clock = config.clock
        self.database = connect(config.mongodb_uri, config.instance)
        self.publisher = ConfirmingPublisher(config.amqp_uri)
        audit = AuditStore(self.database[instance(config.service, config.level).audit])
        self.auditor = Auditor(audit, self.clock)
        self.store = store(self.database[store.name.format(level=config.level)])
        self._fold = Fold(self.store, self.publisher, self.clock)
        entries = MongoStore(self.database[directory.format(level=config.level)])
        self.directory_fold = Fold(entries, self.publisher, self.clock)
        self.county = Follower(self.directory_fold, entries, self.clock)
        self.api_keys: ApiKeys | None = None
        """The keys of other systems, where a service knows them."""
        self.rooms: Rooms | None = None
        """How much of other systems may be taken, where a service reads them."""
        self.ring: Callable[[], None] = lambda: None
        """Wakes this process's alarms, for something may be due sooner now."""
        self._ready = False
        self._closed = False
        self._waited_from = float("-inf")

    def close(self) -> None:
        """Ends the connections."""
        self._closed = True
        self.publisher.close()
        self.database.client.close()

    def prepare(self) -> None:
        """What has to be done once before any input; may be called again.

        A service that knows nothing of its county asks for the directory.
        """
        if not self.county.atlas().profiles:
            boot = f"{self.clock.real():.6f}"
            self.publisher.publish([wanted(self.config.instance, self.now, boot)])

    @property
    def is_ready(self) -> bool:
        """Whether it has started."""
        return self._ready

    @property
    def fold(self) -> Fold:
        """The service's fold.

        :raises Retry: the service is still starting.
        """
        if not self._ready:
            raise Retry("the service is still starting")
        return self._fold

    @property
    def now(self) -> Instant:
        """The virtual time."""
        return self.clock.now()

    def works(self, events: Sequence[Event], make: Callable[[Event, Atlas], Work]) -> list[Work]:
        """What ``make`` makes of each event.

        An event whose case's profile has not arrived yet waits by itself, and one that
        contradicts its profile is rejected.

        :raises Retry: a profile is likely to arrive in a moment: all wait for it together.
        """
        under = {_under(event): event.data["case"] for event in events if "case" in event.data}
        missing = {name: why for name, facts in under.items() if (why := self._missing(facts))}
        atlas = self.county.atlas()
        if missing and (not atlas.profiles or self._in_a_moment()):
            raise Retry("; ".join(missing.values()))

        def work(event: Event) -> Work:
            if "case" in event.data:
                early = missing.get(_under(event))
                wrong = None if early else atlas.contradiction(event.data)
                if early or wrong:
                    return failing(Defer(early) if early else Reject("contradiction", str(wrong)))
            return _deferred(self.knowing(lambda atlas: make(event, atlas), atlas))

        return [work(event) for event in events]

    def knowing(self, make: Callable[[Atlas], Work], atlas: Atlas) -> Work:
        """What ``make`` makes of an atlas; of a newer one where a document needs it.

        Another replica may have heard of a profile or an emergency before this one, and have
        written a document that is under it.

        :raises UnknownProfile: (by its change) nobody has heard of it.
        """
        made = make(atlas)

        def change(record: Record) -> Decision:
            try:
                return made.change(record)
            except UnknownProfile:
                facts = (record.document or {}).get("facts")
                if facts is None:
                    raise
            self.county.rules_for(facts)
            return make(self.county.atlas()).change(record)

        return Work(made.key, change)

    def _in_a_moment(self) -> bool:
        """Whether to wait for the directory's queue, which may just be behind; not often."""
        now = monotonic()
        if now - self._waited_from > _WAIT_AGAIN_SECONDS:
            self._waited_from = now
        return now - self._waited_from < _WAIT_SECONDS

    def _missing(self, facts: Mapping[str, Any]) -> str | None:
        """Why the rules that a case is under can't be used yet, if they can't."""
        try:
            self.county.rules_for(facts)
        except UnknownProfile as error:
            return str(error)
        return None

    def absorb_directory(self, batch: Batch) -> None:
        """Takes ``directory.*`` events into this service's copy."""
        works = self.county.absorb(batch.events)
        self.county.absorbed(self.directory_fold.run(works, batch.acknowledge))

    def act(self, work: Work, trail: Trail) -> Any:
        """Runs one action of a person, tells the trail what it changed, returns its answer.

        :raises Refused: it is not possible now.
        """
        before: Document | None = None

        def change(record: Record) -> Decision:
            nonlocal before
            before = record.document
            return work.change(record)

        outcome = self.fold.run([Work(work.key, change)])[0]
        answer = outcome.result()
        trail.changed(before, outcome.document)
        return answer

    def sweep(self) -> None:
        """Publishes what a crash or an outage left unpublished."""
        try:
            count = self.fold.sweep(_SWEEP_AFTER_SECONDS)
            count += self.directory_fold.sweep(_SWEEP_AFTER_SECONDS)
            now = self.clock.real()
            oldest = self.store.unpublished(before=now, limit=1)
        except Retry as error:
            metrics.CONNECTED.labels("database").set(not isinstance(error, DatabaseAway))
            metrics.SWEEPS.labels("away").inc()
            log.warning("sweep put off", why=str(error))
            return
        metrics.CONNECTED.labels("database").set(1)
        metrics.SWEEPS.labels("published" if count else "clean").inc()
        metrics.UNPUBLISHED_OLDEST.set(now - oldest[0].unpublished[0].written if oldest else 0.0)
        if count:
            log.info("sweep published what was left", events=count)

    def until_prepared(self) -> None:
        """Prepares, and tries again until it is done or the shell is closed."""
        pause = 0.1
        while not self._closed:
            try:
                self.store.ensure_indexes()
                self.county.ensure_indexes()
                self.prepare()
            except Retry as error:
                log.warning("not ready yet", why=str(error))
                time.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
            else:
                self._ready = True
                log.info("ready")
                return


class _Attachment(DependencyProvider):
    """Makes a shell when the service starts, and injects it."""

    bell = Bell()

    def __init__(self, make: Callable[[Config], Shell[Any]]) -> None:
        super().__init__()
        self._make = make

    def setup(self) -> None:
        shell = self._make(self.container.config["CONFIG"])
        shell.ring = self.bell.ring
        self.container.config["AUDITOR"] = shell.auditor
        self.container.config["API_KEYS"] = shell.api_keys
        self.container.config["ROOMS"] = shell.rooms
        readiness = self.container.config["READINESS"]
        readiness.register("started", lambda: shell.is_ready)
        readiness.register("database", shell.store.ping)
        readiness.register("broker", shell.publisher.ready)
        self._shell = shell

    def start(self) -> None:
        self.container.spawn_managed_thread(self._shell.until_prepared, identifier="prepare")

    def stop(self) -> None:
        self._shell.close()

    def get_dependency(self, worker_ctx: Any) -> Shell[Any]:
        return self._shell


def _under(event: Event) -> tuple[str, str | None]:
    """The profile version and the emergency whose rules an event's case is under."""
    facts = event.data["case"]
    return facts["profile"], facts.get("emergency")


def _deferred(work: Work) -> Work:
    """The same, but what its document is under and nobody knows lets its input wait."""

    def change(record: Record) -> Decision:
        try:
            return work.change(record)
        except UnknownProfile as error:
            raise Defer(str(error)) from error

    return Work(work.key, change)


def attach(make: Callable[[Config], ShellT]) -> ShellT:
    """A shell as an attribute of a nameko service class: its workers get the shell itself."""
    return cast(ShellT, _Attachment(make))
