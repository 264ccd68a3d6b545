"""The rules of a profile, and how they are read: every mistake is found, with its cure.

What a profile may say is what the ``_Reader``'s methods read, one for each part; a key that
none of them reads is an error.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import time
from difflib import get_close_matches
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from math import isfinite
from string import Formatter
from typing import Any, NamedTuple, TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from services.grid import deadlines
from services.grid.calendars import ALL_DAY, Calendar, Hours, read_days, read_hours
from services.grid.clocks import CLOCKS, ENDED
from services.grid.conditions import (
    ALWAYS,
    FACTS,
    FIELDS,
    UNIT,
    Condition,
    uncovered,
    unreachable,
)
from services.grid.deadlines import DeadlineRule, Reminder, Term, Then
from services.grid.directory import LEVEL_OF_LENGTH
from services.grid.events import of_consumer
from services.grid.problems import Problem, ProfileError, not_among
from services.grid.profile_source import Place, Source, field_name
from services.grid.sensors import SIDES, SensorRule
from services.grid.whistles import KINDS as CALL_KINDS
from services.grid.whistles import SUPERVISE, WhistleRule, call_term

FILE = "profile.yaml"
UNSTAFFED = ("deputy", "skip", "hold")
TELL = ("holder", "above", "also_tell", "told", "watchers")
TELL_CALLED = ("called", "called_above")
"""Whom only what happens to a unit that was called tells."""
ABOUT_CALLED = (
    *("case.called", "case.checked_in", "case.finished"),
    *("case.unit_overdue", "case.call_ended"),
)
CHANNELS = ("log", "webhook")
PLACEHOLDERS = ("title", "tracking", "division", "level", "due", "unit")
DEFAULT_LADDER = "default"

REOPENING = ("resolver", "above", "first")
BOARD_AFTER = ("closed", "resolved")
_LEVEL_CLOCK = ("goes_on", "starts_again")
_REOPENING = {"enter": "resolver", "source": "assumption"}
_RETURNS = {"most": 3, "source": "assumption"}
_DUPLICATES = {"within": "3d", "source": "assumption"}
_MOST_TIMES = 100
_MOST_DAYS = 3660
_MOST_SUSPENDED = 730 * 86400.0

_WORD = re.compile(r"[a-z][a-z0-9_]{0,39}", re.ASCII)
_CODE = re.compile(r"[0-9]{6,32}", re.ASCII)
_UPWARDS = tuple(LEVEL_OF_LENGTH[length] for length in sorted(LEVEL_OF_LENGTH, reverse=True))
_VOCABULARIES = {"urgency": "urgencies", "category": "categories", "source": "sources"}

# A file that has so many is another kind of file.
_MOST_PROBLEMS = 100

_MISSING: Any = object()
"""In place of a required value that is not there, which was noted already."""

Read = TypeVar("Read")
Titles = Mapping[str, Mapping[str, str]]
"""``{id: {"zh": ..., "en": ...}}``."""


class LadderLevel(NamedTuple):
    """One step of a ladder and what the county calls it: ``household``, 户联系.

    ``unit`` names the unit that has its turn there instead of the level's desk, by name or id.
    """

    level: str
    title: str
    unit: str | None = None


@dataclass(frozen=True)
class Route:
    """One line of ``routing``; ``enter`` None is the lowest level at or above the report.

    ``unit`` names the unit there, or the nearest above, that gets it; None is the desk itself.
    """

    name: str
    when: Condition
    ladder: str
    enter: str | None
    also_tell: tuple[str, ...]
    unit: str | None = None


@dataclass(frozen=True)
class Template:
    """Who is told what, and how, when an event of type ``on`` happens."""

    on: str
    tell: tuple[str, ...]
    by: tuple[str, ...]
    text: str


@dataclass(frozen=True)
class Suspension:
    """A reason for which a case may wait (挂起).

    ``stops`` are the clocks that stand meanwhile, ``longest`` seconds at the most, ``times``
    how often a level may suspend a case at all.
    """

    title: Mapping[str, str]
    stops: tuple[str, ...]
    longest: float
    times: int
    source: str


@dataclass(frozen=True)
class Extension:
    """How much more time (延期) a level may ask for at once, and how often.

    Working days and hours count with its ``calendar``.
    """

    longest: Term
    calendar: Calendar | None
    times: int
    source: str


@dataclass(frozen=True)
class Reopening:
    """Where a resolved case is taken up again, and with how much time.

    ``enter`` is ``resolver``, ``above`` (one level up from it), ``first`` (as if it were
    reported now) or a level. A clock that ``goes_on`` does so only where the case stays.
    ``shorter`` is how many percent of its time a level then has, None for all of it; from so many
    reopenings on as ``supervise_after`` says the case is supervised (督办), None: never for that.
    """

    name: str
    enter: str
    goes_on: bool
    shorter: int | None
    supervise_after: int | None
    source: str


@dataclass(frozen=True)
class Feedback:
    """For how long the reporter's answer (回访) is waited for before a case is closed (销号).

    Working days and hours count with its ``calendar``.
    """

    name: str
    ask: Term
    calendar: Calendar | None
    source: str


@dataclass(frozen=True)
class Board:
    """What the village's notice board (公示) shows: cases of these categories that have ended.

    ``closed``: only once they are closed, else as soon as they are resolved; for so many ``days``
    after they were resolved.
    """

    categories: tuple[str, ...]
    closed: bool
    days: int
    source: str


@dataclass(frozen=True)
class Returns:
    """How often a case may be sent back (退回) in a round; the last time it is supervised."""

    most: int
    source: str


@dataclass(frozen=True)
class Duplicates:
    """How many seconds apart two reports may be that are suggested as one matter (疑似重复)."""

    within: float
    source: str


@dataclass(frozen=True)
class Procedure:
    """What must be done at a level, in this order, before it may resolve such a case.

    ``steps`` are their ids with what the county calls them: 四议两公开.
    """

    name: str
    title: Mapping[str, str]
    level: str
    when: Condition
    steps: Mapping[str, str]
    source: str


@dataclass(frozen=True)
class Authority:
    """Which level may delegate such a case with its authority to settle it (授权)."""

    level: str
    when: Condition
    source: str


@dataclass(frozen=True)
class Emergency:
    """What is different while a part of the region is in emergency mode (战时机制).

    ``rules`` are those that hold then; ``in_flight`` says which cases that were reported before
    the switch come under them (and back under the others when it ends), none: only new ones.
    Where such a case stays at its level that level's clock goes on, or ``starts_again``.
    """

    title: Mapping[str, str]
    source: str
    in_flight: Condition | None
    starts_again: bool
    rules: Rules


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What a profile says.

    ``levels`` are those of all ladders, lowest first; ``grace`` is in seconds; ``deadlines``
    are by level, in the order in which they are tried; ``command`` names the level whose lead
    has taken over the desks of another (接管指挥权).
    """

    name: str
    title: Mapping[str, str]
    region: str
    timezone: str
    ladders: Mapping[str, tuple[LadderLevel, ...]]
    levels: tuple[str, ...]
    routing: tuple[Route, ...]
    unstaffed: str
    grace: float
    categories: Titles
    urgencies: Titles
    sources: Titles
    outcomes: Titles
    calendars: Mapping[str, Calendar]
    deadlines: Mapping[str, tuple[DeadlineRule, ...]]
    suspensions: Mapping[str, Suspension]
    extension: Extension | None
    reopening: Reopening
    returns: Returns
    duplicates: Duplicates
    procedures: tuple[Procedure, ...]
    authority: Authority | None
    feedback: Feedback | None
    board: Board | None
    whistle: tuple[WhistleRule, ...]
    sensors: tuple[SensorRule, ...]
    templates: tuple[Template, ...]
    command: Mapping[str, str]
    emergency: Emergency | None


def read_rules(source: Source) -> Rules:
    """Reads and checks the rules of a profile.

    :raises ProfileError: everything that is wrong.
    """
    return _Reader(source).rules()


class _Reader:
    """Reads part by part; what is wrong is noted, and something harmless goes on in its place."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.problems: dict[Problem, None] = {}
        self.vocabularies: dict[str, Titles] = {}
        self.ladders: dict[str, tuple[LadderLevel, ...]] = {}
        self.levels: tuple[str, ...] = ()
        self.calendars: dict[str, Calendar] = {}
        self.places: dict[str, Place] = {}
        self.units: dict[str, None] = {}

    def rules(self) -> Rules:
        top = self.mapping(
            (),
            self.source.rules,
            required=(
                *("profile", "title", "region", "timezone", "ladders"),
                *("categories", "urgencies", "sources", "outcomes", "deadlines"),
            ),
            optional=(
                *("urgency_order", "calendars", "routing", "unstaffed", "grace", "templates"),
                *("suspensions", "extension", "reopening", "returns", "feedback", "public"),
                *("procedures", "authority", "duplicates", "whistle", "sensors", "emergency"),
            ),
        )
        for name in ("categories", "urgencies", "sources", "outcomes"):
            self.vocabularies[name] = self.titles((name,), top[name])
        if "urgency_order" in top:
            self.vocabularies["urgencies"] = self.in_order(top["urgency_order"])
        self.ladders = self.read_ladders(("ladders",), top["ladders"])
        if self.ladders and DEFAULT_LADDER not in self.ladders:
            self.problem(("ladders",), f"there is no ladder named {DEFAULT_LADDER}: add it")
        different: dict[str, Any] = {}
        if "emergency" in top:
            different = self.emergency_part(top["emergency"])
        more = {}
        if "ladders" in different:
            more = self.read_ladders(("emergency", "ladders"), different["ladders"])
        self.levels = self.order([*self.ladders.values(), *more.values()])
        if "calendars" in top:
            self.calendars = self.read_calendars(top["calendars"])
        rules = Rules(
            name=self.word(("profile",), top["profile"]),
            title=self.title(("title",), top["title"]),
            region=self.code(("region",), top["region"]),
            timezone=self.zone(top["timezone"]),
            ladders=self.ladders,
            levels=self.levels,
            routing=self.routing(("routing",), top.get("routing", [])),
            unstaffed=self.choice(("unstaffed",), top.get("unstaffed", "deputy"), UNSTAFFED),
            grace=self.parsed(("grace",), top.get("grace", "10m"), deadlines.duration, 0.0),
            categories=self.vocabularies["categories"],
            urgencies=self.vocabularies["urgencies"],
            sources=self.vocabularies["sources"],
            outcomes=self.vocabularies["outcomes"],
            calendars=self.calendars,
            deadlines=self.deadlines(("deadlines",), top["deadlines"]),
            suspensions=self.suspensions(top["suspensions"]) if "suspensions" in top else {},
            extension=self.extension(top["extension"]) if "extension" in top else None,
            reopening=self.reopening(top.get("reopening", _REOPENING)),
            returns=self.returns(top.get("returns", _RETURNS)),
            duplicates=self.duplicates(top.get("duplicates", _DUPLICATES)),
            procedures=self.procedures(top.get("procedures", [])),
            authority=self.authority(top["authority"]) if "authority" in top else None,
            feedback=self.feedback(top["feedback"]) if "feedback" in top else None,
            board=self.board(top["public"]) if "public" in top else None,
            whistle=self.whistle(top["whistle"]) if "whistle" in top else (),
            sensors=self.sensors(top["sensors"]) if "sensors" in top else (),
            templates=self.templates(top.get("templates", [])),
            command={},
            emergency=None,
        )
        self.without_deadline(("ladders",), rules)
        if not self.problems:
            self.check_reach([*rules.routing])
            for index in range(len(rules.whistle)):
                self.check_whistle(rules.whistle[: index + 1])
            for level, lines in rules.deadlines.items():
                self.check_reach([*lines])
                self.check_cover(level, lines)
                self.check_reach([item for item in rules.procedures if item.level == level])
        if different:
            rules = replace(rules, emergency=self.emergency(different, more, rules))
        if self.problems:
            raise ProfileError(self.problems)
        return rules

    # -- parts ---------------------------------------------------------------------------

    def zone(self, value: Any) -> str:
        name = self.text(("timezone",), value)
        try:
            if name:
                ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            close = get_close_matches(name, sorted(available_timezones()), n=1)
            hint = f"did you mean {close[0]}? Write" if close else "write"
            said = f"{hint} an IANA name such as Asia/Shanghai"
            self.problem(("timezone",), f"{name!r} is not a time zone: {said}")
        return name

    def titles(self, place: Place, value: Any) -> Titles:
        """A vocabulary: ids with their titles, at least one."""
        entries = self.entries(place, value)
        for key in entries:
            self.word((*place, key), key)
        return {key: self.title((*place, key), title) for key, title in entries.items()}

    def in_order(self, value: Any) -> Titles:
        """The urgencies from the least to the most urgent: a mapping's order does not travel."""
        known, place = self.vocabularies["urgencies"], ("urgency_order",)
        order = self.texts(place, value)
        for urgency in order:
            self.choice(place, urgency, tuple(known))
        if sorted(order) != sorted(known):
            self.problem(place, f"write each of {', '.join(known)} once")
            return known
        return {urgency: known[urgency] for urgency in order}

    def read_ladders(self, under: Place, value: Any) -> dict[str, tuple[LadderLevel, ...]]:
        ladders = {}
        for name, steps in self.entries(under, value).items():
            place: Place = (*under, name)
            self.word(place, name)
            levels: list[LadderLevel] = []
            for index, item in enumerate(self.items(place, steps)):
                step = self.mapping(
                    (*place, index), item, required=("level", "title"), optional=("unit",)
                )
                level = self.word((*place, index, "level"), step["level"])
                title = self.text((*place, index, "title"), step["title"])
                unit = None
                if "unit" in step:
                    unit = self.text((*place, index, "unit"), step["unit"], longest=80)
                self.ascending((*place, index, "level"), LadderLevel(level, title, unit), levels)
                levels.append(LadderLevel(level, title, unit))
            ladders[name] = tuple(levels)
        return ladders

    def ascending(self, place: Place, step: LadderLevel, below: Sequence[LadderLevel]) -> None:
        level = step.level
        same = [known.unit for known in below if known.level == level]
        if step.unit in same:
            self.problem(place, f"{step.unit or level} stands in this ladder twice: keep one")
        elif None in same:
            said = f"a unit stands below its desk: write the step of {step.unit}"
            self.problem(place, f"{said} before that of {level}")
        elif same and below[-1].level != level:
            self.problem(place, f"write the steps of {level} one after the other")
        elif not same and level in _UPWARDS:
            above = [known.level for known in below if known.level in _UPWARDS]
            wrong = [known for known in above if _UPWARDS.index(known) > _UPWARDS.index(level)]
            if wrong:
                said = f"a ladder goes upwards, but {level} is below {wrong[0]}"
                self.problem(place, f"{said}: write {level} before {wrong[0]}")

    def order(self, known: Sequence[tuple[LadderLevel, ...]]) -> tuple[str, ...]:
        """All levels, lowest first, as the ladders together order them."""
        # Lists, because the order of a set of words differs from process to process.
        ladders = [list(dict.fromkeys(step.level for step in steps)) for steps in known]
        below: dict[str, list[str]] = {level: [] for levels in ladders for level in levels}
        ladders.append([level for level in _UPWARDS if level in below])
        for levels in ladders:
            for lower, upper in pairwise(levels):
                below[upper].append(lower)
        try:
            return tuple(TopologicalSorter(below).static_order())
        except CycleError as error:
            circle = " < ".join(reversed(error.args[1]))
            if not self.problems:
                self.problem(("ladders",), f"the ladders contradict each other: {circle}")
            return tuple(below)

    def routing(self, under: Place, value: Any) -> tuple[Route, ...]:
        routes: list[Route] = []
        for index, item in enumerate(self.items(under, value, least=0)):
            place: Place = (*under, index)
            line = self.mapping(
                place, item, optional=("when", "ladder", "enter", "also_tell", "source")
            )
            ladder = DEFAULT_LADDER
            if "ladder" in line:
                ladder = self.choice((*place, "ladder"), line["ladder"], tuple(self.ladders))
            steps = tuple(dict.fromkeys(step.level for step in self.ladders.get(ladder, ())))
            enter, unit = line.get("enter"), None
            if isinstance(enter, dict):
                said = self.mapping((*place, "enter"), enter, required=("level", "unit"))
                enter = self.choice((*place, "enter", "level"), said["level"], steps)
                unit = self.text((*place, "enter", "unit"), said["unit"], longest=80)
            elif enter is not None:
                enter = self.choice((*place, "enter"), enter, steps)
            tell = self.texts((*place, "also_tell"), line.get("also_tell", []), least=0)
            for level in tell:
                self.choice((*place, "also_tell"), level, self.levels)
            if "source" in line:
                self.text((*place, "source"), line["source"])
            routes.append(
                Route(
                    name=self.named(place),
                    when=self.condition((*place, "when"), line.get("when", {})),
                    ladder=ladder,
                    enter=enter,
                    also_tell=tell,
                    unit=unit,
                )
            )
        return tuple(routes)

    def read_calendars(self, value: Any) -> dict[str, Calendar]:
        found = {}
        for name, item in self.entries(("calendars",), value).items():
            place: Place = ("calendars", name)
            self.word(place, name)
            line = self.mapping(place, item, required=("days",), optional=("hours", "holidays"))
            hours: tuple[Hours, ...] = ALL_DAY
            if "hours" in line:
                hours = self.hours((*place, "hours"), line["hours"])
            holidays = line.get("holidays")
            found[name] = Calendar(
                name,
                self.days((*place, "days"), line["days"]),
                hours,
                None if holidays is None else self.word((*place, "holidays"), holidays),
            )
        return found

    def days(self, place: Place, value: Any) -> frozenset[int]:
        found: set[int] = set()
        for days in self.each(place, value, read_days):
            found.update(days)
        return frozenset(found)

    def hours(self, place: Place, value: Any) -> tuple[Hours, ...]:
        found: list[Hours] = []
        for text in self.texts(place, value):
            read = read_hours(text)
            if read is None:
                self.problem(place, f'{text!r}: write hours in quotes, such as "08:30-12:00"')
                continue
            starts, ends = read
            before = found[-1].ends if found else time(0)
            if ends is not None and ends <= starts:
                self.problem(place, f"{text!r} ends before it begins: write the earlier time first")
            elif before is None or starts < before:
                self.problem(place, f"{text!r}: write the hours of a day in order, none twice")
            else:
                found.append(read)
        return tuple(found) or ALL_DAY

    def deadlines(self, under: Place, value: Any) -> dict[str, tuple[DeadlineRule, ...]]:
        rules: dict[str, list[DeadlineRule]] = {}
        for index, item in enumerate(self.items(under, value)):
            rule = self.deadline((*under, index), item)
            rules.setdefault(rule.level, []).append(rule)
        return {level: tuple(lines) for level, lines in rules.items()}

    def without_deadline(self, under: Place, rules: Rules, among: Collection[str] = ()) -> None:
        """Notes the levels of ladders (``among`` these, or all) that no line of deadlines has."""
        for name, steps in rules.ladders.items():
            for index, step in enumerate(steps):
                wanted = rules.deadlines and step.level and (not among or name in among)
                if wanted and step.level not in rules.deadlines:
                    self.problem(
                        (*under, name, index, "level"),
                        f"{step.level} has no deadline: add a line for it to deadlines",
                    )

    def deadline(self, place: Place, value: Any) -> DeadlineRule:
        line = self.mapping(
            place,
            value,
            required=("level", "resolve", "source"),
            optional=(
                *("when", "acknowledge", "report", "progress"),
                *("remind", "calendar", "then"),
            ),
        )
        level = self.choice((*place, "level"), line["level"], self.levels)
        source = self.text((*place, "source"), line["source"])
        terms: dict[str, tuple[Term, ...]] = {}
        for kind in deadlines.TERMS:
            if kind in line:
                terms[kind] = self.each((*place, kind), line[kind], deadlines.term)
        progress: Term | None = None
        if deadlines.PROGRESS in line:
            text = line[deadlines.PROGRESS]
            instead = deadlines.term("1d")
            progress = self.parsed((*place, "progress"), text, deadlines.extension, instead)
        counted = [item for items in terms.values() for item in items]
        calendar = self.calendar(place, line, [*counted, *filter(None, (progress,))])
        reminders: tuple[Reminder, ...] = ()
        if "remind" in line:
            reminders = self.each((*place, "remind"), line["remind"], deadlines.reminder)
        return DeadlineRule(
            name=self.named(place),
            level=level,
            when=self.condition((*place, "when"), line.get("when", {}), FIELDS),
            calendar=calendar,
            terms=terms,
            reminders=reminders,
            then=self.then((*place, "then"), line["then"], level, source)
            if "then" in line
            else None,
            source=source,
            progress=progress,
        )

    def calendar(
        self, place: Place, line: Mapping[str, Any], terms: Sequence[Term]
    ) -> Calendar | None:
        """The calendar of a line, which some of its terms may need."""
        by_office = [item for item in terms if item.form.by_office]
        if "calendar" not in line:
            if by_office:
                names = " or ".join(self.calendars) or "one, in a part calendars"
                said = f"{by_office[0].text!r} needs a calendar: add calendar: {names}"
                self.problem(place, said)
            return None
        name = self.choice((*place, "calendar"), line["calendar"], tuple(self.calendars))
        if not self.calendars:
            self.problem((*place, "calendar"), "there are no calendars: add the part calendars")
        found = self.calendars.get(name)
        for item in by_office:
            if found and found.days and not deadlines.ends_with(item, found):
                self.problem(
                    place, f"{item.text!r} takes {name} more than eight years: write less of it"
                )
        return found

    def then(self, place: Place, value: Any, level: str, source: str) -> Then:
        lasts = {steps[-1].level: None for steps in self.ladders.values() if steps}
        if level in self.levels and level not in lasts:
            self.problem(
                place,
                f"only for the last level of a ladder ({', '.join(lasts)}): "
                f"a case that {level} does not settle goes one level up by itself",
            )
        line = self.mapping(place, value, required=("supervise",), optional=("tell",))
        told = self.texts((*place, "tell"), line.get("tell", []), least=0)
        for code in told:
            self.code((*place, "tell"), code)
        every = self.parsed((*place, "supervise"), line["supervise"], deadlines.duration, 1.0)
        return Then(every, told, source)

    def suspensions(self, value: Any) -> dict[str, Suspension]:
        found = {}
        for name, item in self.entries(("suspensions",), value).items():
            place: Place = ("suspensions", name)
            self.word(place, name)
            if name == ENDED:
                self.problem(place, f"{name} is why clocks stand between two rounds: rename it")
            line = self.mapping(
                place,
                item,
                required=("title", "stops", "longest", "source"),
                optional=("times",),
            )
            longest = self.parsed((*place, "longest"), line["longest"], deadlines.duration, 1.0)
            times = self.count((*place, "times"), line.get("times", 1))
            if longest * times > _MOST_SUSPENDED:
                said = "longest times times is more than 730 days: nobody would see the case again"
                self.problem((*place, "longest"), said)
            stops = self.texts((*place, "stops"), line["stops"])
            for clock in stops:
                self.choice((*place, "stops"), clock, CLOCKS)
            found[name] = Suspension(
                title=self.title((*place, "title"), line["title"]),
                stops=stops,
                longest=longest,
                times=times,
                source=self.text((*place, "source"), line["source"]),
            )
        return found

    def extension(self, value: Any) -> Extension:
        place: Place = ("extension",)
        line = self.mapping(
            place, value, required=("longest", "source"), optional=("times", "calendar")
        )
        longest = self.parsed(
            (*place, "longest"), line["longest"], deadlines.extension, deadlines.term("1d")
        )
        return Extension(
            longest=longest,
            calendar=self.calendar(place, line, [longest]),
            times=self.count((*place, "times"), line.get("times", 1)),
            source=self.text((*place, "source"), line["source"]),
        )

    def reopening(self, value: Any) -> Reopening:
        place: Place = ("reopening",)
        line = self.mapping(
            place,
            value,
            required=("enter", "source"),
            optional=("clock", "shorter", "supervise_after"),
        )
        words = (*REOPENING, *self.levels)
        clock = self.choice((*place, "clock"), line.get("clock", "goes_on"), _LEVEL_CLOCK)
        shorter, after = None, None
        if "shorter" in line:
            shorter = self.parsed((*place, "shorter"), line["shorter"], deadlines.percentage, 50)
            if clock == "goes_on":
                said = "a clock that goes on has the rest of its time only: add clock: starts_again"
                self.problem((*place, "shorter"), said)
        if "supervise_after" in line:
            after = self.count((*place, "supervise_after"), line["supervise_after"])
        return Reopening(
            name=self.named(place),
            enter=self.choice((*place, "enter"), line["enter"], words),
            goes_on=clock == "goes_on",
            shorter=shorter,
            supervise_after=after,
            source=self.text((*place, "source"), line["source"]),
        )

    def feedback(self, value: Any) -> Feedback:
        place: Place = ("feedback",)
        line = self.mapping(place, value, required=("ask", "source"), optional=("calendar",))
        ask = self.parsed((*place, "ask"), line["ask"], deadlines.extension, deadlines.term("7d"))
        return Feedback(
            name=self.named(place),
            ask=ask,
            calendar=self.calendar(place, line, [ask]),
            source=self.text((*place, "source"), line["source"]),
        )

    def board(self, value: Any) -> Board:
        place: Place = ("public",)
        line = self.mapping(
            place, value, required=("categories", "days", "source"), optional=("after",)
        )
        # Each is named: what is opened to everybody is nobody's default.
        categories = self.texts((*place, "categories"), line["categories"])
        for category in categories:
            known = tuple(self.vocabularies["categories"])
            self.choice((*place, "categories"), category, known)
        after = self.choice((*place, "after"), line.get("after", "closed"), BOARD_AFTER)
        if after == "closed" and "feedback" not in self.source.rules:
            said = "without a part feedback no case is closed: add it, or write after: resolved"
            self.problem(place, said)
        return Board(
            categories=categories,
            closed=after == "closed",
            days=self.count((*place, "days"), line["days"], most=_MOST_DAYS),
            source=self.text((*place, "source"), line["source"]),
        )

    def returns(self, value: Any) -> Returns:
        place: Place = ("returns",)
        line = self.mapping(place, value, required=("most", "source"))
        return Returns(
            most=self.count((*place, "most"), line["most"]),
            source=self.text((*place, "source"), line["source"]),
        )

    def whistle(self, value: Any) -> tuple[WhistleRule, ...]:
        """吹哨报到: how long a unit that is called has; the last line catches all."""
        rules: list[WhistleRule] = []
        for index, item in enumerate(self.items(("whistle",), value)):
            place: Place = ("whistle", index)
            line = self.mapping(
                place,
                item,
                required=(*CALL_KINDS, "source"),
                optional=("when", "by", "calendar", "supervise"),
            )
            terms = {kind: self.each((*place, kind), line[kind], call_term) for kind in CALL_KINDS}
            counted = [term for found in terms.values() for term in found]
            by: tuple[str, ...] | None = None
            if "by" in line:
                by = self.texts((*place, "by"), line["by"])
                for level in by:
                    self.choice((*place, "by"), level, self.levels)
            supervise = self.choice((*place, "supervise"), line.get("supervise", "all"), SUPERVISE)
            rules.append(
                WhistleRule(
                    name=self.named(place),
                    when=self.condition((*place, "when"), line.get("when", {}), FIELDS),
                    by=by,
                    calendar=self.calendar(place, line, counted),
                    terms=terms,
                    supervise=supervise,
                    source=self.text((*place, "source"), line["source"]),
                )
            )
        if rules and rules[-1].when != ALWAYS:
            said = "other units and cases have no time to check in: add a last line without when"
            self.problem(("whistle", len(rules) - 1), said)
        return tuple(rules)

    def sensors(self, value: Any) -> tuple[SensorRule, ...]:
        """监测: from which value on a reading is a case."""
        rules: list[SensorRule] = []
        for index, item in enumerate(self.items(("sensors",), value)):
            place: Place = ("sensors", index)
            line = self.mapping(
                place,
                item,
                required=(
                    *("quantity", "measured_in", "clear", "quiet", "category", "urgency"),
                    *("title", "reported_as", "source"),
                ),
                optional=(*SIDES, "sensors"),
            )
            sides = [side for side in SIDES if side in line]
            if len(sides) != 1:
                self.problem(place, "write one of above and below: the value that makes a case")
            side = sides[0] if sides else "above"
            found = len(self.problems)
            threshold = self.number((*place, side), line.get(side, 0))
            clear = self.number((*place, "clear"), line["clear"])
            if (
                len(self.problems) == found
                and (clear - threshold) * (1 if side == "above" else -1) > 0
            ):
                wrong = "above" if side == "above" else "below"
                said = f"lies {wrong} {threshold:g}: write it on the calm side, or the same"
                self.problem((*place, "clear"), said)
            named = self.texts((*place, "sensors"), line["sensors"]) if "sensors" in line else ()
            words = {name: line[name] for name in ("category", "urgency")}
            words["source"] = line["reported_as"]
            fields = {"source": "reported_as"}
            known = {
                name: self.choice(
                    (*place, fields.get(name, name)),
                    word,
                    tuple(self.vocabularies[_VOCABULARIES[name]]),
                )
                for name, word in words.items()
            }
            rule = SensorRule(
                name=self.named(place),
                quantity=self.word((*place, "quantity"), line["quantity"]),
                sensors=named,
                side=side,
                threshold=threshold,
                clear=clear,
                quiet=self.parsed((*place, "quiet"), line["quiet"], deadlines.duration, 1.0),
                measured_in=self.text((*place, "measured_in"), line["measured_in"], longest=20),
                category=known["category"],
                urgency=known["urgency"],
                title=self.text((*place, "title"), line["title"], longest=80),
                reported_as=known["source"],
                source=self.text((*place, "source"), line["source"]),
            )
            same = [other for other in rules if other.quantity == rule.quantity]
            if any(not other.sensors or set(named) & set(other.sensors) for other in same):
                said = "a line before is for these sensors' readings: name others in sensors"
                self.problem((*place, "quantity"), said)
            rules.append(rule)
        return tuple(rules)

    def duplicates(self, value: Any) -> Duplicates:
        place: Place = ("duplicates",)
        line = self.mapping(place, value, required=("within", "source"))
        return Duplicates(
            within=self.parsed((*place, "within"), line["within"], deadlines.duration, 1.0),
            source=self.text((*place, "source"), line["source"]),
        )

    def procedures(self, value: Any) -> tuple[Procedure, ...]:
        found = []
        for index, item in enumerate(self.items(("procedures",), value, least=0)):
            place: Place = ("procedures", index)
            line = self.mapping(
                place, item, required=("title", "level", "steps", "source"), optional=("when",)
            )
            # A list: the order of a mapping does not travel.
            steps: dict[str, str] = {}
            for number, step in enumerate(self.items((*place, "steps"), line["steps"])):
                there: Place = (*place, "steps", number)
                said = self.mapping(there, step, required=("id", "title"))
                name = self.word((*there, "id"), said["id"])
                if name in steps:
                    self.problem((*there, "id"), f"{name} is given twice: keep one")
                steps[name] = self.text((*there, "title"), said["title"])
            found.append(
                Procedure(
                    name=self.named(place),
                    title=self.title((*place, "title"), line["title"]),
                    level=self.choice((*place, "level"), line["level"], self.levels),
                    when=self.condition((*place, "when"), line.get("when", {})),
                    steps=steps,
                    source=self.text((*place, "source"), line["source"]),
                )
            )
        return tuple(found)

    def authority(self, value: Any) -> Authority:
        place: Place = ("authority",)
        line = self.mapping(place, value, required=("level", "source"), optional=("when",))
        level = self.choice((*place, "level"), line["level"], self.levels)
        if self.levels and level == self.levels[0]:
            self.problem((*place, "level"), f"nobody is below {level}: write a higher level")
        return Authority(
            level=level,
            when=self.condition((*place, "when"), line.get("when", {})),
            source=self.text((*place, "source"), line["source"]),
        )

    def emergency_part(self, value: Any) -> dict[str, Any]:
        """What the part says, unread."""
        return self.mapping(
            ("emergency",),
            value,
            required=("title", "source"),
            optional=("in_flight", "clock", "ladders", "routing", "deadlines", "command"),
        )

    def emergency(
        self, line: dict[str, Any], ladders: Mapping[str, tuple[LadderLevel, ...]], rules: Rules
    ) -> Emergency:
        """Its own ladders, routes and deadlines come before those that hold otherwise."""
        place: Place = ("emergency",)
        self.ladders = {**rules.ladders, **ladders}
        routes: tuple[Route, ...] = ()
        lines: dict[str, tuple[DeadlineRule, ...]] = {}
        if "routing" in line:
            routes = self.routing((*place, "routing"), line["routing"])
        if "deadlines" in line:
            lines = self.deadlines((*place, "deadlines"), line["deadlines"])
        levels = [*rules.deadlines, *(level for level in lines if level not in rules.deadlines)]
        changed = replace(
            rules,
            ladders=self.ladders,
            routing=(*routes, *rules.routing),
            deadlines={
                level: (*lines.get(level, ()), *rules.deadlines.get(level, ())) for level in levels
            },
            command=self.command((*place, "command"), line.get("command", {})),
        )
        self.without_deadline((*place, "ladders"), changed, tuple(ladders))
        if not self.problems:
            self.check_reach([*routes])
            for level, own in lines.items():
                self.check_reach([*own])
                self.check_cover(level, changed.deadlines[level])
        if not (ladders or routes or lines or changed.command):
            self.problem(place, "changes nothing: add ladders, routing, deadlines or command")
        clock = self.choice((*place, "clock"), line.get("clock", "starts_again"), _LEVEL_CLOCK)
        return Emergency(
            title=self.title((*place, "title"), line["title"]),
            source=self.text((*place, "source"), line["source"]),
            in_flight=self.in_flight((*place, "in_flight"), line.get("in_flight", "all")),
            starts_again=clock == "starts_again",
            rules=changed,
        )

    def in_flight(self, place: Place, value: Any) -> Condition | None:
        if isinstance(value, dict):
            return self.condition(place, value)
        word = self.choice(place, value, ("all", "none"))
        return None if word == "none" else ALWAYS

    def command(self, place: Place, value: Any) -> dict[str, str]:
        found: dict[str, str] = {}
        if value == {}:
            return found
        for level, by in self.entries(place, value).items():
            self.choice((*place, level), level, self.levels)
            above = self.choice((*place, level), by, self.levels)
            known = level in self.levels and above in self.levels
            if known and self.levels.index(above) <= self.levels.index(level):
                self.problem((*place, level), f"{above} is not above {level}: write one that is")
            found[level] = above
        return found

    def templates(self, value: Any) -> tuple[Template, ...]:
        types = tuple(kind.name for kind in of_consumer("notify") if kind.name.startswith("case."))
        templates = []
        for index, item in enumerate(self.items(("templates",), value, least=0)):
            place: Place = ("templates", index)
            line = self.mapping(place, item, required=("on", "tell", "by", "text"))
            tell = self.texts((*place, "tell"), line["tell"])
            by = self.texts((*place, "by"), line["by"])
            text = self.text((*place, "text"), line["text"], longest=500)
            on = self.choice((*place, "on"), line["on"], types)
            allowed = (*TELL, *TELL_CALLED) if on in ABOUT_CALLED else TELL
            for word in tell:
                self.choice((*place, "tell"), word, allowed)
            for channel in by:
                self.choice((*place, "by"), channel, CHANNELS)
            self.placeholders((*place, "text"), text)
            templates.append(Template(on, tell, by, text))
        return tuple(templates)

    def placeholders(self, place: Place, text: str) -> None:
        try:
            parts = list(Formatter().parse(text))
        except ValueError as error:
            self.problem(place, f"{error}: write a single brace twice, {{{{ or }}}}")
            return
        for _, name, form, conversion in parts:
            if name is not None and (name not in PLACEHOLDERS or form or conversion):
                allowed = " ".join(f"{{{known}}}" for known in PLACEHOLDERS)
                self.problem(place, f"{{{name}}} can't be filled in: write {allowed}")

    def condition(self, place: Place, value: Any, allowed: Sequence[str] = FACTS) -> Condition:
        line = self.mapping(place, value, optional=allowed)
        values = {}
        for name, wanted in line.items():
            words = self.texts((*place, name), wanted)
            if name == UNIT:
                # Which there are, the directory says.
                self.units.update(dict.fromkeys(words))
            else:
                for word in words:
                    self.choice((*place, name), word, tuple(self.vocabularies[_VOCABULARIES[name]]))
            values[name] = frozenset(words)
        return Condition(values) if values else ALWAYS

    # -- rules that no case reaches, and cases that no rule reaches ---------------------------

    def known_values(self) -> dict[str, tuple[str, ...]]:
        facts = {name: tuple(self.vocabularies[_VOCABULARIES[name]]) for name in FACTS}
        return {**facts, UNIT: (*self.units, "")}

    def check_reach(self, rules: Sequence[Route | DeadlineRule | Procedure]) -> None:
        conditions = [rule.when for rule in rules]
        for index, covering in unreachable(conditions, self.known_values()).items():
            by = " and ".join(self.shown(self.places[rules[other].name]) for other in covering)
            self.problem(
                self.places[rules[index].name],
                f"never applies: what it matches goes to {by} before; move it up or remove it",
            )

    def check_whistle(self, lines: Sequence[WhistleRule]) -> None:
        """That the last of these lines is for some call that none before it takes."""
        *before, last = lines
        levels = set(last.by or self.levels)
        wider = [rule for rule in before if levels <= set(rule.by or self.levels)]
        conditions = [rule.when for rule in (*wider, last)]
        covering = unreachable(conditions, self.known_values()).get(len(wider))
        if covering is not None:
            by = " and ".join(self.shown(self.places[wider[other].name]) for other in covering)
            said = f"never applies: what it matches goes to {by} before; move it up or remove it"
            self.problem(self.places[last.name], said)

    def check_cover(self, level: str, rules: Sequence[DeadlineRule]) -> None:
        facts = uncovered([rule.when for rule in rules], self.known_values())
        if facts is not None:
            missing = ", ".join(f"{name} {value}" for name, value in facts.items())
            self.problem(
                self.places[rules[-1].name],
                f"{level} has no deadline for {missing or 'other cases'}: "
                f"add a last line for {level} without when",
            )

    def shown(self, place: Place) -> str:
        line = self.source.line(place)
        return f"{field_name(place)} (line {line})" if line else field_name(place)

    def named(self, place: Place) -> str:
        """The name of the rule at ``place``, under which it is found again."""
        name = f"{FILE} {field_name(place)}"
        self.places[name] = place
        return name

    # -- values --------------------------------------------------------------------------

    def problem(self, place: Place, text: str) -> None:
        found = Problem(self.source.file, self.source.line(place), field_name(place), text)
        self.problems[found] = None
        if len(self.problems) >= _MOST_PROBLEMS:
            raise ProfileError(self.problems)

    def mapping(
        self, place: Place, value: Any, required: Sequence[str] = (), optional: Sequence[str] = ()
    ) -> dict[str, Any]:
        allowed = (*required, *optional)
        if not isinstance(value, dict):
            if value is not _MISSING:
                self.problem(place, f"write a mapping of {', '.join(allowed)}")
            return dict.fromkeys(required, _MISSING)
        for name in value:
            if name not in allowed:
                self.problem((*place, name), not_among(name, allowed))
        for name in required:
            if name not in value:
                self.problem((*place, name), "is missing: add it")
        present = {name: item for name, item in value.items() if name in allowed}
        return {**dict.fromkeys(required, _MISSING), **present}

    def entries(self, place: Place, value: Any) -> dict[str, Any]:
        """A mapping with free keys, at least one."""
        if isinstance(value, dict) and value:
            return value
        if value is not _MISSING:
            self.problem(place, "write a mapping with at least one entry")
        return {}

    def items(self, place: Place, value: Any, least: int = 1) -> list[Any]:
        if isinstance(value, list) and len(value) >= least:
            return value
        if value is not _MISSING:
            self.problem(place, "write a list" + (" with at least one entry" if least else ""))
        return []

    def text(self, place: Place, value: Any, longest: int = 200) -> str:
        if isinstance(value, str) and value.strip() and len(value) <= longest:
            return value
        if isinstance(value, bool | int | float):
            self.problem(place, f'is {_shown(value)}, not text: quote it, "{_shown(value)}"')
        elif isinstance(value, list | dict):
            self.problem(place, "write one text, without brackets")
        elif value is not _MISSING:
            self.problem(place, f"write a text of 1 to {longest} characters")
        return ""

    def count(self, place: Place, value: Any, most: int = _MOST_TIMES) -> int:
        if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= most:
            return value
        if value is not _MISSING:
            self.problem(place, f"write a whole number from 1 to {most}")
        return 1

    def number(self, place: Place, value: Any) -> float:
        if isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value):
            return float(value)
        if value is not _MISSING:
            self.problem(place, "write a number")
        return 0.0

    def word(self, place: Place, value: Any) -> str:
        text = self.text(place, value)
        if text and not _WORD.fullmatch(text):
            self.problem(
                place, f"{text!r}: write a lower-case word: a letter, then letters, digits, _"
            )
        return text

    def code(self, place: Place, value: Any) -> str:
        text = self.text(place, value)
        if text and not _CODE.fullmatch(text):
            self.problem(place, f'{text!r}: write a division code in quotes, such as "469002"')
        return text

    def title(self, place: Place, value: Any) -> dict[str, str]:
        if value is _MISSING:
            return {}
        line = self.mapping(place, value, required=("zh", "en"))
        return {name: self.text((*place, name), line[name]) for name in line}

    def choice(self, place: Place, value: Any, allowed: Collection[str]) -> str:
        text = self.text(place, value)
        if text and allowed and text not in allowed:
            self.problem(place, not_among(text, tuple(allowed)))
        return text

    def texts(self, place: Place, value: Any, least: int = 1) -> tuple[str, ...]:
        """One text, or a list of different ones."""
        one = isinstance(value, str | bool | int | float)
        listed = [value] if one else self.items(place, value, least)
        found = [
            self.text((*place, index) if isinstance(value, list) else place, item)
            for index, item in enumerate(listed)
        ]
        twice = {text for text in found if text and found.count(text) > 1}
        for text in sorted(twice):
            self.problem(place, f"{text!r} is given twice: keep one")
        return tuple(text for text in found if text)

    def each(self, place: Place, value: Any, parse: Callable[[str], Read]) -> tuple[Read, ...]:
        """One text or a list of them, each read by ``parse``."""
        found = []
        for text in self.texts(place, value):
            try:
                found.append(parse(text))
            except ValueError as error:
                self.problem(place, str(error))
        return tuple(found)

    def parsed(self, place: Place, value: Any, parse: Callable[[str], Read], instead: Read) -> Read:
        text = self.text(place, value)
        try:
            return parse(text) if text else instead
        except ValueError as error:
            self.problem(place, str(error))
            return instead


def _shown(value: bool | int | float) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
