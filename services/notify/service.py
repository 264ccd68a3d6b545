"""Notify as a nameko service: the table of what it listens to and what it answers."""

from __future__ import annotations

from services.bus.access import Touches
from services.bus.alarm import alarm, every
from services.bus.consumer import Batch, events
from services.bus.shell import attach
from services.bus.web import Answer, Call, Operations, route
from services.notify import api
from services.notify.shell import NotifyShell


class Service(Operations):
    """Tells people and systems what the profile says they are told."""

    name = "notify"
    shell = attach(NotifyShell)

    @events("events")
    def on_events(self, batch: Batch) -> None:
        """Everything that a profile's templates may name."""
        self.shell.absorb(batch)

    @events("directory")
    def on_directory(self, batch: Batch) -> None:
        """The directory as intake publishes it."""
        self.shell.absorb_directory(batch)

    @alarm
    def deliver(self) -> float:
        """Sends what is due."""
        return self.shell.deliver()

    @every(1)
    def sweep(self) -> None:
        """Publishes what a crash left."""
        self.shell.sweep()

    @route(
        "PUT",
        "/v1/contacts/<recipient>",
        body=api.ContactBody(),
        may=api.KEEPERS,
        touches=Touches.COUNTY,
        answers=api.ContactShown(),
    )
    def put_contact(self, call: Call, recipient: str) -> Answer:
        """Keeps how a recipient is reached."""
        return api.put_contact(self.shell, call, recipient)
