"""Profiles (模式): one region's rules, checked when they are loaded, immutable after that.

:func:`load` reads ``profile.yaml``, :func:`load_folder` also the directory's files beside it;
:meth:`Profile.parse` reads the plain rules that ``directory.profile`` events carry. A profile
is known by the hash of its rules: the same rules are the same version everywhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import date
from functools import cached_property, lru_cache
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, NamedTuple

from services.grid import json, units
from services.grid.calendars import Holidays
from services.grid.clock import Instant
from services.grid.conditions import ALWAYS
from services.grid.directory import (
    IMPLIED_LEVELS,
    Directory,
    Division,
    HolidayYear,
    Officer,
    OnDuty,
    Unit,
)
from services.grid.directory_source import (
    check_duties,
    check_places,
    check_region,
    read_divisions,
    read_duties,
    read_holidays,
    read_officers,
    read_units,
)
from services.grid.duty import Duty
from services.grid.problems import Problem, ProfileError, not_among
from services.grid.profile_rules import (
    DEFAULT_LADDER,
    FILE,
    LadderLevel,
    Procedure,
    Route,
    Rules,
    Template,
    read_rules,
)
from services.grid.profile_source import Place, Source, field_name, read
from services.grid.tokens import Address

__all__ = [
    "Entry",
    "LadderLevel",
    "Loaded",
    "Problem",
    "Profile",
    "ProfileError",
    "Template",
    "load",
    "load_folder",
    "profile_at",
    "profile_for",
]

_DEFAULT_ROUTE = Route("default", ALWAYS, DEFAULT_LADDER, None, ())


class Entry(NamedTuple):
    """Where a new case begins; ``rule`` says why, ``triage`` that a person must place it (分拨)."""

    ladder: str
    address: Address
    also_tell: tuple[str, ...]
    rule: str
    triage: bool


@dataclass(frozen=True, kw_only=True)
class Profile(Rules):
    """One version of a region's rules; ``rules`` is their plain form, JSON-safe."""

    id: str
    rules: dict[str, Any]

    @classmethod
    def parse(cls, rules: Mapping[str, Any]) -> Profile:
        """The profile of plain rules, as events carry them.

        :raises ProfileError: everything that is wrong with them.
        """
        try:
            return _parsed(json.dumps(rules))
        except (TypeError, ValueError, RecursionError) as error:
            if isinstance(error, ProfileError):
                raise
            wrong = f"the rules are not JSON: {error}"
            raise ProfileError([Problem(FILE, 0, "", wrong)]) from error

    @cached_property
    def in_emergency(self) -> Profile | None:
        """The same version with the rules of its emergency mode, if it has one."""
        if self.emergency is None:
            return None
        return Profile(id=self.id, rules=self.rules, **vars(self.emergency.rules))

    def in_county(self, directory: Directory) -> Profile:
        """The same version in a county: its deadlines know the ids of the units that they name."""
        found = units.resolved(self.deadlines, directory)
        emergency = self.emergency
        if emergency is not None:
            different = units.resolved(emergency.rules.deadlines, directory)
            if different is not emergency.rules.deadlines:
                emergency = replace(emergency, rules=replace(emergency.rules, deadlines=different))
        if found is self.deadlines and emergency is self.emergency:
            return self
        return replace(self, deadlines=found, emergency=emergency)

    def on_duty(
        self, address: Address, directory: Directory, at: Instant
    ) -> tuple[tuple[OnDuty, ...], str]:
        """Who answers for an address at a time, and why: one of the following, in this order.

        - ``command``: the lead of the nearest division at or above the commanding level's has
          taken over;
        - ``on duty``: the officers of the address, else its leads;
        - ``deputy``, if ``unstaffed`` says so: for a unit those of the desk, else the nearest lead;
        - ``nobody on duty``.
        """
        level, division, unit = address
        commanding = self.command.get(level)
        place = directory.ancestor(division, commanding) if commanding else None
        lead = directory.lead(place.level, place.code, at) if place is not None else None
        if lead is not None:
            return (lead,), "command"
        officers = directory.on_duty(level, division, unit, at)
        if officers:
            return officers, "on duty"
        if self.unstaffed == "deputy":
            if unit is not None:
                officers = directory.on_duty(level, division, None, at)
            lead = directory.lead(level, division, at)
            if officers or lead is not None:
                return officers or tuple(filter(None, (lead,))), "deputy"
        return (), "nobody on duty"

    def reaches(self, division: str, directory: Directory) -> bool:
        """Whether a case under these rules may go there: in the region, or right above it."""
        return directory.within(division, self.region) or directory.within(self.region, division)

    def enter(self, facts: Mapping[str, Any], division: str, directory: Directory) -> Entry:
        """Where a case with these facts, reported at ``division``, begins.

        On the ladder of the first route that matches, at the level that it names or the lowest
        step, or else the next above it that has a division at or above the report's. A unit that
        it names gets it there or, if there is none, at the next level above that has one; else
        the desk. A report from above the whole ladder goes to the last level with its division
        as it is.

        :raises DivisionError: the division is unknown.
        """
        directory.known(division)
        route = next((item for item in self.routing if item.when.matches(facts)), _DEFAULT_ROUTE)
        address = self.at_level(route.ladder, route.enter, division, directory)
        triage = address is None
        if address is None:
            address = Address(self.ladders[route.ladder][-1].level, division)
        elif route.unit is not None:
            address = self._unit(route, address, directory) or address
        return Entry(route.ladder, address, route.also_tell, route.name, triage)

    def kept(
        self, facts: Mapping[str, Any], holder: Address, directory: Directory, *, rises: bool
    ) -> tuple[str, Address]:
        """The ladder and address of a case that comes under these rules while ``holder`` has it.

        It stays, or goes to the lowest level from the holder's on that the ladder has, to its last
        where there is none: never down. ``rises``: up to where a new report would enter.

        :raises DivisionError: its division is unknown.
        """
        entry = self.enter(facts, facts["division"], directory)
        ladder, steps, there = entry.ladder, self.steps(entry.ladder), holder
        if holder.level not in steps:
            order = self.levels.index
            above = [level for level in steps if order(level) > order(holder.level)] or steps[-1:]
            first = [step.level for step in self.ladders[ladder]].index(above[0])
            found = (
                self._from(ladder, first, place, directory)
                for place in (holder.division, facts["division"])
            )
            there = next((address for address in found if address is not None), entry.address)
        enters, stands = (self._step(ladder, at, directory) for at in (entry.address, there))
        if rises and (enters or 0) > (stands or 0):
            there = entry.address
        return ladder, there

    def next_address(self, ladder: str, address: Address, directory: Directory) -> Address | None:
        """One step up, skipping levels that have no division there; None at the top.

        A unit that the ladder does not name stands where those of its level do that it names:
        above it is the level's desk, or else the next level.
        """
        step = self._step(ladder, address, directory)
        return None if step is None else self._from(ladder, step + 1, address.division, directory)

    def at_level(
        self, ladder: str, level: str | None, division: str, directory: Directory
    ) -> Address | None:
        """The lowest address of a ladder from this level on, at or above a division; or None.

        It is the level's desk where the ladder has it, else the unit of its first step there.
        """
        if level is None:
            return self._from(ladder, 0, division, directory)
        steps = self.ladders[ladder]
        there = [index for index, step in enumerate(steps) if step.level == level]
        desk = steps[there[-1]].unit is None
        return self._from(ladder, there[-1] if desk else there[0], division, directory)

    def procedure(self, facts: Mapping[str, Any], level: str) -> Procedure | None:
        """What must be done at a level before it may resolve such a case, if anything."""
        found = (item for item in self.procedures if item.level == level)
        return next((item for item in found if item.when.matches(facts)), None)

    def years_unknown(self, holidays: Holidays, days: Iterable[date]) -> list[tuple[str, int]]:
        """Names of holidays and years of these days for which its calendars know of none."""
        names = {item.holidays for item in self.calendars.values() if item.holidays is not None}
        years = {day.year for day in days}
        return [
            (name, year)
            for name in sorted(names)
            for year in sorted(years)
            if not holidays.covers(name, year)
        ]

    def title_of(self, ladder: str, address: Address, directory: Directory) -> str:
        """What the county calls the step at which a case is: 户联系.

        Else, as for units that no ladder names, what it calls their level; that by its id where
        it has no word for it.
        """
        known = [*self.ladders.get(ladder, ()), *chain(*self.ladders.values())]
        for meant in (address, address._replace(unit=None)):
            for step in known:
                if _is_step(step, meant, directory):
                    return step.title
        return address.level

    def units_missing(self, ladder: str, address: Address, directory: Directory) -> list[str]:
        """The units that the steps of a level name and a place lacks: its desk has their turn."""
        level, division, _unit = address
        named = [step.unit for step in self.ladders[ladder] if step.level == level and step.unit]
        return [name for name in named if directory.unit(name, level, division) is None]

    def steps(self, ladder: str) -> list[str]:
        """The levels of a ladder, lowest first, each once."""
        return list(dict.fromkeys(step.level for step in self.ladders[ladder]))

    def _unit(self, route: Route, address: Address, directory: Directory) -> Address | None:
        """The unit that a route names, at this address or the nearest above it."""
        levels = self.steps(route.ladder)
        for level in levels[levels.index(address.level) :]:
            place = directory.ancestor(address.division, level)
            if place is not None and route.unit is not None:
                unit = directory.unit(route.unit, level, place.code)
                if unit is not None:
                    return Address(level, place.code, unit.id)
        return None

    def _from(self, ladder: str, first: int, division: str, directory: Directory) -> Address | None:
        """The lowest step from number ``first`` on that has a division at or above this one.

        Where that division has none of the units that the steps of its level name from there on,
        its desk has their turn.
        """
        steps = self.ladders[ladder]
        for index in range(first, len(steps)):
            level, _title, named = steps[index]
            place = directory.ancestor(division, level)
            if place is None:
                continue
            if named is None:
                return Address(level, place.code)
            unit = directory.unit(named, level, place.code)
            if unit is not None:
                return Address(level, place.code, unit.id)
            if index + 1 == len(steps) or steps[index + 1].level != level:
                return Address(level, place.code)
        return None

    def _step(self, ladder: str, address: Address, directory: Directory) -> int | None:
        """At which step of a ladder an address is; None: its level is not on it."""
        steps = self.ladders[ladder]
        there = [index for index, step in enumerate(steps) if step.level == address.level]
        for index in there:
            if _is_step(steps[index], address, directory):
                return index
        # A desk that stands in for units, or a unit that the ladder does not name.
        units = [index for index in there if steps[index].unit is not None]
        return next(reversed(units or there), None)


def _is_step(step: LadderLevel, address: Address, directory: Directory) -> bool:
    """Whether just this step is meant: the unit that it names there, or the level's desk."""
    level, division, unit = address
    if step.level != level or step.unit is None:
        return step.level == level and unit is None
    there = directory.unit(step.unit, level, division)
    return there is not None and there.id == unit


@dataclass(frozen=True)
class Loaded:
    """A profile folder: the profile and its region's directory."""

    profile: Profile
    divisions: tuple[Division, ...]
    units: tuple[Unit, ...]
    officers: tuple[Officer, ...]
    holiday_years: tuple[HolidayYear, ...] = ()
    duties: tuple[Duty, ...] = ()

    @cached_property
    def directory(self) -> Directory:
        """The directory of this folder alone."""
        return Directory(self.divisions, self.units, self.officers, self.duties)

    @cached_property
    def holidays(self) -> Holidays:
        """The statutory holidays that are known here."""
        return holidays_of(self.holiday_years)


def load(folder: Path) -> Profile:
    """Reads and checks ``profile.yaml``.

    :raises ProfileError: everything that is wrong, with file, line, field and cure.
    """
    return _profile(_read_rules(folder / FILE))


def load_folder(folder: Path) -> Loaded:
    """Reads and checks a whole folder; all files but the first two may be absent.

    :raises ProfileError: everything that is wrong, in all files.
    """
    if not folder.is_dir():
        raise ProfileError([Problem(str(folder), 0, "", "is not a folder with a profile.yaml")])
    problems: list[Problem] = []
    found: dict[str, Any] = {}
    for name, reader in (
        (FILE, _read_rules),
        ("divisions.csv", read_divisions),
        ("units.csv", read_units),
        ("officers.csv", read_officers),
        ("duty.csv", read_duties),
        ("holidays.csv", read_holidays),
    ):
        if name not in (FILE, "divisions.csv") and not (folder / name).exists():
            found[name] = []
            continue
        try:
            found[name] = reader(folder / name)
        except ProfileError as error:
            problems += error.problems
    profile = None
    if FILE in found:
        try:
            profile = _profile(found[FILE])
        except ProfileError as error:
            problems += error.problems
    if problems or profile is None:
        raise ProfileError(problems)
    directory = Directory(found["divisions.csv"], found["units.csv"], found["officers.csv"])
    profile = profile.in_county(directory)
    problems += _places(found[FILE], profile, directory)
    problems += units.check(found[FILE], profile, directory)
    if not problems:
        problems += check_region(folder / "divisions.csv", profile.region, directory)
    for name in ("units.csv", "officers.csv"):
        if found[name]:
            problems += check_places(folder / name, found[name], directory, profile.levels)
    if found["duty.csv"]:
        problems += check_duties(folder / "duty.csv", directory)
    years = tuple(
        HolidayYear(f"{name}-{year}", name, year, profile.region, days)
        for (name, year), days in dict(found["holidays.csv"]).items()
    )
    problems += _holidays(found[FILE], profile, holidays_of(years))
    if problems:
        raise ProfileError(problems)
    return Loaded(
        profile,
        tuple(found["divisions.csv"]),
        tuple(found["units.csv"]),
        tuple(found["officers.csv"]),
        years,
        duties_of(dict(found["duty.csv"]), directory, profile.timezone),
    )


def _read_rules(path: Path) -> Source:
    """A profile's YAML; how its urgencies follow each other is said once more, as a list."""
    source = read(path)
    urgencies = source.rules.get("urgencies") if isinstance(source.rules, dict) else None
    if not isinstance(urgencies, dict) or "urgency_order" in source.rules:
        return source
    return replace(source, rules={**source.rules, "urgency_order": list(urgencies)})


def duties_of(
    said: Mapping[str, Mapping[str, Any]], directory: Directory, timezone: str
) -> tuple[Duty, ...]:
    """The duty of each officer, of what a file says of them."""
    return tuple(
        Duty(
            officer=officer,
            division=directory.officers[officer].division,
            timezone=timezone,
            **parts,
        )
        for officer, parts in sorted(said.items())
    )


def holidays_of(years: Iterable[HolidayYear]) -> Holidays:
    """The holidays of files, beside those of the library."""
    files: dict[str, dict[date, str]] = {}
    for item in years:
        days = {date.fromisoformat(day): said for day, said in item.days.items()}
        files.setdefault(item.name, {}).update(days)
    return Holidays(files)


def profile_for(profiles: Iterable[Profile], division: str, directory: Directory) -> Profile | None:
    """The profile whose region is the nearest at or above ``division``, or None."""
    by_region = {
        profile.region: profile
        for profile in sorted(profiles, key=lambda profile: profile.id, reverse=True)
    }
    for place in directory.ancestors(division):
        if place.code in by_region:
            return by_region[place.code]
    return None


def profile_at(
    profiles: Iterable[Profile], level: str, division: str, directory: Directory
) -> Profile | None:
    """The profile by whose rules somebody answers at a place of a level, or None.

    It is the place's own; of one above all regions one of those whose ladders lead up there, such
    as a county's command above the township that has the profile.
    """
    known = tuple(profiles)
    leading = (
        item for item in known if level in item.levels and directory.within(item.region, division)
    )
    own = profile_for(known, division, directory)
    return own or min(leading, key=lambda item: (item.region, item.id), default=None)


@lru_cache(maxsize=64)
def _parsed(canonical: bytes) -> Profile:
    # Every change of the directory parses all profiles again: the same text, the same profile.
    return _profile(Source(FILE, json.loads(canonical)))


def _profile(source: Source) -> Profile:
    rules = read_rules(source)
    digest = hashlib.sha256(json.dumps(source.rules)).hexdigest()[:12]
    return Profile(id=f"{rules.name}@{digest}", rules=source.rules, **vars(rules))


def _places(source: Source, profile: Profile, directory: Directory) -> list[Problem]:
    """What the rules say of places and levels that the directory does not bear out."""
    problems = []

    def note(wrong: str | None, *place: str | int) -> None:
        if wrong is not None:
            where = source.line(place), field_name(place)
            problems.append(Problem(source.file, *where, wrong))

    note(directory.check_code(profile.region), "region")
    different = source.rules.get("emergency", {})
    for under, lines in (
        (("deadlines",), source.rules["deadlines"]),
        (("emergency", "deadlines"), different.get("deadlines", [])),
    ):
        for index, line in enumerate(lines):
            told = line.get("then", {}).get("tell", [])
            for code in [told] if isinstance(told, str) else told:
                note(directory.check_code(code), *under, index, "then", "tell")
    there = {place.level for place in directory.divisions.values()} | IMPLIED_LEVELS
    disorder = _disorder(profile.levels, directory)
    ladders: dict[Place, tuple[LadderLevel, ...]] = {
        ("ladders", name): steps for name, steps in profile.ladders.items()
    }
    if profile.emergency is not None:
        for name in different.get("ladders", {}):
            ladders["emergency", "ladders", name] = profile.emergency.rules.ladders[name]
    for found, steps in ladders.items():
        for index, step in enumerate(steps):
            place: Place = (*found, index, "level")
            if step.level not in there:
                note(not_among(step.level, sorted(there)), *place)
            note(disorder.get(step.level), *place)
    return problems


def _holidays(source: Source, profile: Profile, holidays: Holidays) -> list[Problem]:
    """Calendars that name holidays which neither the library nor a file has."""
    return [
        Problem(
            source.file,
            source.line(("calendars", name, "holidays")),
            field_name(("calendars", name, "holidays")),
            f"{not_among(calendar.holidays, holidays.names)}, or add a holidays.csv",
        )
        for name, calendar in profile.calendars.items()
        if calendar.holidays is not None and calendar.holidays not in holidays.names
    ]


def _disorder(levels: tuple[str, ...], directory: Directory) -> dict[str, str]:
    """Levels that the ladders have above another, but the directory has below it."""
    found = {}
    for code in directory.divisions:
        chain = [place for place in directory.ancestors(code) if place.level in levels]
        for lower, upper in pairwise(chain):
            if levels.index(lower.level) > levels.index(upper.level):
                found[lower.level] = (
                    f"stands above {upper.level}, but {lower.code} {lower.name} is below "
                    f"{upper.code} {upper.name}: write {lower.level} before {upper.level}"
                )
    return found
