"""Notify's shell: besides its store it has contacts, channels and subscribers."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from services.bus import metrics
from services.bus.config import Config
from services.bus.consumer import Batch
from services.bus.errors import Retry
from services.bus.fold import Decision, Fold, Outcome, Record, Work
from services.bus.rpc import Caller
from services.bus.shell import Shell
from services.grid import json
from services.grid.atlas import Atlas
from services.grid.clock import plus, seconds_between
from services.grid.events import Event
from services.notify import model
from services.notify.addresses import Addresses
from services.notify.channels import Channel, Message, Sent
from services.notify.channels.log_file import LogFile
from services.notify.courier import Courier
from services.notify.seal import Seal, Unsealable
from services.notify.sender import LONGEST_SECONDS, Sender
from services.notify.store import Contacts, Notifications, Outbox, Subscribers, Watchers
from services.notify.webhooks import Webhooks

_BATCH = 100
_IDLE_SECONDS = 1.0
_JSON = "application/json"
_WEBHOOK = "webhook"
# So long a delivery waits whose sink has no room.
_CROWDED_SECONDS = 2.0


class NotifyShell(Shell[Notifications]):
    """What the notify service is connected to."""

    def __init__(self, config: Config) -> None:
        super().__init__(config, Notifications, "directory_notify")
        self.contacts = Contacts(self.database[Contacts.name])
        self.watchers = Watchers(self.database[Watchers.name])
        self._watchers_fold = Fold(self.watchers, self.publisher, self.clock)
        self._channels: dict[str, Channel] = {}
        if config.notify_log is not None:
            self._channels["log"] = LogFile(config.notify_log)
        hosts = (*_hosts(config.amqp_uri), *_hosts(config.mongodb_uri))
        self.sender = Sender(Addresses(config.webhook_allow, hosts), self.clock.real)
        self.seal = Seal(config.seal_key)
        self._courier = Courier(self._over)
        self._results: deque[tuple[str, str, Sent]] = deque()
        self.webhooks = Webhooks(
            Subscribers(self.database[Subscribers.name]),
            Outbox(self.database[Outbox.name]),
            self.publisher,
            self.clock,
            sender=self.sender,
            courier=self._courier,
            seal=self.seal,
            pause_after=config.webhook_pause_seconds,
            lease=config.webhook_lease_seconds,
        )

    def _over(self) -> None:
        # The bell comes later than the courier.
        self.ring()

    def prepare(self) -> None:
        """See :class:`services.bus.shell.Shell`."""
        for store in (self.watchers, self.webhooks.subscribers, self.webhooks.lines):
            store.ensure_indexes()
        super().prepare()

    def close(self) -> None:
        """Waits for what is being sent, and writes down what became of it."""
        self._courier.wait(LONGEST_SECONDS + 1)
        if self.is_ready:
            self._settle()
            self.webhooks.settle()
        self.sender.close()
        super().close()

    def absorb(self, batch: Batch) -> None:
        """Takes a batch: who watches what from now on, who is told of what, who subscribed."""
        fold, now, atlas = self.fold, self.now, self.county.atlas()
        watched = [event for event in batch.events if event.type == model.WATCHED]
        if watched:
            self._watchers_fold.run([model.watching(event) for event in watched])
        known = self.watchers.read([event.subject for event in batch.events])
        watchers = {key: (record.document or {})["watchers"] for key, record in known.items()}

        def work(event: Event, atlas: Atlas) -> Work:
            return model.work(event, watchers.get(event.subject, ()), atlas, now)

        def acknowledge(outcomes: Sequence[Outcome]) -> None:
            taken = zip(batch.events, outcomes, strict=True)
            good = [event for event, outcome in taken if outcome.error is None]
            self.webhooks.gather(good, atlas)
            batch.acknowledge(outcomes)

        fold.run(self.works(batch.events, work), acknowledge)
        self.ring()

    def read_timeline(self, rpc: Caller) -> float:
        """See :meth:`Webhooks.read`."""
        return self.webhooks.read(rpc.call, self.county.atlas())

    def deliver(self) -> float:
        """Begins to send what is due and has room; returns real seconds until the next try.

        Each process takes deliveries in hand with a guarded write before it sends them, so
        that replicas share the work; what a crash leaves is sent again after a while, with
        the same id.
        """
        self._settle()
        claimed = self._claim()
        if not claimed:
            next_try = self.store.next_try()
            if next_try is None:
                return _IDLE_SECONDS
            return max(0.0, self.clock.real_seconds(seconds_between(self.now, next_try)))
        of = [item["recipient"] for _, item in claimed if item["channel"] == _WEBHOOK]
        contacts = self.contacts.of(of)
        crowded: dict[str, list[str]] = {}
        for key, delivery in claimed:
            if delivery["channel"] != _WEBHOOK:
                self._results.append((key, delivery["id"], self._by_channel(delivery)))
                continue
            contact = contacts.get(delivery["recipient"])
            if contact is None:
                unknown = Sent("no webhook is known for this recipient")
                self._results.append((key, delivery["id"], unknown))
            elif self._courier.room(contact["webhook"]):
                job = partial(self._by_webhook, key, delivery, contact)
                self._courier.send(contact["webhook"], job)
            else:
                crowded.setdefault(key, []).append(delivery["id"])
        self._put_off(crowded)
        self._settle()
        return 0.0

    def _claim(self) -> list[tuple[str, dict[str, Any]]]:
        now = self.now
        until = plus(now, self.config.webhook_lease_seconds * self._scale)

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

    def _put_off(self, crowded: Mapping[str, Sequence[str]]) -> None:
        """Gives back what was taken in hand for a sink that has no room now."""
        until = plus(self.now, _CROWDED_SECONDS * self._scale)

        def work(key: str, identities: Sequence[str]) -> Work:
            return Work(key, lambda record: model.put_off(record.document or {}, identities, until))

        self.fold.run([work(key, identities) for key, identities in crowded.items()])

    def _by_channel(self, delivery: dict[str, Any]) -> Sent:
        channel = self._channels.get(delivery["channel"])
        if channel is None:
            return Sent(f"there is no channel {delivery['channel']}")
        return channel.send(self._message(delivery))

    def _by_webhook(self, key: str, delivery: dict[str, Any], contact: Mapping[str, Any]) -> None:
        sealed, body = contact.get("secret"), json.dumps(self._message(delivery).body())
        try:
            secret = self.seal.open(sealed) if sealed else None
        except Unsealable as error:
            sent = Sent(str(error))
        else:
            sent = self.sender.post(contact["webhook"], delivery["id"], _JSON, body, secret)
        self._results.append((key, delivery["id"], sent))

    def _message(self, delivery: Mapping[str, Any]) -> Message:
        return Message(
            id=delivery["id"],
            recipient=delivery["recipient"],
            about=delivery["type"],
            case=delivery["case"],
            text=delivery["text"],
            time=self.now,
        )

    def _settle(self) -> None:
        """Writes down what became of deliveries.

        :raises Retry: it could not be written; it is kept for the next time.
        """
        results = [self._results.popleft() for _ in range(len(self._results))]
        told: dict[str, dict[str, Sent]] = {}
        for key, identity, sent in results:
            told.setdefault(key, {})[identity] = sent
        now, scale = self.now, self._scale

        def work(key: str, of_key: Mapping[str, Sent]) -> Work:
            return Work(
                key,
                lambda record: model.sent(record.document or {}, of_key, now=now, scale=scale),
            )

        try:
            outcomes = self.fold.run([work(key, of_key) for key, of_key in told.items()])
        except Retry:
            self._results.extendleft(reversed(results))
            raise
        for outcome in outcomes:
            _count(outcome)

    @property
    def _scale(self) -> float:
        """Virtual seconds in a real one."""
        return 1 / self.clock.real_seconds(1)


def _count(outcome: Outcome) -> None:
    for channel, status in outcome.answer or ():
        metrics.NOTIFICATIONS.labels(channel, status).inc()


def _hosts(uri: str) -> list[str]:
    """The names of the servers in a URI of ours."""
    _user, _, hosts = urlsplit(uri).netloc.rpartition("@")
    return [urlsplit(f"//{host}").hostname or "" for host in hosts.split(",")]
