"""The front door: events of other systems come in, each is accepted or refused with its reasons.

Over HTTP and over AMQP the same is done (:meth:`FrontDoor.take`): a whole batch is one step, and
one event that can't be accepted takes no other along.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, ClassVar

from marshmallow import Schema, ValidationError, fields, validate

from services.bus import logs, metrics, problems
from services.bus.config import Config
from services.bus.errors import Collision, Defer, Refused, Reject, Retry
from services.bus.fold import Document, Outcome, Record
from services.bus.inbound import Parcel
from services.bus.openapi import Shown, WrongFieldSchema
from services.bus.paging import PageQuery
from services.bus.problems import Problem
from services.bus.systems import user_of
from services.bus.web import Answer, Call
from services.grid.clock import Instant, monotonic
from services.grid.events import Event
from services.grid.events.bindings import (
    BATCH,
    MOST,
    PLAIN,
    STRUCTURED,
    Errors,
    Incoming,
    Read,
    Unread,
    of_amqp,
    of_http,
)
from services.grid.events.envelope import flatten
from services.grid.events.parts import WORD, AddressSchema, InstantField, has_personal_number
from services.intake import acting, happenings, replies
from services.intake.directory_api import EntryChange
from services.intake.inbound import TYPES, Basis, Loaded, ReportData, Task
from services.intake.inbound import opened as opened_reporter
from services.intake.reporting import opened
from services.intake.sensing import STATES
from services.intake.shell import IntakeShell
from services.intake.systems import must_be_allowed, of_subject

log = logs.get(__name__)

_COUNTED_SECONDS = 5.0
_MOST_ERRORS = 100
# With 31,000 entries one takes some 90 ms of a processor.
_WHOLE, _ENTRIES = 10, 1000
ANSWER_SECONDS = 2.0
"""Real seconds for which an answer over HTTP waits for a unit's desk."""


class CloudEventSchema(Schema):
    """A CloudEvent (1.0, JSON format) with one of the types of docs/integrating."""

    example: ClassVar[dict[str, Any]] = {
        "specversion": "1.0",
        "id": "12345-2026-0302-77-1",
        "source": "hotline",
        "type": "huashi.case.report.v1",
        "time": "2026-03-02T20:00:00+08:00",
        "data": ReportData.minimal,
    }

    specversion = fields.String(required=True)
    id = fields.String(required=True, metadata={"description": "with `source` the idempotency key"})
    source = fields.String(
        required=True, metadata={"description": "the system's name, or what begins with it and /"}
    )
    type = fields.String(required=True)
    subject = fields.String()
    time = InstantField()
    datacontenttype = fields.String()
    data = fields.Dict(keys=fields.String(), required=True)


class BinarySchema(ReportData):
    """The data alone; the attributes are header fields ``ce-id``, ``ce-source``, ``ce-type``..."""


CONTENT: Mapping[str, Schema] = {
    STRUCTURED: CloudEventSchema(),
    BATCH: CloudEventSchema(many=True),
    PLAIN: BinarySchema(),
}
"""The three modes of the HTTP binding, by media type."""


class AcceptedShown(Shown):
    """An event that was accepted, now or before: the case, and its references.

    Of the directory: what became of its ``entries``. Of a sensor's reading: what it says, and a
    case only if that is told of it.
    """

    sometimes = ("case", "tracking", "reference", "status", "pending", "entries", "reading")

    index = fields.Integer(metadata={"description": "its place in the batch, from 0"})
    source = fields.String()
    id = fields.String()
    type = fields.String()
    case = fields.String()
    tracking = fields.String()
    reference = fields.String(allow_none=True)
    status = fields.String()
    pending = fields.Boolean(
        metadata={"description": "the unit's desk has not answered yet: send it again to ask"}
    )
    entries = fields.List(fields.Nested(EntryChange))
    reading = fields.String(
        validate=validate.OneOf(STATES),
        metadata={"description": "`beyond` the threshold, `calm`, or `late`: a later one counts"},
    )


class RefusedShown(Shown):
    """An event that was refused, and each reason with its cure."""

    sometimes = ("held_by",)

    source = fields.String(allow_none=True)
    id = fields.String(allow_none=True)
    type = fields.String(allow_none=True)
    why = fields.String(
        metadata={
            "description": "`invalid`, `refused` (not possible now), `forbidden`, `too_large`"
        }
    )
    errors = fields.List(fields.Nested(WrongFieldSchema))
    held_by = fields.Nested(
        AddressSchema, metadata={"description": "who holds the case that a unit can't act on"}
    )


class RejectedShown(RefusedShown):
    """An event that was refused, and which of those that were sent it is."""

    index = fields.Integer()


class TakenShown(Shown):
    """What became of each event that was sent."""

    accepted = fields.List(fields.Nested(AcceptedShown))
    rejected = fields.List(fields.Nested(RejectedShown))


class RejectedQuery(PageQuery):
    """Filters of ``GET /v1/rejected``."""

    example: ClassVar[dict[str, Any]] = {"system": "hotline", "limit": 20}

    system = fields.String(validate=WORD, load_default=None)


class KeptShown(Shown):
    """An event that was refused, as an operator sees it: what it had in it is not kept."""

    id = fields.String()
    system = fields.String()
    at = InstantField()
    door = fields.String(
        metadata={"description": "`http` or `amqp`; `desk`: a unit's desk refused it"}
    )
    event = fields.Nested(RefusedShown)


class RejectedPage(Shown):
    """The latest refused events, at most a thousand of each system."""

    rejected = fields.List(fields.Nested(KeptShown))
    next = fields.String(allow_none=True)


Post = tuple[Document, Sequence[Read]]
"""A system, and what it sent."""
Place = tuple[int, int]
"""Which post, and which event of it."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an event was not accepted."""

    why: str
    errors: Errors
    facts: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """What became of an event: the case's record and the system's reference, or why not.

    ``pending`` is the id under which a unit's desk was asked, and has not answered yet; ``more`` is
    what else is said.
    """

    event: Read
    document: Document | None = None
    reference: str | None = None
    refusal: Refusal | None = None
    pending: str | None = None
    more: Mapping[str, Any] | None = None

    def said(self) -> dict[str, Any]:
        """For whoever sent it."""
        named = {"source": self.event.source, "id": self.event.id, "type": self.event.type}
        if self.refusal is not None:
            errors = [{"field": name, "detail": why} for name, why in self.refusal.errors.items()]
            held_by = (self.refusal.facts or {}).get("held_by")
            told = {} if held_by is None else {"held_by": held_by}
            return {**named, "why": self.refusal.why, "errors": errors, **told}
        if self.document is None:
            return {**named, **(self.more or {})}
        own = (self.document["report"] or {}).get("external")
        if own is None or own["system"] != str(named["source"]).partition("/")[0]:
            # What it is called by another system is nobody's business.
            own = {"reference": self.reference}
        return {
            **named,
            "case": self.document["case"],
            "tracking": self.document["facts"]["tracking"],
            "reference": own["reference"],
            "status": self.document["status"],
            **({"pending": True} if self.pending is not None else {}),
            **(self.more or {}),
        }

    def reply(self, system: str, now: Instant) -> tuple[str, Event]:
        """The answer over AMQP, with its routing key."""
        case = self.document["case"] if self.document is not None else None
        word = "rejected" if self.refusal is not None else "accepted"
        return replies.answer(system, word, self.said(), now, case)


def _made(event: Read, document: Document | None, task: Task) -> Result:
    """What an event came to that was not refused; of what a desk was asked for, its answer."""
    if task.ask is None or document is None:
        return Result(event, document, task.reference, more=task.said)
    return answered(event, document, task.ask, task.reference)


def answered(event: Read, document: Document, ask: str, reference: str | None = None) -> Result:
    """What became of an event for which a unit's desk was asked."""
    answer = document["asks"][ask]["answer"]
    if answer is None:
        return Result(event, document, reference, pending=ask)
    if answer["answer"] == "accepted":
        return Result(event, document, reference)
    facts = {name: answer[name] for name in ("held_by",) if name in answer}
    return Result(event, refusal=Refusal("refused", answer["errors"], facts))


class Rates:
    """How fast each system may send: a bucket that fills at its rate, of two seconds' size."""

    def __init__(self) -> None:
        self._left: dict[str, tuple[float, float]] = {}

    def room(self, system: Document) -> float:
        """How many events may come now."""
        rate = float(system["rate"])
        most = max(2 * rate, float(MOST))
        left, since = self._left.get(system["name"], (most, monotonic()))
        now = monotonic()
        left = min(most, left + (now - since) * rate)
        self._left[system["name"]] = left, now
        return left

    def spend(self, system: Document, count: int) -> None:
        """That so many have come."""
        left = self.room(system) - count
        self._left[system["name"]] = left, monotonic()


class FrontDoor:
    """Takes events of systems, one process's."""

    def __init__(self, intake: IntakeShell) -> None:
        self._intake = intake
        self.rates = Rates()
        self._open: dict[str, tuple[int, float]] = {}

    def take(self, posts: Sequence[Post], door: str) -> list[list[Result]]:
        """What becomes of each event of each system; all is on disk when this returns.

        :param door: ``http`` or ``amqp``.
        :raises Retry: something is away: the same may be sent again.
        """
        results: dict[Place, Result] = {}
        loaded: list[dict[Place, Loaded]] = []
        for number, (system, events) in enumerate(posts):
            good: dict[Place, Loaded] = {}
            for index, event in enumerate(events):
                try:
                    good[number, index] = _loaded(self._intake, system, event, door)
                except _WHY_NOT as error:
                    results[number, index] = Result(event, refusal=_refusal(error))
            loaded.append(good)
        systems = [system for system, _ in posts]
        told = [good.values() for good in loaded]
        tasks: dict[Place, Task] = {}
        for basis, good in zip(
            Basis.reading(self._intake, list(zip(systems, told, strict=True))), loaded, strict=True
        ):
            self._tasks(basis, good, tasks, results)
        for place, outcome in self._run(tasks).items():
            event = posts[place[0]][1][place[1]]
            if outcome.error is None:
                results[place] = _made(event, outcome.document, tasks[place])
            else:
                results[place] = Result(event, refusal=_refusal(outcome.error))
        found = [
            [results[number, index] for index in range(len(events))]
            for number, (_, events) in enumerate(posts)
        ]
        for system, each in zip(systems, found, strict=True):
            self._told(system, each, door)
        return found

    def _tasks(
        self,
        basis: Basis,
        loaded: Mapping[Place, Loaded],
        tasks: dict[Place, Task],
        results: dict[Place, Result],
    ) -> None:
        """Adds what the events of one system come to, or why not."""
        for place, (event, data) in loaded.items():
            try:
                task = TYPES[event.type].handle(basis, event, data)
                if task.opens is not None:
                    self.one_more(basis.system)
                if not task.case:
                    results[place] = Result(event, more=task.said)
                else:
                    tasks[place] = task
            except _WHY_NOT as error:
                results[place] = Result(event, refusal=_refusal(error))

    def _told(self, system: Document, found: Sequence[Result], door: str) -> None:
        """Keeps and counts what became of a system's events.

        Here what costs more than another also takes more of the system's rate.
        """
        self._keep(system, [each for each in found if each.refusal is not None], door)
        for each in found:
            kind = TYPES.get(each.event.type or "")
            if kind is not None and kind.whole:
                self.rates.spend(system, self._of_whole() - 1)
            word = "accepted" if each.refusal is None else "rejected"
            metrics.INBOUND.labels(door, kind.name if kind else "unknown", word).inc()

    def _of_whole(self) -> int:
        """As how many events one counts with which the directory is made anew."""
        directory = self._intake.county.atlas().directory
        entries = len(directory.divisions) + len(directory.units) + len(directory.officers)
        return _WHOLE + entries // _ENTRIES

    def one_more(self, system: Document) -> None:
        """That one more case of a system may be open.

        :raises Refused: there are as many as may be.
        """
        if self._room(system) <= 0:
            raise _Crowded(system)
        count, at = self._open[system["name"]]
        self._open[system["name"]] = count + 1, at

    def rooms(self) -> Mapping[str, float]:
        """See :class:`services.bus.inbound.Rooms`."""
        systems = self._intake.systems.all().values()
        return {system["name"]: self.rates.room(system) for system in systems}

    def receive(self, parcels: Sequence[Parcel]) -> None:
        """What came over AMQP: all of it is answered before it is acknowledged.

        :raises Retry: something is away: the same may come again.
        """
        systems = self._intake.systems.all()
        posts: list[Post] = []
        for parcel in parcels:
            if parcel.system not in systems:
                # Its queue goes, too: nobody else may wait for it.
                log.warning("a removed system still sends", system=parcel.system)
                continue
            events = [
                of_amqp(each.content_type, each.headers, each.body) for each in parcel.messages
            ]
            posts.append((systems[parcel.system], events))
        now = self._intake.now
        try:
            found = self.take(posts, "amqp")
        except Retry:
            raise
        except Exception:
            # A defect of ours: who finds it sends no faster than others.
            if sum(len(sent) for _, sent in posts) == 1:
                self.rates.spend(posts[0][0], 1)
            raise
        # What a desk is asked for is answered when that has answered.
        answers = [
            each.reply(system["name"], now)
            for (system, _), results in zip(posts, found, strict=True)
            for each in results
            if each.pending is None
        ]
        for system, sent in posts:
            # Rubbish counts as well.
            self.rates.spend(system, len(sent))
        self._intake.publisher.reply(answers)

    def waited(self, results: list[Result]) -> list[Result]:
        """The same once the units' desks have answered, or after a moment as they are."""
        until, pause = monotonic() + ANSWER_SECONDS, 0.05
        while any(each.pending for each in results) and monotonic() < until:
            time.sleep(pause)
            pause = min(2 * pause, 0.5)
            # Any process may be the one that hears of the answer.
            cases = {each.document["case"] for each in results if each.pending and each.document}
            records = self._intake.store.read(list(cases))
            results = [_again(each, records) for each in results]
        return results

    def desks_answered(self, events: Sequence[Event], documents: Sequence[Document | None]) -> None:
        """Tells systems what the desks of their units say.

        :raises Retry: it could not be told: the events must come again.
        """
        told = []
        for event, document in zip(events, documents, strict=True):
            if event.type != acting.ANSWERED or document is None:
                continue
            identity = event.data["answered"]["id"]
            ask = document.get("asks", {}).get(identity)
            # A register that was restored knows nothing of it.
            if ask is None or ask["answer"] is None:
                continue
            result = answered(
                Incoming(ask["id"], ask["source"], ask["type"], None), document, identity
            )
            if result.refusal is not None:
                self._keep({"name": ask["system"]}, [result], "desk")
            told.append(result.reply(ask["system"], event.time))
        if told:
            self._intake.publisher.reply(told)

    def _run(self, tasks: Mapping[Place, Task]) -> dict[Place, Outcome]:
        """All in one step; each by itself if a code or reference is taken, or one can't be kept."""
        if not tasks:
            return {}
        fold = self._intake.fold
        try:
            outcomes = fold.run([task.attempt(0) for task in tasks.values()])
            return dict(zip(tasks, outcomes, strict=True))
        except (Collision, Reject):
            return {index: self._alone(task) for index, task in tasks.items()}

    def _alone(self, task: Task) -> Outcome:
        def run(work: Any) -> Document:
            outcome = self._intake.fold.run([work])[0]
            outcome.result()
            assert outcome.document is not None  # noqa: S101 - what is accepted has a record
            return outcome.document

        try:
            if task.opens is None:
                return Outcome(document=run(task.attempt(0)))
            return Outcome(document=opened(run, task.opens))
        except (Refused, Reject, Defer) as error:
            return Outcome(error=error)
        except Collision:
            said = f"{task.reference} was reported a moment ago: send a case.update"
            return Outcome(error=Refused(said))

    def _room(self, system: Document) -> int:
        """How many more cases of a system may be open; counted anew every few seconds."""
        name, most = system["name"], system["open_cases"]
        count, at = self._open.get(name, (0, float("-inf")))
        if monotonic() - at > _COUNTED_SECONDS:
            count, at = self._intake.store.open_of(user_of(name), most), monotonic()
            self._open[name] = count, at
        return int(most - count)

    def _keep(self, system: Document, refused: Sequence[Result], door: str) -> None:
        if refused:
            now = self._intake.now
            entries = [{"door": door, "at": now, "event": each.said()} for each in refused]
            self._intake.rejected.keep(system["name"], entries)


class DoorShell(IntakeShell):
    """Intake's shell with its front door."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.door = FrontDoor(self)
        self.rooms = self.door

    def tell(self, events: Sequence[Event], outcomes: Sequence[Outcome]) -> None:
        """Tells a system how far its own cases are, and keeps it for those who ask."""
        documents = [outcome.document for outcome in outcomes]
        told = list(zip(events, documents, strict=True))
        happened = happenings.entries(told, self.now)
        if happened:
            self.happenings.keep(happened)
        self.door.desks_answered(events, documents)
        bound: dict[str, list[str]] = {}
        for name, system in self.systems.all().items():
            bound.setdefault(system.get("unit") or "", []).append(name)
        found = [
            replies.status(event, document, name)
            for event, document in told
            if document is not None
            for name in sorted(replies.told(event, document, bound))
        ]
        if found:
            self.publisher.reply(found)


def _again(result: Result, records: Mapping[str, Record]) -> Result:
    if result.pending is None or result.document is None:
        return result
    record = records[result.document["case"]]
    if record.document is None:
        return result
    return answered(result.event, record.document, result.pending, result.reference)


class _NotRead(Exception):
    def __init__(self, event: Unread) -> None:
        super().__init__("not an event")
        self.event = event


class _Forbidden(Refused):
    def __init__(self, detail: str, field: str) -> None:
        super().__init__(detail)
        self.field = field


class _Crowded(Refused):
    def __init__(self, system: Document) -> None:
        super().__init__(
            f"{system['open_cases']} cases of {system['name']} are open, as many as may be: "
            "wait until some are settled, or ask an operator for more"
        )


_UNSEALED = (
    "Personal data goes over the bus sealed only: write sealed_reporter, or send it by HTTP."
)
_NUMBER = (
    "Over the bus no phone or identity number goes open: leave it out here, and write "
    "sealed_reporter, or send it by HTTP."
)


def _loaded(intake: IntakeShell, system: Document, event: Read, door: str) -> Loaded:
    """The event with its data, if the system may send it.

    :raises Exception: what says why not; see :func:`_refusal`.
    """
    if isinstance(event, Unread):
        raise _NotRead(event)
    name = system["name"]
    if event.source != name and not event.source.startswith(f"{name}/"):
        raise _Forbidden(f"{event.source} is not yours: write {name}, or {name}/...", "source")
    kind = TYPES.get(event.type)
    if kind is None:
        raise ValidationError({"type": [f"{event.type!r} is not taken: {', '.join(TYPES)}"]})
    must_be_allowed(system, kind.name)
    if not isinstance(event.data, dict):
        raise ValidationError({"data": ["Write a JSON object."]})
    if door == "amqp":
        _must_be_sealed(event.data)
    try:
        sealed = "sealed_reporter" in kind.loader.fields
        raw = opened_reporter(intake, event.data) if sealed else event.data
        data: dict[str, Any] = kind.loader.load(raw)
    except ValidationError as error:
        raise problems.of_validation(error, kind.loader) from error
    return event, data


def _must_be_sealed(data: dict[str, Any]) -> None:
    """That nothing open points to a person: what goes over AMQP may lie in queues.

    Other texts go on over the bus and are looked at whatever door they come through.

    :raises ValidationError: something does.
    """
    wrong = {"reporter": [_UNSEALED]} if data.get("reporter") is not None else {}
    for name in ("description", "address"):
        text = data.get(name)
        if isinstance(text, str) and has_personal_number(text):
            wrong[name] = [_NUMBER]
    if wrong:
        raise ValidationError({"data": wrong})


_WHY_NOT = (Refused, ValidationError, Problem, Reject, _NotRead)


def _refusal(error: Exception) -> Refusal:
    """What whoever sent it is told.

    An event of 64 KiB has room for 40,000 errors, and the broker takes no answer as long as that:
    whoever sent it would hold up all others for ever.
    """
    found = _why(error)
    more = len(found.errors) - _MOST_ERRORS
    if more <= 0:
        return found
    said = dict(islice(found.errors.items(), _MOST_ERRORS))
    return replace(found, errors={**said, "more": f"{more} more errors: mend these first"})


def _why(error: Exception) -> Refusal:
    match error:
        case _NotRead():
            return Refusal("too_large" if error.event.large else "invalid", error.event.errors)
        case _Forbidden():
            return Refusal("forbidden", {error.field: error.detail})
        case Refused():
            return Refusal("refused", {"event": error.detail}, error.facts)
        case ValidationError():
            messages = (
                error.messages if isinstance(error.messages, dict) else {"data": error.messages}
            )
            return Refusal("invalid", dict(flatten(messages)))
        case Problem():
            listed = error.facts.get("errors") or [{"field": "", "detail": error.detail}]
            errors = {f"data.{each['field']}".rstrip("."): each["detail"] for each in listed}
            return Refusal("invalid", errors)
        case Defer():
            raise Retry(str(error)) from error
        case _:
            return Refusal("invalid", {"event": str(error)})


def post(door: FrontDoor, systems: Mapping[str, Document], call: Call) -> Answer:
    """``POST /v1/events``: 202 with what became of each event.

    :raises Problem: it can't be taken apart, comes too fast, or the one event was refused.
    """
    system = of_subject(systems, call.identity.subject)
    sent = call.sent
    assert sent is not None  # noqa: S101 - the route has content
    # Who sends too fast is not even read, and what can't be taken apart has been read.
    must_have_room(door.rates, system, 1)
    try:
        events = of_http(sent.media_type, sent.fields, sent.body)
    except ValueError as error:
        door.rates.spend(system, 1)
        raise Problem(400, str(error), kind="not_a_batch") from error
    in_time(door.rates, system, len(events))
    (results,) = door.take([(system, events)], "http")
    results = door.waited(results)
    for each in results:
        if each.document is not None:
            call.trail.about(each.document["case"])
    call.trail.about(system=system["name"], sent=len(events))
    said = list(enumerate(results))
    accepted = [{"index": at, **each.said()} for at, each in said if each.refusal is None]
    rejected = [{"index": at, **each.said()} for at, each in said if each.refusal is not None]
    # A batch may be empty.
    if sent.media_type != BATCH and results[0].refusal is not None:
        raise _problem(results[0].refusal)
    return Answer({"accepted": accepted, "rejected": rejected})


_STATUS = {"invalid": 422, "refused": 409, "forbidden": 403, "too_large": 413}


def _problem(refusal: Refusal) -> Problem:
    listed = [{"field": name, "detail": why} for name, why in refusal.errors.items()]
    detail = "; ".join(f"{name}: {why}" for name, why in refusal.errors.items())
    facts = dict(refusal.facts or {})
    return Problem(_STATUS[refusal.why], detail, kind=refusal.why, **{**facts, "errors": listed})


def in_time(rates: Rates, system: Document, count: int) -> None:
    """That a system sends no faster than it may; what is let in counts.

    :raises Problem: a 429, with when to come again.
    """
    must_have_room(rates, system, count)
    rates.spend(system, count)


def must_have_room(rates: Rates, system: Document, count: int) -> None:
    """That a system may send so many events now.

    :raises Problem: a 429, with when to come again.
    """
    room = rates.room(system)
    if count > room:
        seconds = max(1, -int(-(count - room) // system["rate"]))
        raise Problem(
            429,
            f"{system['name']} may send {system['rate']} events a second: wait {seconds} s",
            kind="too_fast",
            headers={"Retry-After": str(seconds)},
        )


def rejected(intake: IntakeShell, call: Call) -> dict[str, Any]:
    """What was refused, the latest first."""
    query = call.query
    found, following = intake.rejected.page(query["system"], query["cursor"], query["limit"])
    return {"rejected": found, "next": following}
