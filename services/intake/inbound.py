"""What other systems may send, each type once, whatever door it comes through.

:data:`TYPES` is the table: a type, what it means, the schema of its data, and the handler that
makes of an event the :class:`Task` that is done. A handler raises what says why not; both doors
turn that into the same answer.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from marshmallow import Schema, ValidationError, fields, validate, validates_schema

from services.bus import problems
from services.bus.errors import Refused
from services.bus.fold import Decision, Document, Record, Work
from services.bus.sealing import LONGEST, NotOpened
from services.bus.systems import user_of
from services.grid.atlas import Atlas, entry_key
from services.grid.directory import Division
from services.grid.events.bindings import Incoming
from services.grid.events.envelope import NAMESPACE, event_id
from services.grid.events.parts import (
    CODE,
    WORD,
    InstantField,
    Number,
    attachments,
    plain,
    public_text,
)
from services.grid.problems import not_among
from services.grid.profile import profile_for
from services.grid.sensors import SensorRule, rule_for
from services.grid.tokens import Stage
from services.grid.whistles import MOST
from services.intake import acting, directory_api, model, sensing
from services.intake.api import LocationSchema, ReportBody, ReporterSchema
from services.intake.directory_api import IDENTITY, DivisionBody, DutyBody, OfficerBody, UnitBody
from services.intake.reporting import Opening, known_division, opening
from services.intake.sensing import MOST as MOST_SENSORS
from services.intake.sensing import Reading, Sensed
from services.intake.shell import IntakeShell
from services.intake.systems import must_be_inside, unit_of
from services.intake.updates import update


def opened(intake: IntakeShell, data: dict[str, Any]) -> dict[str, Any]:
    """A report's data with its reporter open.

    :raises ValidationError: it can't be opened; says nothing of what is in it.
    """
    sealed = data.get("sealed_reporter")
    if not isinstance(sealed, str) or len(sealed) > LONGEST:
        # The schema says what is wrong, if anything is.
        return data
    if data.get("reporter") is not None:
        raise ValidationError({"reporter": ["It is sealed already: leave it out."]})
    try:
        reporter = intake.unsealer.open(sealed)
    except NotOpened as error:
        raise ValidationError({"sealed_reporter": [str(error)]}) from error
    known = ReporterSchema().fields.keys()
    if not isinstance(reporter, dict) or reporter.keys() - known:
        # What else is in it is shown to nobody.
        said = f"holds something else: seal an object of {', '.join(known)}"
        raise ValidationError({"sealed_reporter": [said]})
    others = {name: value for name, value in data.items() if name != "sealed_reporter"}
    return {**others, "reporter": reporter}


Loaded = tuple[Incoming, dict[str, Any]]
"""An event with its loaded data."""

PREFIX, VERSION = "huashi.", ".v1"
_WITHDRAWALS = 100
"""So many of a case are remembered."""
_CASE = "5f0e6a52-6e0f-5d3f-8f1b-0f4f6a3b2c1d"
_PICTURE = {"url": "https://files.example.cn/lamp-2.jpg", "sha256": "6f" * 32}
_REFERENCE: list[Callable[[Any], Any]] = [validate.Length(1, 100), plain]


class ReportData(ReportBody):
    """``case.report``: a report as of ``POST /v1/cases``, with the system's own ``reference``.

    ``respond_by`` is when the system has promised an answer: the case has a deadline by then, on
    its own clock. ``sealed_reporter`` is ``reporter`` as a JWE to intake's key.
    """

    example: ClassVar[dict[str, Any]] = {
        **{name: value for name, value in ReportBody.example.items() if name != "external"},
        "reference": "12345-2026-0302-77",
        "respond_by": "2026-03-09T18:00:00+08:00",
    }
    minimal: ClassVar[dict[str, Any]] = {
        "reference": "12345-2026-0302-77",
        "division": "46900210421403007",
        "title": "文化广场路灯不亮",
        "category": "facility",
        "urgency": "ordinary",
        "source": "app",
    }

    class Meta:
        exclude = ("external",)

    reference = fields.String(required=True, validate=_REFERENCE)
    respond_by = InstantField(load_default=None, allow_none=True)
    sealed_reporter = fields.String(
        validate=validate.Length(1, LONGEST),
        metadata={"description": "`reporter`, encrypted to the key of `GET /v1/keys`"},
    )


class OfCase(Schema):
    """Which case it is about: ``case``, our id, or ``reference``, the system's own."""

    case = fields.UUID()
    reference = fields.String(validate=_REFERENCE)

    @validates_schema
    def _says_which(self, data: dict[str, Any], **_kwargs: Any) -> None:
        if ("case" in data) == ("reference" in data):
            raise ValidationError(
                "Say which case: case (our id), or reference (your own).", "reference"
            )


class UpdateData(OfCase):
    """``case.update``: what the system has learned since."""

    example: ClassVar[dict[str, Any]] = {
        "reference": "12345-2026-0302-77",
        "text": "来电人补充: 西侧第一盏也不亮。",
        "attachments": [_PICTURE],
    }
    minimal: ClassVar[dict[str, Any]] = {"reference": "12345-2026-0302-77", "text": "又有一盏不亮"}

    text = public_text(2000, lines=True, required=True, shortest=1)
    attachments = attachments("raise", load_default=list)


class WithdrawData(OfCase):
    """``case.withdraw`` (撤回): while nobody has resolved it."""

    example: ClassVar[dict[str, Any]] = {
        "reference": "12345-2026-0302-77",
        "reason": "来电人自己修好了",
    }
    minimal: ClassVar[dict[str, Any]] = example

    reason = public_text(500, required=True, shortest=1)


class AcknowledgeData(OfCase):
    """``case.acknowledge`` (接单): the unit accepts a case that it holds."""

    example: ClassVar[dict[str, Any]] = {"case": _CASE, "note": "已派员", "attachments": [_PICTURE]}
    minimal: ClassVar[dict[str, Any]] = {"case": _CASE}

    note = public_text(2000, lines=True, load_default="")
    attachments = attachments("raise", load_default=list)


class CheckInData(AcknowledgeData):
    """``case.check_in`` (报到): the unit has come to a case that it was called to."""

    example: ClassVar[dict[str, Any]] = {**AcknowledgeData.example, "note": "两名队员已到现场"}

    # As at the unit's desk.
    note = public_text(500, lines=True, load_default="")


class ProgressData(AcknowledgeData):
    """``case.progress`` (进展): how far the unit is; ``step`` of its procedure was done with it."""

    example: ClassVar[dict[str, Any]] = {
        **AcknowledgeData.example,
        "note": "已与双方谈话",
        "step": "proposed",
    }
    minimal: ClassVar[dict[str, Any]] = {"case": _CASE, "note": "已与双方谈话"}

    note = public_text(2000, lines=True, required=True, shortest=1)
    step = fields.String(validate=WORD)


class ResolveData(AcknowledgeData):
    """``case.resolve`` (办结): one of the profile's outcomes, and ``scores`` of units it called."""

    example: ClassVar[dict[str, Any]] = {
        **AcknowledgeData.example,
        "outcome": "settled",
        "note": "双方和解",
        "scores": {"469002104-market": 4},
    }
    minimal: ClassVar[dict[str, Any]] = {"case": _CASE, "outcome": "settled"}

    outcome = fields.String(required=True, validate=WORD)
    scores = fields.Dict(
        keys=fields.String(validate=validate.Length(1, 80)),
        values=fields.Integer(strict=True, validate=validate.Range(1, 5)),
        validate=validate.Length(max=MOST),
    )


class EntryData(Schema):
    """``directory.*``: an entry as it is to be, whole, or the id of one that goes (``retire``)."""

    retire = fields.String(validate=IDENTITY)

    @validates_schema
    def _says_one(self, data: dict[str, Any], **_kwargs: Any) -> None:
        if len(data) != 1:
            (name,) = self.fields.keys() - {"retire"}
            raise ValidationError(f"Say what it is to be, {name}, or retire: one of them.", name)


class DivisionData(Schema):
    """``directory.division`` (区划): a new one below one that there is, or its new name."""

    example: ClassVar[dict[str, Any]] = {
        "division": {
            "code": "46900210421404",
            "name": "四组",
            "level": "group",
            "parent": "469002104214",
            "kind": "group",
        }
    }
    minimal: ClassVar[dict[str, Any]] = example

    division = fields.Nested(DivisionBody, required=True)


class UnitData(EntryData):
    """``directory.unit`` (单位)."""

    example: ClassVar[dict[str, Any]] = {
        "unit": {
            "id": "469002104214-mediation",
            "name": "调解队",
            "level": "village",
            "division": "469002104214",
        }
    }
    minimal: ClassVar[dict[str, Any]] = {"retire": "469002104214-mediation"}

    unit = fields.Nested(UnitBody)


class OfficerData(EntryData):
    """``directory.officer`` (人员); contacts are notify's."""

    example: ClassVar[dict[str, Any]] = {
        "officer": {
            "id": "v-214-2",
            "name": "符网格员",
            "level": "village",
            "division": "469002104214",
            "unit": None,
            "role": "officer",
            "on_duty": True,
        }
    }
    minimal: ClassVar[dict[str, Any]] = {"retire": "v-214-2"}

    officer = fields.Nested(OfficerBody)


class DutyData(EntryData):
    """``directory.duty`` (值班): all that is said of an officer's."""

    example: ClassVar[dict[str, Any]] = {
        "duty": {
            "officer": "v-214",
            "shifts": [{"days": ["Mon", "Tue", "Wed", "Thu", "Fri"], "hours": "08:00-18:00"}],
            "leaves": [{"first": "2026-12-01", "last": "2026-12-03", "deputy": "v-214-2"}],
            "stand_ins": [{"first": "2026-12-05", "last": "2026-12-06"}],
            "deputy": "v-214-2",
        }
    }
    minimal: ClassVar[dict[str, Any]] = {"retire": "v-214"}

    duty = fields.Nested(DutyBody)


class ReadingData(Schema):
    """``sensor.reading`` (监测): what a sensor measured; the event's ``time`` is when.

    The profile says from which value on it is a case.
    """

    example: ClassVar[dict[str, Any]] = {
        "sensor": "reservoir-7",
        "division": "469002104214",
        "quantity": "over_flood_limit",
        "value": 0.35,
        "measured_in": "m",
        "location": {"lat": 19.1502, "long": 110.5823},
    }
    minimal: ClassVar[dict[str, Any]] = {
        name: value for name, value in example.items() if name != "location"
    }

    sensor = fields.String(required=True, validate=IDENTITY)
    division = fields.String(required=True, validate=CODE)
    quantity = fields.String(required=True, validate=WORD)
    value = Number(required=True)
    measured_in = fields.String(required=True, validate=[validate.Length(1, 20), plain])
    location = fields.Nested(LocationSchema)


@dataclass(frozen=True, slots=True)
class Task:
    """What an event comes to: the case it is about and the work, or how the case is opened.

    ``ask`` is the id under which a unit's desk is asked for it: it is done once that answers.
    ``said`` is what else the answer says; without a case all is done already, for the next event
    may build on it.
    """

    case: str = ""
    work: Work | None = None
    opens: Opening | None = None
    reference: str | None = None
    ask: str | None = None
    said: Mapping[str, Any] | None = None

    def attempt(self, number: int) -> Work:
        """The work; of a report with the tracking code of this number."""
        return self.opens(number) if self.opens is not None else self.work or Work(self.case, _none)


@dataclass(frozen=True, slots=True)
class Basis:
    """What the handlers of one batch of a system's events work with.

    ``records`` and ``references`` are what the register has of the cases that are meant, read for
    all at once; what the batch opens itself is added, for an update may follow its report.
    """

    intake: IntakeShell
    system: Document
    records: dict[str, Document]
    references: dict[str, str]

    @classmethod
    def reading(
        cls, intake: IntakeShell, posts: Sequence[tuple[Document, Iterable[Loaded]]]
    ) -> list[Basis]:
        """One for each system, with all that its events need of the register, in two queries.

        :raises services.bus.errors.DatabaseAway: it can't be read now.
        """
        cases, references = set(), set()
        for system, loaded in posts:
            for event, data in loaded:
                cases.add(case_of(event))
                if data.get("case") is not None:
                    cases.add(str(data["case"]))
                if data.get("reference") is not None:
                    references.add(reference_of(system, data["reference"]))
        records = intake.store.read(list(cases)) if cases else {}
        documents = {key: record.document for key, record in records.items() if record.document}
        known = intake.store.by_inbound(list(references)) if references else {}
        return [cls(intake, system, documents, known) for system, _ in posts]

    @property
    def by(self) -> str:
        """As whom the system reports."""
        return user_of(self.system["name"])

    def own(self, data: Mapping[str, Any]) -> str:
        """The case that is meant, if this system reported it.

        :raises Refused: it did not.
        """
        if "reference" in data:
            reference = data["reference"]
            found = self.references.get(reference_of(self.system, reference))
            if found is None:
                said = f"you reported no case as {reference}: report it first, or compare it"
                raise Refused(said)
            return found
        case = str(data["case"])
        document = self.records.get(case)
        # Whether there is such a case of another's is nobody's business.
        if document is None or (document["report"] or {}).get("by") != self.by:
            raise Refused(f"you reported no case {case}: compare it with what was accepted")
        return case


@dataclass(frozen=True)
class InboundType:
    """A type that other systems may send; ``handle`` is told the system and the loaded data.

    ``schema`` has an ``example`` and a ``minimal`` one. With one of a type that is ``whole`` the
    directory is checked and made anew as a whole.
    """

    name: str
    meaning: str
    schema: type[Schema]
    handle: Callable[[Basis, Incoming, dict[str, Any]], Task]
    whole: bool = False

    @cached_property
    def loader(self) -> Schema:
        """One instance of the schema, made once: marshmallow's set-up is dear."""
        return self.schema()

    @property
    def full_name(self) -> str:
        """As CloudEvents carry it."""
        return f"{PREFIX}{self.name}{VERSION}"


def case_of(event: Incoming) -> str:
    """The id of the case that this event opens: ``source`` and ``id`` are its idempotency key."""
    return str(uuid.uuid5(NAMESPACE, str(("inbound", event.source, event.id))))


def reference_of(system: Document, reference: str) -> str:
    """How the register knows a system's own reference."""
    return f"{system['name']}:{reference}"


def _report(basis: Basis, event: Incoming, data: dict[str, Any]) -> Task:
    case, intake, system = case_of(event), basis.intake, basis.system
    digest = intake.reporters.digest(data)
    reference, known_as = data["reference"], reference_of(system, data["reference"])
    if case in basis.records:
        # Answered before any rule is asked: they may have changed since.
        return Task(case, Work(case, lambda record: _same(record, digest)), reference=reference)
    other = basis.references.get(known_as, case)
    if other != case:
        raise Refused(
            f"{reference} was reported already, as case {other}: send a case.update, "
            "or another reference",
            case=other,
        )

    def inside(place: Division, atlas: Atlas) -> None:
        must_be_inside(system, place.code, atlas)

    external = {"system": system["name"], "reference": reference}
    body = {**data, "external": external, "inbound": known_as}
    opens = opening(intake, case, body, basis.by, digest, within=inside)
    basis.references[known_as] = case
    return Task(case, opens=opens, reference=reference)


def _same(record: Record, digest: str) -> Decision:
    document = record.document or {}
    try:
        return Decision(document, answer=model.same_report(document, digest))
    except Refused as error:
        raise Refused(
            "another report was sent under the same source and id: use a new id"
        ) from error


def _update(basis: Basis, event: Incoming, data: dict[str, Any]) -> Task:
    case, by = basis.own(data), basis.by
    identity = event_id(event.source, event.id, event.type)
    atlas, now = basis.intake.county.atlas(), basis.intake.now

    def change(record: Record) -> Decision:
        return update(_there(record), identity, data, by, atlas=atlas, now=now)

    return Task(case, Work(case, change), reference=data.get("reference"))


def _withdraw(basis: Basis, event: Incoming, data: dict[str, Any]) -> Task:
    case, by = basis.own(data), basis.by
    identity = event_id(event.source, event.id, event.type)
    atlas, now = basis.intake.county.atlas(), basis.intake.now

    def change(record: Record) -> Decision:
        document = _there(record)
        heard = document.get("withdrawn_by", [])
        if identity in heard:
            # It may have been reopened since: what comes once more takes back no later round.
            return Decision(document, answer=document)
        made = model.withdraw(document, by, data["reason"], atlas=atlas, now=now)
        kept = [*heard, identity][-_WITHDRAWALS:]
        document = {**(made.document or document), "withdrawn_by": kept}
        return Decision(document, made.events, document)

    return Task(case, Work(case, change), reference=data.get("reference"))


def _acts(act: str) -> Callable[[Basis, Incoming, dict[str, Any]], Task]:
    """The handler of what a system does for its unit: the unit's desk is asked for it."""

    def handle(basis: Basis, event: Incoming, data: dict[str, Any]) -> Task:
        atlas, now = basis.intake.county.atlas(), basis.intake.now
        unit, name = unit_of(basis.system, atlas), basis.system["name"]
        case = str(data["case"]) if "case" in data else basis.own(data)
        identity = event_id(event.source, event.id, event.type)
        left_out = ("case", "reference")
        said = {"act": act, **{key: data[key] for key in data if key not in left_out}}

        def change(record: Record) -> Decision:
            if record.document is None:
                raise acting.no_such_case(unit)
            of = {"system": name, "by": basis.by, "atlas": atlas, "now": now}
            return acting.ask(record.document, event, identity, said, unit, **of)

        return Task(case, Work(case, change), reference=data.get("reference"), ask=identity)

    return handle


_LISTS = {"division": "divisions", "unit": "units", "officer": "officers", "duty": "duties"}


def _entry(kind: str) -> Callable[[Basis, Incoming, dict[str, Any]], Task]:
    """The handler of an entry of the directory, with the checks of ``POST /v1/directory``."""

    def handle(basis: Basis, event: Incoming, data: dict[str, Any]) -> Task:
        intake, atlas = basis.intake, basis.intake.county.atlas()
        body: dict[str, list[Any]] = {name: [] for name in (*_LISTS.values(), "retire")}
        if kind in data:
            body[_LISTS[kind]] = [data[kind]]
        else:
            body["retire"] = [f"{kind}:{data['retire']}"]
        identity = event_id(event.source, event.id, event.type)
        key = entry_key(kind, data[kind]) if kind in data else f"{kind}:{data['retire']}"
        if directory_api.heard(intake, key, identity):
            # Answered before any rule is asked: the directory may have changed since.
            return Task(said={"entries": [{"id": key, "change": "unchanged"}]})
        known, wanted, errors = directory_api.planned(intake, body)
        for item in wanted:
            before = known.get(entry_key(item.kind, item.entry))
            for entry in (item.entry, *([before["entry"]] if before else [])):
                # A new division is inside if what is above it is.
                place = entry.get("parent") or entry.get("code") or entry["division"]
                must_be_inside(basis.system, place, atlas)
        if errors:
            listed = (f"{_LISTS[kind]}.0", "retire.0")
            raise problems.invalid(
                {_named(field, kind, listed): why for field, why in errors.items()}
            )
        found = directory_api.applied(intake, wanted, origin=basis.by, by=identity)
        return Task(said={"entries": found})

    return handle


def _named(field: str, kind: str, listed: tuple[str, str]) -> str:
    """A field of a request as it is called in an event."""
    return field.replace(listed[0], kind).replace(listed[1], "retire")


def _reading(basis: Basis, event: Incoming, data: dict[str, Any]) -> Task:
    intake, system, now = basis.intake, basis.system, basis.intake.now
    atlas, code = intake.county.atlas(), data["division"]
    if event.time is None:
        raise ValidationError({"time": ["Write when it was measured."]})
    must_be_inside(system, known_division(atlas, code).code, atlas)
    rule = _rule(atlas, data)
    # Another's clock may run ahead of ours.
    time = min(event.time, now)
    reading = Reading(system["name"], data["sensor"], data["quantity"], data["value"], time)
    known = intake.sensors.read([reading.key]).get(reading.key)
    if known is None and intake.sensors.count(system["name"]) >= MOST_SENSORS:
        raise Refused(f"{system['name']} has {MOST_SENSORS} sensors already, as many as may be")
    case = known.document["case"] if known is not None and known.document else None
    record = intake.store.read([case]).get(case) if case is not None else None
    there = record.document if record is not None else None
    stage = there["state"]["token"]["stage"] if there is not None else None

    def take(record: Record) -> Decision:
        # Whoever was faster has just opened another one.
        same = record.document is None or record.document["case"] == case
        return sensing.take(record.document, reading, rule, stage if same else Stage.HELD.word)

    sensed: Sensed = intake.sensor_fold.run([Work(reading.key, take)])[0].result()
    said = {"reading": sensed.state}
    if sensed.case is None:
        return Task(said=said)
    if sensed.opens and sensed.case == case and there is not None:
        # The same reading once more.
        same = Work(sensed.case, lambda record: Decision(None, answer=record.document))
        return Task(sensed.case, same, said=said)
    text = f"{rule.title}: {data['value']:g} {rule.measured_in}, {time}"
    if not sensed.opens:
        identity = event_id(event.source, event.id, event.type)
        told, by = {"text": text, "attachments": []}, basis.by

        def change(record: Record) -> Decision:
            try:
                return update(_there(record), identity, told, by, atlas=atlas, now=now)
            except Refused:
                # It has ended meanwhile, or has enough of them.
                return Decision(record.document, answer=record.document)

        return Task(sensed.case, Work(sensed.case, change), said=said)
    reference = f"{data['sensor']}/{data['quantity']}/{sensed.number}"
    body = {
        **{"division": code, "address": None, "title": rule.title, "description": text},
        **{"category": rule.category, "urgency": rule.urgency, "source": rule.reported_as},
        **{"occurred_at": time, "location": data.get("location"), "attachments": []},
        "external": {"system": system["name"], "reference": reference},
        "inbound": reference_of(system, reference),
        "reporter": None,
    }
    # Whichever reading opens it, it is the same.
    digest = intake.reporters.digest(["sensor", sensed.case])
    opens = opening(intake, sensed.case, body, basis.by, digest)
    return Task(sensed.case, opens=opens, reference=reference, said=said)


def _rule(atlas: Atlas, data: Mapping[str, Any]) -> SensorRule:
    """The line of the profile that is for a reading.

    :raises Problem: a 422; there is none, or it counts in another unit.
    """
    profile = profile_for(atlas.current, data["division"], atlas.directory)
    rules = profile.sensors if profile is not None else ()
    rule = rule_for(rules, data["quantity"], data["sensor"])
    if rule is None:
        known = sorted({item.quantity for item in rules})
        why = not_among(data["quantity"], known) if known else "the profile there has no sensors"
        raise problems.invalid({"quantity": why})
    if data["measured_in"] != rule.measured_in:
        raise problems.invalid({"measured_in": f"the profile counts in {rule.measured_in}"})
    return rule


def _there(record: Record) -> Document:
    """The case, unless its report in the same batch was refused."""
    if record.document is None:
        raise Refused("the report of this case was refused: mend that first")
    return record.document


def _none(_record: Record) -> Decision:
    return Decision(None)


TYPES: dict[str, InboundType] = {
    kind.full_name: kind
    for kind in (
        InboundType("case.report", "A case is reported.", ReportData, _report),
        InboundType("case.update", "More is known of a case.", UpdateData, _update),
        InboundType("case.withdraw", "A report is taken back (撤回).", WithdrawData, _withdraw),
        InboundType(
            "case.acknowledge",
            "A unit accepts a case (接单).",
            AcknowledgeData,
            _acts("acknowledge"),
        ),
        InboundType(
            "case.progress", "A unit says how far it is (进展).", ProgressData, _acts("progress")
        ),
        InboundType(
            "case.check_in",
            "A unit that was called has come (报到).",
            CheckInData,
            _acts("check_in"),
        ),
        InboundType("case.resolve", "A unit settles a case (办结).", ResolveData, _acts("resolve")),
        InboundType(
            "directory.division",
            "A division is new, or is called otherwise (区划).",
            DivisionData,
            _entry("division"),
            whole=True,
        ),
        InboundType(
            "directory.unit",
            "A unit as it is now (单位).",
            UnitData,
            _entry("unit"),
            whole=True,
        ),
        InboundType(
            "directory.officer",
            "An officer as they are now (人员).",
            OfficerData,
            _entry("officer"),
            whole=True,
        ),
        InboundType("sensor.reading", "A sensor measured something (监测).", ReadingData, _reading),
        InboundType(
            "directory.duty",
            "An officer's duty (值班).",
            DutyData,
            _entry("duty"),
            whole=True,
        ),
    )
}
"""By full name, ``huashi.case.report.v1``."""
