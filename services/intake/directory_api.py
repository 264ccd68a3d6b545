"""The directory over HTTP: people, units and duty as operators change them while services run.

What a profile folder says is the beginning (:mod:`services.intake.directory`); who goes on leave
tomorrow is said here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, ClassVar

from marshmallow import RAISE, Schema, ValidationError, fields, validate, validates_schema

from services.bus import logs, problems
from services.bus.fold import Record
from services.bus.openapi import Shown
from services.bus.paging import Cursor, PageQuery
from services.bus.web import Call
from services.grid.atlas import Atlas, Entry, entry_key
from services.grid.calendars import WEEK
from services.grid.directory import KINDS as DIVISION_KINDS
from services.grid.directory import Directory, Division, Officer, Unit
from services.grid.directory_source import MOST_STRETCHES, kind_of, misplaced
from services.grid.duty import ALWAYS
from services.grid.events.directory import (
    DAY,
    HOURS,
    WEEKS,
    DivisionSchema,
    OfficerSchema,
    UnitSchema,
)
from services.grid.events.parts import CODE, Flag, InstantField, public_text
from services.grid.problems import not_among
from services.grid.profile import profile_at, profile_for
from services.intake.directory import OPERATOR, Wanted, names, wanted_work
from services.intake.shell import IntakeShell

log = logs.get(__name__)

EDITORS = ("operator",)
SEEING = ("operator", "auditor")
KINDS = ("division", "unit", "officer", "duty")
"""The kinds of entries that are shown; profiles and emergencies have routes of their own."""
CHANGES = ("new", "changed", "retired", "unchanged")

_MOST = 200
"""How many entries one request may change."""
IDENTITY = validate.Regexp(
    r"^[A-Za-z0-9][A-Za-z0-9._-]{0,79}\Z",
    error="Write letters, digits, '.', '_' and '-', at most 80.",
)
"""The id of an entry."""


class DivisionBody(DivisionSchema):
    """A division (区划) below one that there is, as ``divisions.csv`` has it."""

    class Meta:
        unknown = RAISE

    name = public_text(80, required=True, shortest=1)
    kind = fields.String(
        load_default=None,
        allow_none=True,
        validate=validate.OneOf(DIVISION_KINDS),
        metadata={"description": "by default, what its name and level say"},
    )


class UnitBody(UnitSchema):
    """A unit (单位), as ``units.csv`` has it."""

    class Meta:
        unknown = RAISE

    id = fields.String(required=True, validate=IDENTITY)
    name = public_text(80, required=True, shortest=1)


class OfficerBody(OfficerSchema):
    """An officer, as ``officers.csv`` has them. Contacts are notify's."""

    class Meta:
        unknown = RAISE

    id = fields.String(required=True, validate=IDENTITY)
    name = public_text(80, required=True, shortest=1)
    unit = fields.String(load_default=None, allow_none=True)
    on_duty = Flag(load_default=True)


class ShiftBody(Schema):
    """Hours on days of the week, within dates; what is left out is each day, all day, always."""

    days = fields.List(
        fields.String(validate=validate.OneOf(WEEK)),
        load_default=lambda: list(WEEK),
        validate=validate.Length(1, 7),
    )
    hours = fields.String(load_default=ALWAYS, validate=HOURS)
    first = fields.String(load_default=None, allow_none=True, validate=DAY)
    last = fields.String(load_default=None, allow_none=True, validate=DAY)
    weeks = fields.String(load_default=None, allow_none=True, validate=WEEKS)

    @validates_schema
    def _in_order(self, data: dict[str, Any], **_kwargs: Any) -> None:
        first, last = data.get("first"), data.get("last")
        if first and last and last < first:
            raise ValidationError(f"{last} is before {first}: write the first day there.", "last")
        if data.get("weeks") and not first:
            raise ValidationError("Weeks are counted from a date: write it here.", "first")


class StandInBody(ShiftBody):
    """Hours at which an officer is on duty besides, from a first to a last day."""

    first = fields.String(required=True, validate=DAY)
    last = fields.String(required=True, validate=DAY)


class LeaveBody(StandInBody):
    """Hours at which an officer is away (休假), and who takes over."""

    deputy = fields.String(load_default=None, allow_none=True)


_LENGTH = validate.Length(max=MOST_STRETCHES)


class DutyBody(Schema):
    """All that is said of an officer's duty (值班), in the time zone of the profile."""

    officer = fields.String(required=True, validate=IDENTITY)
    shifts = fields.List(fields.Nested(ShiftBody), load_default=list, validate=_LENGTH)
    leaves = fields.List(fields.Nested(LeaveBody), load_default=list, validate=_LENGTH)
    stand_ins = fields.List(fields.Nested(StandInBody), load_default=list, validate=_LENGTH)
    deputy = fields.String(load_default=None, allow_none=True)


class DirectoryBody(Schema):
    """Body of ``POST /v1/directory``: entries as they are to be, each whole; what goes.

    ``retire`` names them as answers do: ``officer:v-214``.
    """

    example: ClassVar[dict[str, Any]] = {
        "officers": [
            {
                "id": "v-214-2",
                "name": "符网格员",
                "level": "village",
                "division": "469002104214",
                "role": "officer",
            }
        ],
        "duties": [
            {
                "officer": "v-214",
                "leaves": [{"first": "2026-12-01", "last": "2026-12-03", "deputy": "v-214-2"}],
            }
        ],
        "dry_run": True,
    }

    divisions = fields.List(fields.Nested(DivisionBody), load_default=list)
    units = fields.List(fields.Nested(UnitBody), load_default=list)
    officers = fields.List(fields.Nested(OfficerBody), load_default=list)
    duties = fields.List(fields.Nested(DutyBody), load_default=list)
    retire = fields.List(
        fields.String(
            validate=validate.Regexp(
                r"^(unit|officer|duty):[A-Za-z0-9][A-Za-z0-9._-]{0,79}\Z",
                error="Write a kind and an id, such as officer:v-214, unit:… or duty:….",
            )
        ),
        load_default=list,
    )
    dry_run = Flag(load_default=False)

    @validates_schema
    def _says_each_once(self, data: dict[str, Any], **_kwargs: Any) -> None:
        named = [
            *(f"division:{item['code']}" for item in data["divisions"]),
            *(f"unit:{item['id']}" for item in data["units"]),
            *(f"officer:{item['id']}" for item in data["officers"]),
            *(f"duty:{item['officer']}" for item in data["duties"]),
            *data["retire"],
        ]
        if not 0 < len(named) <= _MOST:
            raise ValidationError(
                f"Name 1 to {_MOST} entries in divisions, units, officers, duties, retire."
            )
        twice = sorted({name for name in named if named.count(name) > 1})
        if twice:
            raise ValidationError(f"{', '.join(twice)} is named twice: keep one.")


class DirectoryQuery(PageQuery):
    """Query of ``GET /v1/directory``."""

    example: ClassVar[dict[str, Any]] = {
        "kind": "officer",
        "division": "469002104214",
        "limit": 20,
    }

    kind = fields.String(required=True, validate=validate.OneOf(KINDS))
    division = fields.String(validate=CODE, load_default=None)


class EntryShown(Shown):
    """An entry of the directory; ``entry`` is as its event carries it."""

    id = fields.String(metadata={"example": "officer:v-214"})
    kind = fields.String(validate=validate.OneOf(KINDS))
    version = fields.Integer()
    changed_at = InstantField()
    origin = fields.String(
        metadata={
            "description": "`profile:<name>` if its folder has it, or `operator`, `system.<name>`"
        }
    )
    entry = fields.Dict(keys=fields.String())


class EntriesPage(Shown):
    """A page of the directory, in the order of ids; what is retired is left out."""

    entries = fields.List(fields.Nested(EntryShown))
    next = fields.String(allow_none=True)


class EntryChange(Shown):
    """What became, or would become, of one entry."""

    id = fields.String(metadata={"example": "officer:v-214"})
    change = fields.String(validate=validate.OneOf(CHANGES))


class DirectoryChanged(Shown):
    """What became of each entry, as the request has them; duties that move along; what goes."""

    dry_run = fields.Boolean()
    entries = fields.List(fields.Nested(EntryChange))


def entries(intake: IntakeShell, call: Call) -> dict[str, Any]:
    """A page of the directory's entries of one kind, as far as the caller's scope reaches."""
    query, atlas = call.query, intake.county.atlas()
    scope = call.guard.narrowed(atlas, query["division"])
    after = query["cursor"].key if query["cursor"] else ""
    kept = {
        key: item
        for item in intake.county.entries()
        if item["kind"] == query["kind"]
        and not item["retired"]
        and (key := entry_key(item["kind"], item["entry"])) > after
        and (scope.division is None or _within(item["entry"], scope.division, atlas))
    }
    page = sorted(kept)[: query["limit"]]
    more = len(kept) > len(page)
    return {
        "entries": [_shown(key, kept[key]) for key in page],
        "next": Cursor("", page[-1]).text() if more else None,
    }


def change(intake: IntakeShell, call: Call) -> dict[str, Any]:
    """Makes entries what an operator says: all of them, or none if one of them is wrong."""
    body, atlas = call.body, intake.county.atlas()
    known, wanted, errors = planned(intake, body)
    for item in wanted:
        # Who moves an officer must reach both places.
        before = known.get(_key(item), {"entry": item.entry})
        for place in (item.entry, before["entry"]):
            # A new division is in the scope if what is above it is.
            call.guard.narrowed(atlas, place.get("parent") or _place(place))
    call.guard.asked = True
    if errors:
        raise problems.invalid(errors)
    found = applied(intake, wanted, dry_run=body["dry_run"])
    call.trail.about(
        dry_run=body["dry_run"],
        entries=[item["id"] for item in found if item["change"] != "unchanged"],
    )
    return {"dry_run": body["dry_run"], "entries": found}


def heard(intake: IntakeShell, key: str, by: str) -> bool:
    """Whether an entry was said by this event of a system already, be it retired since."""
    return any(
        by in item.get("heard", ())
        for item in intake.county.entries()
        if entry_key(item["kind"], item["entry"]) == key
    )


def planned(
    intake: IntakeShell, body: Mapping[str, Any]
) -> tuple[dict[str, Entry], list[Wanted], dict[str, str]]:
    """The entries that there are, what a request wants of them, and each wrong field."""
    known = {
        entry_key(item["kind"], item["entry"]): item
        for item in intake.county.entries()
        if not item["retired"]
    }
    wanted, errors = _read(body, intake.county.atlas(), known)
    return known, wanted, errors


def applied(
    intake: IntakeShell,
    wanted: Sequence[Wanted],
    *,
    dry_run: bool = False,
    origin: str = OPERATOR,
    by: str | None = None,
) -> list[dict[str, str]]:
    """Makes entries what is wanted of them: what became of each.

    :param by: see :func:`services.intake.directory.wanted_work`.
    """
    now, changed, there = intake.now, intake.clock.real(), intake.county.atlas().directory
    works = [wanted_work(item, there, now, changed, origin=origin, by=by) for item in wanted]
    if dry_run:
        records = intake.directory_fold.store.read([work.key for work in works])
        words = [work.change(records.get(work.key) or Record(work.key)).answer for work in works]
    else:
        outcomes = intake.directory_fold.run(works)
        words = [outcome.result() for outcome in outcomes]
        intake.county.absorbed(outcomes)
        log.info("the directory is changed", entries=len(words), by=origin)
    return [{"id": work.key, "change": word} for work, word in zip(works, words, strict=True)]


def _key(wanted: Wanted) -> str:
    return entry_key(wanted.kind, wanted.entry)


def _within(entry: Mapping[str, Any], division: str, atlas: Atlas) -> bool:
    return atlas.directory.within(_place(entry), division)


def _place(entry: Mapping[str, Any]) -> str:
    """Where an entry is."""
    return str(entry.get("code") or entry["division"])


def _shown(key: str, item: Entry) -> dict[str, Any]:
    return {
        "id": key,
        "kind": item["kind"],
        "version": item["version"],
        "changed_at": item["time"],
        "origin": item["origin"],
        "entry": item["entry"],
    }


def _read(
    body: Mapping[str, Any], atlas: Atlas, known: Mapping[str, Entry]
) -> tuple[list[Wanted], dict[str, str]]:
    """What a request wants, in its order, and each wrong field with the cure.

    What is wrong has no place in the directory, so that nothing more can be said of it.
    """
    errors: dict[str, str] = {}
    gone = set(body["retire"])
    units = {unit.id: unit for unit in atlas.directory.units.values()}
    units |= {item["id"]: Unit(**item) for item in body["units"]}
    officers = {item.id: item for item in atlas.directory.officers.values()}
    officers |= {item["id"]: Officer(**item) for item in body["officers"]}
    divisions = {**atlas.directory.divisions}
    divisions |= {item["code"]: Division.of(item) for item in body["divisions"]}
    there = Directory(
        divisions=divisions.values(),
        units=[unit for unit in units.values() if f"unit:{unit.id}" not in gone],
        officers=[item for item in officers.values() if f"officer:{item.id}" not in gone],
    )
    wanted = [
        *_places(body["divisions"], there, atlas, errors),
        *_people(body, there, atlas, errors),
        *_duties(body["duties"], there, atlas, errors),
        *_carried(body, known),
    ]
    duties = _duties_left(body, known)
    for index, name in enumerate(body["retire"]):
        item, wrong = known.get(name), _kept_by(name, there, atlas, duties)
        if item is None:
            wrong = "is not in the directory: write the id of an entry that is (GET /v1/directory)"
        if item is None or wrong is not None:
            errors[f"retire.{index}"] = f"{name} {wrong}"
        else:
            wanted.append(Wanted(item["kind"], item["entry"], retired=True))
    return wanted, errors


def _places(
    divisions: Sequence[Mapping[str, Any]],
    there: Directory,
    atlas: Atlas,
    errors: dict[str, str],
) -> Iterator[Wanted]:
    """Divisions: new ones below what there is, and other names; where it is stays."""
    for index, said in enumerate(divisions):
        # A group that no list has is there all the same, and no more to be moved.
        listed = atlas.directory.divisions.get(said["code"])
        wrong, before = {}, listed or atlas.directory.division(said["code"])
        above = there.parent(said["code"])
        if above is None or profile_for(atlas.current, above.code, there) is None:
            wrong["parent"] = f"{said['parent']} is in no profile's region: write what is above it"
        elif before is not None and (
            before.parent != above.code or (listed is not None and listed.level != said["level"])
        ):
            wrong["parent"] = (
                f"{before.code} is a {before.level} of {before.parent}: divisions move only with "
                "the profile's folder"
            )
        elif (said["level"], above.level) not in atlas.directory.level_pairs:
            pairs = sorted(low for low, high in atlas.directory.level_pairs if high == above.level)
            wrong["level"] = not_among(said["level"], pairs)
        errors |= {f"divisions.{index}.{name}": why for name, why in wrong.items()}
        if not wrong:
            kind = said["kind"] or kind_of(said["level"], said["name"])
            entry = {**said, "kind": kind}
            if before is not None and before.location is not None:
                # Another name moves nothing on the map.
                entry.setdefault("location", asdict(before.location))
            yield Wanted("division", entry)


def _people(
    body: Mapping[str, Any], there: Directory, atlas: Atlas, errors: dict[str, str]
) -> Iterator[Wanted]:
    """Units and officers."""
    named: dict[tuple[str, str, str], list[str]] = {}
    for unit in there.units.values():
        named.setdefault((unit.level, unit.division, unit.name), []).append(unit.id)
    for kind, made, listed in (("unit", Unit, "units"), ("officer", Officer, "officers")):
        for index, entry in enumerate(body[listed]):
            place = f"{listed}.{index}"
            profile = profile_at(atlas.current, entry["level"], entry["division"], there)
            levels = profile.levels if profile is not None else ()
            item = made(**entry)
            wrong = dict(misplaced(item, there, levels))
            if isinstance(item, Unit):
                alike = named[item.level, item.division, item.name]
                if len(alike) > 1:
                    other = next(each for each in alike if each != item.id)
                    wrong["name"] = f"{item.name} is {other} there already: write another name"
            errors |= {f"{place}.{name}": said for name, said in wrong.items()}
            if "division" not in wrong:
                yield Wanted(kind, entry)
            if isinstance(item, Unit) and not wrong:
                wrong = dict(_left_behind(item, there, atlas))
                errors |= {f"{place}.{name}": said for name, said in wrong.items()}


def _left_behind(unit: Unit, there: Directory, atlas: Atlas) -> Iterator[tuple[str, str]]:
    """Why a unit can't be another: who would be left where it was, which profile names it."""
    members = [item for item in there.officers.values() if item.unit == unit.id]
    elsewhere = sorted(
        item.id for item in members if (item.level, item.division) != (unit.level, unit.division)
    )
    if elsewhere:
        said = f"{unit.id} has officers elsewhere: move them with it"
        yield "division", f"{said} ({', '.join(elsewhere[:5])})"
    before = atlas.directory.units.get(unit.id)
    if before is not None and before.name != unit.name:
        naming = [item.name for item in atlas.current if names(item.rules, {before.name})]
        if naming:
            yield "name", f"{before.name} is named by profile {naming[0]}: change its rules first"


def _carried(body: Mapping[str, Any], known: Mapping[str, Entry]) -> Iterator[Wanted]:
    """The duties of officers who move, of which nothing else is said: they are where these are."""
    said = {f"duty:{item['officer']}" for item in body["duties"]} | {*body["retire"]}
    for officer in body["officers"]:
        key = f"duty:{officer['id']}"
        duty = known[key]["entry"] if key in known and key not in said else None
        if duty is not None and duty["division"] != officer["division"]:
            yield Wanted("duty", {**duty, "division": officer["division"]})


def _duties(
    duties: Sequence[Mapping[str, Any]],
    there: Directory,
    atlas: Atlas,
    errors: dict[str, str],
) -> Iterator[Wanted]:
    """Duties, with the division of the officer and the zone of the profile there."""
    for index, said in enumerate(duties):
        place, officer = f"duties.{index}", there.officers.get(said["officer"])
        named = {"deputy": said["deputy"]}
        named |= {f"leaves.{at}.deputy": leave["deputy"] for at, leave in enumerate(said["leaves"])}
        for field, deputy in named.items():
            if deputy == said["officer"]:
                errors[f"{place}.{field}"] = f"{deputy} can't take over for {deputy}"
            elif deputy is not None and deputy not in there.officers:
                errors[f"{place}.{field}"] = f"{deputy!r} is no officer of the directory"
        if officer is None:
            errors[f"{place}.officer"] = f"{said['officer']!r} is no officer of the directory"
            continue
        profile = profile_at(atlas.current, officer.level, officer.division, there)
        if profile is None:
            where = f"{officer.level} {officer.division}"
            errors[f"{place}.officer"] = f"no profile's ladder leads to {said['officer']} ({where})"
            continue
        lists = {
            name: [
                {**item, "days": sorted(set(item["days"]), key=WEEK.index)} for item in said[name]
            ]
            for name in ("shifts", "leaves", "stand_ins")
        }
        zone = {"division": officer.division, "timezone": profile.timezone}
        yield Wanted("duty", {**said, **lists, **zone})


def _duties_left(body: Mapping[str, Any], known: Mapping[str, Entry]) -> list[Mapping[str, Any]]:
    """The duties that there will be: those that there are, but what is said anew or goes."""
    gone = {*body["retire"]}
    there = {key: item["entry"] for key, item in known.items() if item["kind"] == "duty"}
    there |= {f"duty:{item['officer']}": item for item in body["duties"]}
    return [
        duty
        for key, duty in sorted(there.items())
        # Without the officer a duty says nothing.
        if key not in gone and f"officer:{duty['officer']}" not in gone
    ]


def _kept_by(
    name: str, there: Directory, atlas: Atlas, duties: Sequence[Mapping[str, Any]]
) -> str | None:
    """Why an entry can't go: who is in the unit, whose deputy it is, or which profile names it."""
    kind, _, identity = name.partition(":")
    if kind == "officer":
        of = [
            duty["officer"]
            for duty in duties
            if identity in (duty.get("deputy"), *(item.get("deputy") for item in duty["leaves"]))
        ]
        shown = ", ".join(of[:5])
        return f"is deputy of {shown}: name another in their duty first" if of else None
    if kind != "unit" or identity not in atlas.directory.units:
        return None
    members = sorted(item.id for item in there.officers.values() if item.unit == identity)
    if members:
        return f"has officers: retire or move them first ({', '.join(members[:5])})"
    words = {identity, atlas.directory.units[identity].name}
    naming = [profile.name for profile in atlas.current if names(profile.rules, words)]
    return f"is named by profile {naming[0]}: change its rules first" if naming else None
