"""Intake's shell: besides the register it has the timeline, reporters, and the directory."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC

from services.bus import logs, metrics
from services.bus.config import Config
from services.bus.consumer import Batch
from services.bus.errors import Retry
from services.bus.fold import NOTHING, Fold, Outcome, Work
from services.bus.lost import Queues
from services.bus.sealing import Unsealer
from services.bus.shell import Shell
from services.grid.calendars import local_date
from services.grid.clock import plus, seconds_between
from services.grid.events import Event
from services.grid.profile import Loaded, load_folder
from services.intake import closing, directory, model
from services.intake.cursors import SealedCursors
from services.intake.sensing import Sensors
from services.intake.store import Happenings, Register, Rejected, Reporters, Timeline
from services.intake.systems import Registrar, Systems

log = logs.get(__name__)

BATCH = 300
_CHUNK = 500
_IDLE_SECONDS = 1.0
# Deadlines of the next weeks may reach into the next year.
_AHEAD_SECONDS = 60 * 86400


class IntakeShell(Shell[Register]):
    """What the intake service is connected to.

    A profile that can't be used ends the process with its file, line and cure.
    """

    def __init__(self, config: Config) -> None:
        super().__init__(config, Register, "directory")
        self.timeline = Timeline(self.database[Timeline.name])
        self.happenings = Happenings(self.database[Happenings.name])
        self.reporters = Reporters(self.database[Reporters.name], config.seal_key)
        self.cursors = SealedCursors(config.seal_key)
        self.unsealer = Unsealer(config.unseal_keys)
        self.rejected = Rejected(self.database[Rejected.name])
        self.systems = Systems(self.database[Systems.name])
        self.sensors = Sensors(self.database[Sensors.name])
        self.sensor_fold = Fold(self.sensors, self.publisher, self.clock)
        self.api_keys = self.systems
        self.registrar = Registrar(self.systems, Fold(self.systems, self.publisher, self.clock))
        self.queues = Queues(config.amqp_uri)
        self._folders: list[Loaded] = [load_folder(folder) for folder in config.profiles]

    def close(self) -> None:
        """See :class:`Shell`."""
        self.queues.close()
        super().close()

    def prepare(self) -> None:
        """Makes the directory say what the profile folders say, and publishes what changed."""
        self.timeline.ensure_indexes()
        self.happenings.ensure_indexes()
        self.rejected.ensure_indexes()
        self.sensors.ensure_indexes()
        for loaded in self._folders:
            self._warn_of_holidays(loaded)
            known = self.county.entries()
            works = directory.works(loaded, known, self.now, self.clock.real())
            for start in range(0, len(works), _CHUNK):
                self.county.absorbed(self.directory_fold.run(works[start : start + _CHUNK]))

    def _warn_of_holidays(self, loaded: Loaded) -> None:
        soon = [local_date(at, UTC) for at in (self.now, plus(self.now, _AHEAD_SECONDS))]
        for name, year in loaded.profile.years_unknown(loaded.holidays, soon):
            metrics.HOLIDAYS_UNKNOWN.labels(name, str(year)).set(1)
            log.warning(
                "the holidays of a year are not known: its plain weeks count",
                profile=loaded.profile.name,
                holidays=name,
                year=year,
                cure="add holidays.csv to the profile (docs/profiles.md)",
            )

    def absorb(self, batch: Batch) -> None:
        """Takes a batch into the timeline and the register; notifications only into the first."""
        fold, atlas, now = self.fold, self.county.atlas(), self.now
        new = self.timeline.append(batch.events, now)
        works = [
            model.work(event, atlas, now) if event.type.startswith("case.") else NOTHING
            for event in batch.events
        ]

        def acknowledge(outcomes: Sequence[Outcome]) -> None:
            self.tell(batch.events, outcomes)
            batch.acknowledge(outcomes)

        fold.run(works, acknowledge)
        for event in new:
            _count(event)

    def tell(self, events: Sequence[Event], outcomes: Sequence[Outcome]) -> None:
        """Called with what events came to, once that is on disk and before they are acknowledged.

        :raises Retry: they must not be acknowledged yet.
        """

    def close_unanswered(self) -> float:
        """Closes resolved cases whose reporter has not answered in time, at most ``BATCH``.

        :returns: real seconds until the next is due.
        """
        now, atlas = self.now, self.county.atlas()
        cases = self.store.due(now, BATCH)
        if cases:
            self._close([closing.due_work(case, atlas, now) for case in cases])
        if len(cases) == BATCH:
            return 0.0
        due = self.store.next_due()
        if due is None:
            return _IDLE_SECONDS
        return max(0.0, self.clock.real_seconds(seconds_between(self.now, due)))

    def _close(self, works: list[Work]) -> None:
        """One case that can't be closed is put off, and takes no other along."""
        try:
            self.fold.run(works)
        except Retry:
            raise
        except Exception:
            if len(works) > 1:
                for work in works:
                    self._close([work])
                return
            log.exception("a case can't be closed and is put off", case=works[0].key)
            metrics.CLOSING_FAILED.inc()
            self.fold.run([closing.later_work(works[0].key, self.now)])

    def republish(self, batch: Batch) -> None:
        """Publishes the whole directory once more, for a service that came late.

        :raises Retry: the broker did not confirm all of it.
        """
        if not self.is_ready:
            raise Retry("the service is still starting")
        events = directory.republished(self.county.entries(), self.county.atlas())
        confirmed = self.publisher.publish(events)
        if len(confirmed) < len(events):
            raise Retry(f"{len(events) - len(confirmed)} directory events were not confirmed")
        batch.acknowledge([Outcome() for _ in batch.events])
        log.info("directory published again", events=len(events))


def _count(event: Event) -> None:
    """Counts how cases end, each event once: when the timeline takes it."""
    data = event.data
    if event.type == "case.feedback_given":
        metrics.FEEDBACK.labels("yes" if data["feedback"]["satisfied"] else "no").inc()
    elif event.type == "case.closed":
        metrics.CLOSED.labels(data["closing"]["why"]).inc()
    elif event.type == "case.reopened":
        metrics.REOPENED.labels(data["reopening"].get("why", "asked")).inc()
    elif event.type == "case.withdrawn":
        metrics.WITHDRAWN.inc()
