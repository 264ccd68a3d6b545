"""The thin shell around a service's fold: what it is connected to, and how it starts.

A service class has one, ``shell = Shell(Docket)``, and its entrypoints use what it offers:
``fold``, ``store``, ``county`` (the directory that it follows), ``clock``, ``config``.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

from nameko.extensions import DependencyProvider
from pymongo.database import Database

from services.bus import logs, metrics
from services.bus.alarm import Bell
from services.bus.config import Config
from services.bus.consumer import Batch
from services.bus.directory import Follower, wanted
from services.bus.errors import Retry
from services.bus.fold import Fold, Work
from services.bus.publisher import ConfirmingPublisher
from services.bus.store import MongoStore, connect
from services.grid.atlas import Atlas
from services.grid.clock import Clock, Instant
from services.grid.events import Event

log = logs.get(__name__)

StoreT = TypeVar("StoreT", bound=MongoStore)

# What is younger is being published by whoever wrote it.
_SWEEP_AFTER_SECONDS = 2.0
_LONGEST_PAUSE_SECONDS = 5.0


class Shell(DependencyProvider, Generic[StoreT]):
    """What a service process is connected to.

    Nothing is asked of the broker or the database before ``start``; a thread then makes the
    indexes and, if nothing is known of the county yet, asks for the directory. Until that is
    done :attr:`fold` raises :class:`Retry`, so that inputs wait instead of failing.

    :param store: the class of the service's main store; its ``name`` may hold ``{level}``.
    :param directory: the collection that keeps the directory.
    """

    bell = Bell()
    config: Config
    clock: Clock
    store: StoreT
    publisher: ConfirmingPublisher

    def __init__(self, store: type[StoreT], directory: str) -> None:
        super().__init__()
        self._store_class = store
        self._directory = directory
        self._ready = False
        self._stopping = False

    def setup(self) -> None:
        """Reads the configuration; see :class:`DependencyProvider`."""
        self.config = self.container.config["CONFIG"]
        self.clock = self.config.clock
        self.database: Database[dict[str, Any]] = connect(
            self.config.mongodb_uri, self.config.instance
        )
        self.publisher = ConfirmingPublisher(self.config.amqp_uri)
        self.store = self._store_class(
            self.database[self._store_class.name.format(level=self.config.level)]
        )
        self._fold = Fold(self.store, self.publisher, self.clock)
        entries = MongoStore(self.database[self._directory.format(level=self.config.level)])
        self.directory_fold = Fold(entries, self.publisher, self.clock)
        self.county = Follower(self.directory_fold, entries, self.clock)
        readiness = self.container.config["READINESS"]
        readiness.register("started", lambda: self.is_ready)
        readiness.register("database", self.store.ping)
        readiness.register("broker", self.publisher.ready)

    def start(self) -> None:
        """Begins to prepare; see :class:`DependencyProvider`."""
        self.container.spawn_managed_thread(self._until_prepared, identifier="prepare")

    def stop(self) -> None:
        """Ends the connections; see :class:`DependencyProvider`."""
        self._stopping = True
        self.publisher.close()
        self.database.client.close()

    def get_dependency(self, worker_ctx: Any) -> Shell[StoreT]:
        """The shell itself; see :class:`DependencyProvider`."""
        return self

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

    def atlas_for(self, events: Sequence[Event]) -> Atlas:
        """The atlas, once it has the profile of every event's case.

        :raises Retry: one has not arrived yet.
        """
        for version in {event.data["case"]["profile"] for event in events}:
            self.county.profile(version)
        return self.county.atlas()

    def absorb_directory(self, batch: Batch) -> None:
        """Takes ``directory.*`` events into this service's copy."""
        works = self.county.absorb(batch.events)
        self.county.absorbed(self.directory_fold.run(works, batch.acknowledge))

    def act(self, work: Work) -> Any:
        """Runs one action of a person and returns its answer.

        :raises Refused: it is not possible now.
        """
        return self.fold.run([work])[0].result()

    def sweep(self) -> None:
        """Publishes what a crash or an outage left unpublished."""
        try:
            count = self.fold.sweep(_SWEEP_AFTER_SECONDS) + self.directory_fold.sweep(
                _SWEEP_AFTER_SECONDS
            )
        except Retry as error:
            metrics.SWEEPS.labels("away").inc()
            log.warning("sweep put off", why=str(error))
            return
        metrics.SWEEPS.labels("published" if count else "clean").inc()
        if count:
            log.info("sweep published what was left", events=count)

    def _until_prepared(self) -> None:
        pause = 0.1
        while not self._stopping:
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
