"""Notify's shell: besides its store it has contacts and channels; and sending what is due."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from services.bus import metrics
from services.bus.config import Config
from services.bus.consumer import Batch
from services.bus.fold import Decision, Fold, Outcome, Record, Work
from services.bus.shell import Shell
from services.grid.atlas import Atlas
from services.grid.clock import Instant, plus, seconds_between
from services.grid.events import Event
from services.notify import model
from services.notify.channels import Channel, Message
from services.notify.channels.log_file import LogFile
from services.notify.channels.webhook import Webhook
from services.notify.store import Contacts, Notifications, Subscriptions

_BATCH = 100
_AT_ONCE = 20
_IDLE_SECONDS = 1.0
# Real seconds after which another process sends what this one had taken in hand.
_LEASE_SECONDS = 60.0


class NotifyShell(Shell[Notifications]):
    """What the notify service is connected to."""

    def __init__(self, config: Config) -> None:
        super().__init__(config, Notifications, "directory_notify")
        self.contacts = Contacts(self.database[Contacts.name])
        self.subscriptions = Subscriptions(self.database[Subscriptions.name])
        self._subscription_fold = Fold(self.subscriptions, self.publisher, self.clock)
        log_path = config.notify_log
        self._channels: dict[str, Channel] = {"webhook": Webhook()}
        if log_path is not None:
            self._channels["log"] = LogFile(log_path)

    def prepare(self) -> None:
        """See :class:`services.bus.shell.Shell`."""
        self.subscriptions.ensure_indexes()
        super().prepare()

    def absorb(self, batch: Batch) -> None:
        """Takes a batch: first who watches what from now on, then who is told of what."""
        fold, now = self.fold, self.now
        watched = [event for event in batch.events if event.type == model.WATCHED]
        if watched:
            self._subscription_fold.run([model.subscription(event) for event in watched])
        known = self.subscriptions.read([event.subject for event in batch.events])
        watchers = {key: (record.document or {})["watchers"] for key, record in known.items()}

        def work(event: Event, atlas: Atlas) -> Work:
            return model.work(event, watchers.get(event.subject, ()), atlas, now)

        fold.run(self.works(batch.events, work), batch.acknowledge)
        self.ring()

    def deliver(self) -> float:
        """Sends what is due; returns real seconds until the next try.

        Each process takes deliveries in hand with a guarded write before it sends them, so
        that replicas share the work; what a crash leaves is sent again after a while, with
        the same id.
        """
        claimed = self._claim()
        if not claimed:
            next_try = self.store.next_try()
            if next_try is None:
                return _IDLE_SECONDS
            return max(0.0, self.clock.real_seconds(seconds_between(self.now, next_try)))
        contacts = self.contacts.webhooks([item["recipient"] for _, item in claimed])
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            reasons = list(pool.map(lambda pair: self._send(pair[1], contacts), claimed))
        results: dict[str, dict[str, str | None]] = {}
        for (key, delivery), reason in zip(claimed, reasons, strict=True):
            results.setdefault(key, {})[delivery["id"]] = reason
        for outcome in self.fold.run([self._sent(key, told) for key, told in results.items()]):
            _count(outcome)
        return 0.0

    def _claim(self) -> list[tuple[str, dict[str, Any]]]:
        now = self.now
        until = plus(now, _LEASE_SECONDS / self.clock.real_seconds(1))

        def change(record: Record) -> Decision:
            return model.claim(record.document or {}, now=now, until=until)

        keys = self.store.due(now, _BATCH)
        outcomes = self.fold.run([Work(key, change) for key in keys])
        return [
            (key, {**delivery, **told})
            for key, outcome in zip(keys, outcomes, strict=True)
            for told, deliveries in [outcome.result()]
            for delivery in deliveries
        ]

    def _send(self, delivery: dict[str, Any], contacts: dict[str, str]) -> str | None:
        channel = self._channels.get(delivery["channel"])
        if channel is None:
            return f"there is no channel {delivery['channel']}"
        message = Message(
            id=delivery["id"],
            recipient=delivery["recipient"],
            about=delivery["type"],
            case=delivery["case"],
            text=delivery["text"],
            time=self.now,
        )
        return channel.send(message, contacts.get(delivery["recipient"]))

    def _sent(self, key: str, told: dict[str, str | None]) -> Work:
        now: Instant = self.now

        def change(record: Record) -> Decision:
            scale = 1 / self.clock.real_seconds(1)
            return model.sent(record.document or {}, told, now=now, scale=scale)

        return Work(key, change)


def _count(outcome: Outcome) -> None:
    for channel, status in outcome.answer or ():
        metrics.NOTIFICATIONS.labels(channel, status).inc()
