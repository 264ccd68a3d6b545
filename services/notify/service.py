"""Notify as a nameko service: the table of what it listens to and what it answers."""

from __future__ import annotations

from typing import Any

from services.bus.access import Touches
from services.bus.alarm import alarm, every
from services.bus.consumer import Batch, events
from services.bus.rpc import caller
from services.bus.shell import attach
from services.bus.web import Answer, Call, Operations, route
from services.notify import api
from services.notify import subscriptions_api as subscribing
from services.notify.shell import NotifyShell


class Service(Operations):
    """Tells people and systems what the profile says they are told."""

    name = "notify"
    shell = attach(NotifyShell)
    rpc = caller()

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
        """Tells people what is due."""
        return self.shell.deliver()

    @alarm
    def send_events(self) -> float:
        """Sends subscribers the events that are due."""
        return self.shell.webhooks.deliver()

    @alarm
    def read_timeline(self) -> float:
        """Reads what subscribers missed, or asked for again, out of intake's timeline."""
        return self.shell.read_timeline(self.rpc)

    @every(5)
    def measure(self) -> None:
        """Says how subscriptions do."""
        self.shell.webhooks.measure()

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

    @route(
        "POST",
        "/v1/subscriptions",
        body=subscribing.SubscriptionBody(),
        may=subscribing.SUBSCRIBERS,
        touches=Touches.CASES,
        answers=subscribing.SubscriptionWithSecret(),
        status=201,
        problems={409: "Too many subscriptions, or the key made another one."},
        repeatable=True,
    )
    def subscribe(self, call: Call) -> Answer:
        """Sends events to another system from now on, if its sink agrees.

        The sink is asked first (OPTIONS, CloudEvents' webhook handshake). The secret is in no other
        answer.
        """
        return subscribing.subscribe(self.shell, call)

    @route(
        "GET",
        "/v1/subscriptions",
        query=subscribing.SubscriptionsQuery(),
        may=subscribing.SEEING,
        touches=Touches.CASES,
        answers=subscribing.SubscriptionsShown(),
    )
    def subscriptions(self, call: Call) -> dict[str, Any]:
        """The subscriptions within the caller's division, and how each does."""
        return subscribing.listed(self.shell, call)

    @route(
        "GET",
        "/v1/subscriptions/<identity>",
        may=subscribing.SEEING,
        touches=Touches.CASES,
        answers=subscribing.SubscriptionShown(),
    )
    def subscription(self, call: Call, identity: str) -> dict[str, Any]:
        """A subscription, and how it does."""
        return subscribing.show(self.shell, call, identity)

    @route(
        "DELETE",
        "/v1/subscriptions/<identity>",
        may=subscribing.SUBSCRIBERS,
        touches=Touches.CASES,
        answers=subscribing.SubscriptionShown(),
    )
    def unsubscribe(self, call: Call, identity: str) -> dict[str, Any]:
        """Sends nothing any more; what waits is forgotten."""
        return subscribing.remove(self.shell, call, identity)

    @route(
        "POST",
        "/v1/subscriptions/<identity>/resume",
        body=subscribing.ResumeBody(),
        may=subscribing.SUBSCRIBERS,
        touches=Touches.CASES,
        answers=subscribing.SubscriptionShown(),
        problems={409: "It is not paused, or its sink does not agree."},
    )
    def resume_subscription(self, call: Call, identity: str) -> dict[str, Any]:
        """Goes on with one that is paused, if its sink agrees; what it missed comes first."""
        return subscribing.resume(self.shell, call, identity)

    @route(
        "POST",
        "/v1/subscriptions/<identity>/replay",
        body=subscribing.ReplayBody(),
        may=subscribing.SUBSCRIBERS,
        touches=Touches.CASES,
        answers=subscribing.SubscriptionShown(),
        problems={409: "It is paused or ended."},
    )
    def replay_subscription(self, call: Call, identity: str) -> dict[str, Any]:
        """Sends once more what happened from a time on, with the same ids."""
        return subscribing.replay(self.shell, call, identity)
