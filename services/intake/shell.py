"""Intake's shell: besides the register it has the timeline, reporters, and the directory."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from services.bus import logs
from services.bus.errors import Retry
from services.bus.fold import Outcome
from services.bus.shell import Shell
from services.grid.events import Event
from services.grid.profile import Loaded, load_folder
from services.intake import directory, model
from services.intake.store import Register, Reporters, Timeline

log = logs.get(__name__)

_CHUNK = 500


class IntakeShell(Shell[Register]):
    """What the intake service is connected to."""

    def setup(self) -> None:
        """See :class:`Shell`; a profile that can't be used ends the process with its lines."""
        super().setup()
        self.timeline = Timeline(self.database[Timeline.name])
        self.reporters = Reporters(self.database[Reporters.name], self.config.seal_key)
        self._folders: list[Loaded] = [load_folder(folder) for folder in self.config.profiles]

    def prepare(self) -> None:
        """Makes the directory say what the profile folders say, and publishes what changed."""
        self.timeline.ensure_indexes()
        for loaded in self._folders:
            known = self.county.entries()
            works = directory.works(loaded, known, self.now, self.clock.real())
            for start in range(0, len(works), _CHUNK):
                self.county.absorbed(self.directory_fold.run(works[start : start + _CHUNK]))

    def absorb(self, events: Sequence[Event], written: Callable[[], None]) -> list[Outcome]:
        """Takes a batch into the timeline and the register; notifications only into the first."""
        fold = self.fold
        self.timeline.append(events, self.now)
        about_cases = [event for event in events if event.type.startswith("case.")]
        outcomes = iter(fold.run([model.work(event) for event in about_cases], written))
        return [next(outcomes) if event.type.startswith("case.") else Outcome() for event in events]

    def republish(self, acknowledge: Callable[[], None]) -> None:
        """Publishes the whole directory once more, for a service that came late.

        :raises Retry: the broker did not confirm all of it.
        """
        if not self.is_ready:
            raise Retry("the service is still starting")
        events = directory.republished(self.county.entries(), self.county.atlas())
        confirmed = self.publisher.publish(events)
        if len(confirmed) < len(events):
            raise Retry(f"{len(events) - len(confirmed)} directory events were not confirmed")
        acknowledge()
        log.info("directory published again", events=len(events))
