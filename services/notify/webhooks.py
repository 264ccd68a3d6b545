"""Sends events to subscribers: gathers, sends beside each other, and reads the timeline for them.

Every process of notify does all of it. A line (a subscription's events of one case) or the
reading of the timeline is taken in hand with a guarded write before anything is done with it,
and what a process that died had in hand another takes up after a minute, with the same ids.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from services.bus import logs, metrics
from services.bus.errors import Retry
from services.bus.fold import Decision, Document, Fold, Outcome, Publisher, Record, Work
from services.bus.rpc import NoAnswer
from services.grid.atlas import Atlas
from services.grid.clock import Clock, Instant
from services.grid.events import Event
from services.grid.events.envelope import CONTENT_TYPE
from services.notify import outbox, subscriptions
from services.notify.channels import Sent
from services.notify.courier import Courier
from services.notify.seal import Seal, Unsealable
from services.notify.sender import LONGEST_SECONDS, Sender
from services.notify.store import Outbox, Subscribers

PAGE = 200
"""So many entries of the timeline are read at once."""

_IDLE_SECONDS = 1.0
_SOON_SECONDS = 0.05

log = logs.get(__name__)

Ask = Callable[..., tuple[Any, bool]]
"""Asks intake: :meth:`services.bus.rpc.Caller.call`."""


@dataclass(frozen=True, slots=True)
class _Result:
    """What became of a line's head."""

    subscription: str
    line: str
    arrived: Sequence[str]
    failed: str | None
    why: Sent | None
    began: float


class Webhooks:
    """The engine of subscriptions.

    :param seal: opens their secrets.
    :param pause_after: after so many real seconds without anything taken a sink is paused.
    :param lease: so many real seconds what a process has in hand is nobody else's.
    """

    def __init__(
        self,
        subscribers: Subscribers,
        lines: Outbox,
        publisher: Publisher,
        clock: Clock,
        *,
        sender: Sender,
        courier: Courier,
        seal: Seal,
        pause_after: float,
        lease: float,
    ) -> None:
        self.subscribers = subscribers
        self.lines = lines
        self.fold = Fold(subscribers, publisher, clock)
        self._line_fold = Fold(lines, publisher, clock)
        self._clock = clock
        self._sender = sender
        self._courier = courier
        self._seal = seal
        self._pause_after = pause_after
        self._lease = lease
        self._results: deque[_Result] = deque()
        self._turn = 0
        self._measured: set[str] = set()

    @property
    def _scale(self) -> float:
        return 1 / self._clock.real_seconds(1)

    def gather(self, events: Sequence[Event], atlas: Atlas) -> None:
        """Lets events wait for whom they are for; again, it changes nothing.

        :raises Retry: it could not be written.
        """
        # Who subscribed a moment ago, be it at another process, misses nothing.
        self.subscribers.forget()
        for document in self.subscribers.all():
            if document["status"] in subscriptions.GATHERING:
                self._put(document, events, atlas)

    def _put(self, document: Document, events: Sequence[Event], atlas: Atlas) -> None:
        now = self._clock.real()
        of_case: dict[str, list[outbox.Entry]] = {}
        for event in events:
            if subscriptions.wants(document, event, atlas):
                of_case.setdefault(event.subject, []).append(outbox.entry(event, now))
        if of_case:
            put = partial(outbox.put, document["id"], replay=document["replays"], now=now)
            self._line_fold.run([put(case, entries) for case, entries in of_case.items()])

    def deliver(self) -> float:
        """Writes down what was sent, and begins to send what is due and has room.

        :returns: real seconds until it should be called again; the courier's end rings too.
        """
        self.settle()
        sending = [
            each for each in self.subscribers.all() if each["status"] in subscriptions.SENDING
        ]
        if not sending:
            return _IDLE_SECONDS
        # Each turn begins with another one, so that all have their share of the places.
        self._turn = (self._turn + 1) % len(sending)
        pauses = [
            self._send_to(document) for document in (*sending[self._turn :], *sending[: self._turn])
        ]
        return max(_SOON_SECONDS, min(pauses))

    def _send_to(self, document: Document) -> float:
        now = self._clock.real()
        quiet = float(document["quiet_until"] - now)
        if quiet > 0:
            return quiet
        room = self._courier.room(document["id"])
        turns = self.lines.turns(document["id"], room) if room else []
        due = [key for key, at in turns if at <= now]
        if not due:
            return turns[0][1] - now if turns else _IDLE_SECONDS
        # Another process may have been told just now to be patient, or to end.
        record = self.subscribers.read([document["id"]])[document["id"]]
        document = record.document or document
        if document["status"] not in subscriptions.SENDING or document["quiet_until"] > now:
            self.subscribers.forget()
            return _SOON_SECONDS
        granted, following = self._places(document, len(due), now)
        until = now + self._lease
        most = outbox.AT_ONCE if document["rate"] is None else 1

        def claim(record: Record) -> Decision:
            return outbox.claim(record.document or {}, now=now, until=until, most=most)

        keys = due[:granted]
        for key, outcome in zip(keys, self._run(keys, claim), strict=True):
            if outcome.answer:
                job = partial(self._job, document, key, outcome.answer, until)
                self._courier.send(document["id"], job)
        return following - now if granted < len(due) else _IDLE_SECONDS

    def _run(self, keys: Sequence[str], change: Callable[[Record], Decision]) -> list[Outcome]:
        return self._line_fold.run([Work(key, change) for key in keys])

    def _places(self, document: Document, wanted: int, now: float) -> tuple[int, float]:
        if document["rate"] is None:
            return wanted, now

        def change(record: Record) -> Decision:
            return subscriptions.reserve(record.document or document, wanted, real=now)

        places: tuple[int, float] = self.fold.run([Work(document["id"], change)])[0].result()
        return places

    def _job(self, document: Document, key: str, entries: list[outbox.Entry], until: float) -> None:
        """Sends the head of a line, one after the other, until one fails."""
        began = self._clock.real()
        arrived: list[str] = []
        failed, why = None, None
        for entry in entries:
            if self._clock.real() > until - LONGEST_SECONDS:
                break
            sent = self._post(document, entry)
            if sent.reason is not None:
                failed, why = entry["id"], sent
                break
            arrived.append(entry["id"])
        self._results.append(_Result(document["id"], key, arrived, failed, why, began))

    def _post(self, document: Document, entry: outbox.Entry) -> Sent:
        try:
            secret = self._seal.open(document["secret"])
        except Unsealable as error:
            return Sent(str(error), down=True, blame=False)
        body = entry["body"].encode()
        return self._sender.post(document["sink"], entry["id"], CONTENT_TYPE, body, secret)

    def settle(self) -> None:
        """Writes down what became of what was sent.

        :raises Retry: it could not be written; it is kept for the next time.
        """
        results = [self._results.popleft() for _ in range(len(self._results))]
        if not results:
            return
        by_subscription: dict[str, list[_Result]] = defaultdict(list)
        for result in results:
            by_subscription[result.subscription].append(result)
        try:
            self._settle_lines(results, by_subscription)
            self._settle_subscriptions(by_subscription)
        except Retry:
            self._results.extendleft(reversed(results))
            raise

    def _settle_lines(self, results: Sequence[_Result], of: dict[str, list[_Result]]) -> None:
        now = self._clock.real()
        well = {each["id"]: each["delivered_at"] or 0.0 for each in self.subscribers.all()}
        well |= {name: now for name, some in of.items() if any(each.arrived for each in some)}

        def work(result: _Result) -> Work:
            what = outbox.Told(
                result.arrived, result.failed, result.why, well.get(result.subscription, 0.0)
            )
            return Work(
                result.line, lambda record: outbox.told(record.document or {}, what, now=now)
            )

        outcomes = self._line_fold.run([work(result) for result in results])
        for result, outcome in zip(results, outcomes, strict=True):
            if outcome.answer is not None:
                metrics.WEBHOOK_DELIVERIES.labels(result.subscription, "given_up").inc()
                log.error(
                    "an event was given up: the sink takes others and not this one",
                    subscription=result.subscription,
                    event_id=outcome.answer,
                    why=result.why and result.why.reason,
                )

    def _settle_subscriptions(self, of: dict[str, list[_Result]]) -> None:
        now, real, scale = self._clock.now(), self._clock.real(), self._scale

        def work(name: str, results: Sequence[_Result]) -> Work:
            what = subscriptions.Told(
                delivered=sum(len(result.arrived) for result in results),
                failed=[result.why for result in results if result.why is not None],
                began=min(result.began for result in results),
            )
            return Work(
                name,
                lambda record: subscriptions.told(
                    record.document or {"status": "removed"},
                    what,
                    now=now,
                    real=real,
                    pause_after=self._pause_after,
                    scale=scale,
                ),
            )

        outcomes = self.fold.run([work(name, results) for name, results in of.items()])
        self.subscribers.forget()
        for (name, results), outcome in zip(of.items(), outcomes, strict=True):
            delivered = sum(len(result.arrived) for result in results)
            failed = sum(result.why is not None for result in results)
            metrics.WEBHOOK_DELIVERIES.labels(name, "delivered").inc(delivered)
            metrics.WEBHOOK_DELIVERIES.labels(name, "failed").inc(failed)
            if outcome.answer is not None and outcome.document is not None:
                self._over(outcome.document)

    def _over(self, document: Document) -> None:
        """Tells the operator that a sink is paused or ended."""
        cure = "see what is wrong there, then: huashi subscription resume"
        if document["status"] == "ended":
            self.lines.drop(document["id"])
            cure = "it wants nothing any more (410): make another subscription if that is wrong"
        log.error(
            f"a subscription is {document['status']}",
            subscription=document["id"],
            why=document["why"],
            cure=cure,
        )

    def read(self, ask: Ask, atlas: Atlas) -> float:
        """Reads a page of the timeline for each subscription that needs it.

        :returns: real seconds until it should be called again.
        """
        reading = [
            each for each in self.subscribers.all() if each["status"] in subscriptions.READING
        ]
        progress = [self._read_for(document, ask, atlas) for document in reading]
        return 0.0 if any(progress) else _IDLE_SECONDS

    def _read_for(self, document: Document, ask: Ask, atlas: Atlas) -> bool:
        """Whether there is more to be read at once."""
        until = self._clock.real() + self._lease
        waiting = self.lines.waiting(document["id"], subscriptions.AHEAD)

        def read_on(known: Document) -> Decision:
            real = self._clock.real()
            return subscriptions.read_on(known, real=real, until=until, waiting=waiting)

        taken = self._change(document["id"], read_on)
        if taken is None:
            return False
        types = document["types"] or list(subscriptions.TYPES)
        try:
            page, behind = ask("intake", "happened", taken["at"], taken["key"], types, PAGE)
        except NoAnswer as error:
            log.warning("the timeline can't be read", subscription=document["id"], why=str(error))
            end, at, more = False, (Instant(taken["at"]), taken["key"]), False
        else:
            events = [Event.of_document(each) for each in page["events"]]
            self._put(document, events, atlas)
            more = page["more"]
            end, at = not more and not behind, (Instant(page["at"]), page["key"])
        status = self._change(
            document["id"],
            lambda known: subscriptions.has_read(
                known, taken, at, end=end, real=self._clock.real(), scale=self._scale
            ),
        )
        self.subscribers.forget()
        if status is not None:
            log.info("a subscription goes on", subscription=document["id"], status=status)
        return more

    def _change(self, identity: str, decide: Callable[[Document], Decision]) -> Any:
        def change(record: Record) -> Decision:
            return decide(record.document or {"status": "removed", "replay": None})

        return self.fold.run([Work(identity, change)])[0].result()

    def measure(self) -> None:
        """Sets the gauges of all subscriptions, and takes away those of others."""
        now = self._clock.real()
        there = {each["id"]: each for each in self.subscribers.all()}
        for identity, document in there.items():
            oldest = self.lines.oldest(identity)
            waited = 0.0 if oldest is None else max(0.0, now - oldest)
            metrics.WEBHOOK_OLDEST.labels(identity).set(waited)
            metrics.WEBHOOK_PAUSED.labels(identity).set(document["status"] == "paused")
        for identity in self._measured - there.keys():
            metrics.WEBHOOK_OLDEST.remove(identity)
            metrics.WEBHOOK_PAUSED.remove(identity)
            for outcome in metrics.WEBHOOK_OUTCOMES:
                metrics.WEBHOOK_DELIVERIES.remove(identity, outcome)
        self._measured = set(there)
