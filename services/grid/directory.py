"""The directory (区划): the tree of places, the units, and who is on duty where.

A division code has 6 digits for the county, 9 for the township, 12 for the village (the
national statistical code); below a village, by default, 2 more for the group and 3 more for
the household grid. The parent is what the directory says; groups and household grids that it
doesn't list are *implied* under a village that it does, with the parent by prefix.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import Any, NamedTuple

from services.grid.clock import Instant
from services.grid.duty import Duty
from services.grid.places import Gazetteer, Located
from services.grid.points import Point, Points

LEVEL_OF_LENGTH = {6: "county", 9: "township", 12: "village", 14: "group", 17: "household"}
"""The default level of a code by its number of digits."""

IMPLIED_LEVELS = frozenset({"group", "household"})
"""The levels below a village, whose divisions need not be listed."""

KINDS = (
    *("county", "township", "village", "community", "farm", "group", "household"),
    *("area", "estate", "building", "hazard", "online", "police"),
)
"""What a division can be (类型): 片区 area, 小区 estate, 楼栋 building, 专属 hazard grid, ..."""

ROLES = ("officer", "lead")
"""网格员 and 网格长."""

_SPLIT = (2, 4, 6, 9, 12, 14, 17)
_CODE = re.compile(r"[0-9]{6,32}", re.ASCII)
_CHAINS = 10_000


Place = tuple[str, str, str | None]
"""A level, a division and a unit or none."""


class DivisionError(ValueError):
    """A division code that can't be used; the message says what is allowed."""


@dataclass(frozen=True, slots=True)
class Division:
    """A unit of the tree of places; ``parent`` is None for a county.

    ``location`` is where it is on the map, if that was said.
    """

    code: str
    name: str
    level: str
    parent: str | None
    kind: str
    location: Point | None = None

    @classmethod
    def of(cls, entry: Mapping[str, Any]) -> Division:
        """The division of an entry, without the fields that a newer publisher may have added."""
        point = entry.get("location")
        return cls(
            code=entry["code"],
            name=entry["name"],
            level=entry["level"],
            parent=entry["parent"],
            kind=entry["kind"],
            location=Point(point["lat"], point["long"], point["reach"]) if point else None,
        )


@dataclass(frozen=True, slots=True)
class Unit:
    """A department, association, team or centre (单位) at a level and division."""

    id: str
    name: str
    level: str
    division: str


@dataclass(frozen=True, slots=True)
class Officer:
    """Who serves a division at a level, or a unit there; ``role`` is one of :data:`ROLES`."""

    id: str
    name: str
    level: str
    division: str
    unit: str | None
    role: str
    on_duty: bool


class OnDuty(NamedTuple):
    """Who fills a place at one moment; ``instead_of`` names the officer who is on leave, if so."""

    officer: Officer
    instead_of: str | None

    @property
    def id(self) -> str:
        """The officer's."""
        return self.officer.id


@dataclass(frozen=True, slots=True)
class HolidayYear:
    """A year's statutory holidays and make-up workdays (调休), from a file beside a profile.

    ``days`` maps a date (``2027-01-01``) to ``off`` or ``work``; ``id`` is ``<name>-<year>``.
    """

    id: str
    name: str
    year: int
    region: str
    days: dict[str, str]


@dataclass(frozen=True, slots=True)
class Emergency:
    """Whether a division, with all below it, is in emergency mode (战时机制).

    ``number`` counts how often it was switched on: ``469002104.3`` names the third time there.
    """

    division: str
    number: int
    on: bool

    @property
    def name(self) -> str:
        """How cases name it."""
        return f"{self.division}.{self.number}"


class Directory:
    """All places, units and officers at one moment, and their duty at any; immutable.

    Building it is linear; a lookup takes a step for each level at most. Entries may come in
    any order and incomplete: a place whose parent has not arrived yet is a root until then.
    """

    def __init__(
        self,
        divisions: Iterable[Division] = (),
        units: Iterable[Unit] = (),
        officers: Iterable[Officer] = (),
        duties: Iterable[Duty] = (),
    ) -> None:
        self.divisions = {division.code: division for division in divisions}
        self.units = {unit.id: unit for unit in units}
        self.duties = {duty.officer: duty for duty in duties}
        # Each event asks for the chain of its division; bounded, as codes come from outside.
        self._chain = lru_cache(_CHAINS)(self._find_chain)
        officers = sorted(officers, key=lambda officer: officer.id)
        self.officers = {officer.id: officer for officer in officers}
        self._posts: dict[Place, list[Officer]] = {}
        self._leads: dict[str, list[Officer]] = {}
        for officer in officers:
            place = (officer.level, officer.division, officer.unit)
            self._posts.setdefault(place, []).append(officer)
            if officer.role == "lead" and officer.unit is None:
                self._leads.setdefault(officer.division, []).append(officer)
        self._named_units: dict[tuple[str, str, str], Unit] = {}
        for unit in sorted(self.units.values(), key=lambda unit: unit.id, reverse=True):
            for word in (unit.name, unit.id):
                self._named_units[unit.level, unit.division, word] = unit

    def division(self, code: str) -> Division | None:
        """The division of this code, listed or implied, or None."""
        found = self.divisions.get(code)
        if found is not None or len(code) not in (14, 17) or not _CODE.fullmatch(code):
            return found
        size = 2 if len(code) == 14 else 3
        number = int(code[-size:])
        parent = self.division(code[:-size])
        if number == 0 or parent is None:
            return None
        if size == 2:
            return Division(code, f"{number}组", "group", parent.code, "group")
        return Division(code, f"{number}户", "household", parent.code, "household")

    def known(self, code: str) -> Division:
        """The division of this code.

        :raises DivisionError: ill-formed or unknown, with what is allowed.
        """
        division = self.division(code)
        if division is None:
            raise DivisionError(self.check_code(code))
        return division

    def check_code(self, code: str) -> str | None:
        """None for a code that can be used, else what is wrong with it and what is allowed."""
        if not _CODE.fullmatch(code):
            return (
                f"{code!r} is not a division code: write digits only, 6 for the county, 9 for "
                "the township, 12 for the village, 14 for the group, 17 for the household grid"
            )
        if self.division(code) is not None:
            return None
        for length in range(len(code) - 1, 5, -1):
            nearest = self.division(code[:length])
            if nearest is not None:
                said = f"the nearest that is known is {nearest.code} {nearest.name}"
                if length >= 12:
                    said += (
                        "; below a village write 2 digits for the group (01 to 99) and 3 more "
                        "for the household grid (001 to 999)"
                    )
                return f"{code} is not in the directory: {said}"
        known = ", ".join(f"{root.code} {root.name}" for root in self.roots[:5])
        return f"{code} is not in the directory, which has {known or 'no divisions yet'}"

    def parent(self, code: str) -> Division | None:
        """The division right above, or None at a root and for an unknown code."""
        division = self.division(code)
        if division is None or division.parent is None:
            return None
        return self.division(division.parent)

    def ancestors(self, code: str) -> tuple[Division, ...]:
        """The division itself first, then all above it; empty for an unknown code."""
        return self._chain(code)

    def _find_chain(self, code: str) -> tuple[Division, ...]:
        found: dict[str, Division] = {}
        division = self.division(code)
        # A circle, which only contradictory entries can make, ends where it closes.
        while division is not None and division.code not in found:
            found[division.code] = division
            division = None if division.parent is None else self.division(division.parent)
        return tuple(found.values())

    def ancestor(self, code: str, level: str) -> Division | None:
        """The division of this level at or above ``code``, or None."""
        return next((place for place in self.ancestors(code) if place.level == level), None)

    def within(self, code: str, root: str) -> bool:
        """Whether ``code`` is ``root`` or, by the directory's parents, somewhere below it."""
        return any(place.code == root for place in self.ancestors(code))

    def common(self, codes: Iterable[str]) -> Division | None:
        """The lowest division that all of these are at or below, or None."""
        chains = [self.ancestors(code) for code in codes]
        if not chains:
            return None
        shared = set.intersection(*({place.code for place in chain} for chain in chains))
        return next((place for place in chains[0] if place.code in shared), None)

    @cached_property
    def roots(self) -> tuple[Division, ...]:
        """The divisions that have nothing above them: the counties."""
        return tuple(
            division
            for code, division in sorted(self.divisions.items())
            if division.parent is None or division.parent not in self.divisions
        )

    @cached_property
    def level_pairs(self) -> frozenset[tuple[str, str]]:
        """Which level stands right below which: ``("township", "county")``."""
        implied = {("household", "group"), ("group", "village")}
        listed = {
            (division.level, self.divisions[division.parent].level)
            for division in self.divisions.values()
            if division.parent is not None and division.parent in self.divisions
        }
        return frozenset(pair for pair in implied | listed if pair[0] != pair[1])

    def path(self, code: str) -> str:
        """The routing path: ``46.90.02.104.214.03.007``.

        Each place adds one word to its parent's path: what its code adds to the parent's, or
        its whole code where that doesn't continue the parent's. So a binding on a division
        gets just what the directory has below it. The code of a root, or one that is not in
        the directory, is split 2.2.2.3.3.2.3.
        """
        chain = self.ancestors(code)
        words = _split(chain[-1].code if chain else code)
        words += [place.code.removeprefix(above.code) for above, place in pairwise(reversed(chain))]
        return ".".join(words)

    def name(self, code: str) -> str:
        """The full name, ``琼海市博鳌镇沙美村委会3组7户``; for an unknown code the code."""
        full = above = ""
        for place in reversed(self.ancestors(code)):
            # Some names repeat the name of what is above: 彬村山华侨农场 + 彬村山华侨农场北片.
            full += place.name.removeprefix(above) or place.name
            above = place.name
        return full or code

    def locate(self, text: str, within: str | None = None) -> Located:
        """Finds the lowest division that an address or place name certainly means.

        ``certain`` only if it means exactly one village or lower; otherwise the lowest
        division that holds for every reading, at least ``within`` or the only root.

        :raises DivisionError: ``within`` is unknown, or it is needed because the directory
            has several roots and the text names none.
        """
        return self._gazetteer.locate(text, self._start(within))

    @cached_property
    def points(self) -> Points:
        """The divisions that have a point on the map."""
        return Points(self.divisions.values())

    def unit(self, named: str, level: str, division: str) -> Unit | None:
        """The unit of this name or id just there, or None."""
        return self._named_units.get((level, division, named))

    def on_duty(
        self, level: str, division: str, unit: str | None, at: Instant
    ) -> tuple[OnDuty, ...]:
        """Who is on duty exactly there: the officers, or where there are none the leads."""
        posts = self._posts.get((level, division, unit), [])
        filled = [(post.role, found) for post in posts if (found := self._filled(post, at))]
        officers = [found for role, found in filled if role == "officer"]
        # Who stands in for two is there once.
        named = {found.id: found for found in officers or [found for _role, found in filled]}
        return tuple(named.values())

    def lead(self, level: str, division: str, at: Instant) -> OnDuty | None:
        """The lead (网格长) on duty of this division, else of the nearest above that has one.

        Of several leads of one division the one of this level comes first, then by id. The
        leads of units lead their unit only.
        """
        for place in self.ancestors(division):
            leads = sorted(
                self._leads.get(place.code, ()), key=lambda lead: (lead.level != level, lead.id)
            )
            found = next(filter(None, (self._filled(lead, at) for lead in leads)), None)
            if found is not None:
                return found
        return None

    def _filled(self, post: Officer, at: Instant) -> OnDuty | None:
        """Who fills an officer's place: the officer, or during a leave the deputy, or nobody."""
        duty = self.duties.get(post.id)
        if duty is None:
            return OnDuty(post, None) if post.on_duty else None
        if not duty.serves(at, otherwise=post.on_duty):
            return None
        person, away = post, [post.id]
        while duty is not None and duty.away(at):
            deputy = self.officers.get(duty.deputy_at(at) or "")
            if deputy is None or deputy.id in away:
                return None
            person, duty = deputy, self.duties.get(deputy.id)
            away.append(person.id)
        return OnDuty(person, post.id if person is not post else None)

    def duty_changes(self, place: Place, at: Instant, days: int) -> list[Instant]:
        """When who answers at a place may change after ``at``, in order, for so many days."""
        level, division, unit = place
        # Where a unit, or a place, has nobody, those of the place, and the leads above, stand in.
        posts = [post for of in {unit, None} for post in self._posts.get((level, division, of), ())]
        for above in self.ancestors(division):
            posts += self._leads.get(above.code, ())
        waiting, found = [post.id for post in posts], dict[str, Duty | None]()
        while waiting:
            name = waiting.pop()
            if name not in found:
                duty = found[name] = self.duties.get(name)
                waiting += duty.deputies if duty is not None else ()
        duties = filter(None, found.values())
        return sorted({change for duty in duties for change in duty.changes(at, days)})

    def desk_places(self, level: str, division: str) -> list[tuple[str, str | None]]:
        """Divisions and units with officers of a level, in a division and all below it, in order.

        A division is there itself before its units.
        """
        return [place for place in self._places.get(level, []) if self.within(place[0], division)]

    @cached_property
    def _places(self) -> dict[str, list[tuple[str, str | None]]]:
        found: dict[str, set[tuple[str, str | None]]] = {}
        for level, division, unit in self._posts:
            found.setdefault(level, set()).update({(division, None), (division, unit)})
        for item in self.units.values():
            places = {(item.division, None), (item.division, item.id)}
            found.setdefault(item.level, set()).update(places)
        return {
            level: sorted(places, key=lambda place: (place[0], place[1] or ""))
            for level, places in found.items()
        }

    @cached_property
    def _gazetteer(self) -> Gazetteer:
        return Gazetteer(self)

    def _start(self, within: str | None) -> Division:
        if within is not None:
            return self.known(within)
        if len(self.roots) != 1:
            known = ", ".join(f"{root.code} {root.name}" for root in self.roots)
            raise DivisionError(
                f"say in which county the place is: {known}"
                if known
                else "the directory has no divisions yet"
            )
        return self.roots[0]


def _split(code: str) -> list[str]:
    cuts = [0, *(cut for cut in _SPLIT if cut < len(code)), len(code)]
    return [code[left:right] for left, right in pairwise(cuts)]
