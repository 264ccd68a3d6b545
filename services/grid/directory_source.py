"""Reading the directory's CSV files; every mistake is found, with file, line and column."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from difflib import get_close_matches
from math import nan
from pathlib import Path
from typing import Any

from services.grid.calendars import OFF, WEEK, WORK, read_days, read_hours
from services.grid.directory import (
    KINDS,
    LEVEL_OF_LENGTH,
    ROLES,
    Directory,
    Division,
    Officer,
    Unit,
)
from services.grid.duty import ALWAYS, read_weeks
from services.grid.points import FARTHEST_KM, REACH_KM, Point
from services.grid.problems import Problem, ProfileError, not_among

_CODE = re.compile(r"[0-9]{6,32}", re.ASCII)
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)
_WORD = re.compile(r"[a-z][a-z0-9_]{0,39}", re.ASCII)
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}", re.ASCII)
_LISTS = {"shift": "shifts", "leave": "leaves", "stand_in": "stand_ins"}
_DUTIES = (*_LISTS, "deputy")
MOST_STRETCHES = 400
"""How many shifts, leaves or stand-ins one officer may have."""
_TRUTH = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def read_divisions(path: Path) -> list[Division]:
    """Reads ``code,level,name,parent[,kind,lat,long,reach]``.

    An empty parent is the longest other code that this one continues; an empty kind follows
    from the name (社区 is a community, 生活区 a farm) and the level. ``lat`` and ``long`` say where
    it is on the map (WGS 84), ``reach`` how many km around that are its own.

    :raises ProfileError: everything that is wrong.
    """
    rows = _Rows(path, ("code", "level", "name", "parent"), ("kind", "lat", "long", "reach"))
    codes = {row.cells["code"] for row in rows}
    found: dict[str, tuple[Division, _Row]] = {}
    for row in rows:
        code = row.code("code")
        level = row.word("level")
        name = row.text("name")
        parent = row.cells["parent"] or _prefix(code, codes)
        if parent is not None and parent not in codes:
            row.problem("parent", f"{parent} is not in this file: add it or write another code")
        kind = row.choice("kind", KINDS) if row.cells.get("kind") else kind_of(level, name)
        if code in found:
            first = found[code][1].line
            row.problem("code", f"{code} is given twice, first in line {first}: keep one of them")
        elif code:
            found[code] = (Division(code, name, level, parent, kind, _point(row)), row)
    _refuse_circles(found)
    rows.check()
    return [division for division, _ in found.values()]


def _point(row: _Row) -> Point | None:
    """Where a division is on the map, if its row says so."""
    if not any(row.cells.get(column) for column in ("lat", "long", "reach")):
        return None
    lat = row.number("lat", -90, 90)
    long = row.number("long", -180, 180)
    reach = row.number("reach", 0, FARTHEST_KM) if row.cells.get("reach") else REACH_KM
    return Point(lat, long, reach)


def read_units(path: Path) -> list[Unit]:
    """Reads ``id,name,level,division``.

    :raises ProfileError: everything that is wrong.
    """
    rows = _Rows(path, ("id", "name", "level", "division"))
    found = [
        Unit(row.identity(), row.text("name"), row.word("level"), row.code("division"))
        for row in rows
    ]
    rows.check()
    return found


def read_officers(path: Path) -> list[Officer]:
    """Reads ``id,name,level,division,unit,role,on_duty``; an empty unit is none.

    :raises ProfileError: everything that is wrong.
    """
    rows = _Rows(path, ("id", "name", "level", "division", "unit", "role", "on_duty"))
    found = [
        Officer(
            row.identity(),
            row.text("name"),
            row.word("level"),
            row.code("division"),
            row.cells["unit"] or None,
            row.choice("role", ROLES),
            row.truth("on_duty"),
        )
        for row in rows
    ]
    rows.check()
    return found


def read_holidays(path: Path) -> dict[tuple[str, int], dict[str, str]]:
    """Reads ``holidays,date,day[,name]``: for each set and year its days, ``off`` or ``work``.

    :raises ProfileError: everything that is wrong.
    """
    rows = _Rows(path, ("holidays", "date", "day"), ("name",))
    found: dict[tuple[str, int], dict[str, str]] = {}
    for row in rows:
        day = row.date("date")
        if day is None:
            continue
        days = found.setdefault((row.word("holidays"), day.year), {})
        if str(day) in days:
            row.problem("date", f"{day} is given twice: keep one of them")
        days[str(day)] = row.choice("day", (OFF, WORK))
    rows.check()
    return found


def read_duties(path: Path) -> dict[str, dict[str, Any]]:
    """Reads ``officer,duty[,days,hours,from,to,weeks,deputy]``: of each officer what is said.

    ``duty`` is ``shift`` (the week's rota), ``leave``, ``stand_in`` (on duty besides), each at
    ``hours`` that begin on ``days`` ``from`` a date ``to`` a date; or ``deputy``, who takes over
    during each leave that names nobody else.

    :returns: by officer ``{shifts, leaves, stand_ins, deputy}``, as :class:`Duty` has them.
    :raises ProfileError: everything that is wrong.
    """
    optional = ("days", "hours", "from", "to", "weeks", "deputy")
    rows = _Rows(path, ("officer", "duty"), optional)
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        officer, kind = row.text("officer"), row.choice("duty", _DUTIES)
        said = found.setdefault(
            officer, {"shifts": [], "leaves": [], "stand_ins": [], "deputy": None}
        )
        deputy = row.cells.get("deputy") or None
        if kind == "deputy":
            _read_deputy(row, said, deputy)
            continue
        if kind not in _LISTS:
            continue
        stretch, listed = _stretch(row, kind), said[_LISTS[kind]]
        if kind == "leave":
            stretch["deputy"] = deputy
        elif deputy is not None:
            row.problem("deputy", f"a {kind} has none: leave it empty, or write leave or deputy")
        listed.append(stretch)
        if len(listed) > MOST_STRETCHES:
            row.problem("officer", f"{officer} has more than {MOST_STRETCHES}: drop old ones")
    rows.check()
    return found


def _read_deputy(row: _Row, said: dict[str, Any], deputy: str | None) -> None:
    for column in ("days", "hours", "from", "to", "weeks"):
        if row.cells.get(column):
            row.problem(column, "a deputy is for every leave: leave it empty")
    if deputy is None:
        row.problem("deputy", "write the id of the officer who takes over")
    elif said["deputy"] not in (None, deputy):
        row.problem("deputy", f"{said['deputy']} is the deputy already: keep one")
    said["deputy"] = deputy


def _stretch(row: _Row, kind: str) -> dict[str, Any]:
    """The hours, days and dates of a row."""
    days: set[int] = set()
    for text in (row.cells.get("days") or "all").split():
        try:
            days |= read_days(text)
        except ValueError as error:
            row.problem("days", str(error))
    hours = row.cells.get("hours") or ALWAYS
    if read_hours(hours) is None:
        row.problem("hours", f"{hours!r}: write hours such as 08:00-18:00, or 18:00-08:00")
    dates = {name: row.date(name) if row.cells.get(name) else None for name in ("from", "to")}
    first, last = dates["from"], dates["to"]
    if first is not None and last is not None and last < first:
        row.problem("to", f"{last} is before {first}: write the first day in from")
    if kind != "shift":
        for name in ("from", "to"):
            if not row.cells.get(name):
                row.problem(name, f"write the {'first' if name == 'from' else 'last'} day")
    weeks = row.cells.get("weeks") or None
    if weeks is not None:
        try:
            read_weeks(weeks)
        except ValueError as error:
            row.problem("weeks", str(error))
        if first is None:
            row.problem("from", "weeks are counted from the week of a date: write it here")
    return {
        "days": [WEEK[day] for day in sorted(days)],
        "hours": hours,
        "first": first.isoformat() if first is not None else None,
        "last": last.isoformat() if last is not None else None,
        "weeks": weeks,
    }


def check_duties(path: Path, directory: Directory) -> list[Problem]:
    """Officers and deputies of the duty file that the directory does not know."""
    rows = _Rows(path, ())
    for row in rows:
        officer, deputy = row.cells["officer"], row.cells.get("deputy")
        if officer not in directory.officers:
            row.problem("officer", _no_officer(officer, directory))
        if deputy and deputy not in directory.officers:
            row.problem("deputy", _no_officer(deputy, directory))
        elif deputy == officer:
            row.problem("deputy", f"{officer} can't take over for {officer}: write another")
    return rows.problems


def _no_officer(named: str, directory: Directory) -> str:
    close = get_close_matches(named, directory.officers, n=1)
    hint = f"did you mean {close[0]}?" if close else "write an id of it"
    return f"{named!r} is not in officers.csv: {hint}"


def check_region(path: Path, region: str, directory: Directory) -> list[Problem]:
    """The divisions of a file that are neither in the profile's region nor above it."""
    rows = _Rows(path, ())
    for row in rows:
        code = row.cells["code"]
        if not (directory.within(code, region) or directory.within(region, code)):
            row.problem("code", f"{code} is not in the profile's region {region}: leave it out")
    return rows.problems


def check_places(
    path: Path,
    entries: Sequence[Unit | Officer],
    directory: Directory,
    levels: Collection[str],
) -> list[Problem]:
    """What units or officers, in the order of their file, say that the directory does not know.

    :param levels: those of the profile's ladders. What is above them all, such as the county,
        can have officers of any level, because a case that nobody can place is held there.
    """
    rows = _Rows(path, ())
    named: dict[tuple[str, str, str], _Row] = {}
    for row, entry in zip(rows, entries, strict=True):
        if isinstance(entry, Unit):
            first = named.setdefault((entry.level, entry.division, entry.name), row)
            if first is not row:
                said = f"{entry.name} is there already, in line {first.line}: write another name"
                row.problem("name", said)
        for column, wrong in misplaced(entry, directory, levels):
            row.problem(column, wrong)
    return rows.problems


def misplaced(
    entry: Unit | Officer, directory: Directory, levels: Collection[str]
) -> Iterator[tuple[str, str]]:
    """Each field of a unit or an officer that the directory does not bear out, and the cure.

    :param levels: as for :func:`check_places`.
    """
    wrong = directory.check_code(entry.division)
    if wrong is not None:
        yield "division", wrong
        return
    level = directory.known(entry.division).level
    if entry.level != level and level in levels:
        yield "level", f"{entry.division} is a {level}: write {level}"
    if isinstance(entry, Officer) and entry.unit is not None:
        unit = directory.units.get(entry.unit)
        if unit is None:
            yield "unit", not_among(entry.unit, sorted(directory.units))
        elif (unit.level, unit.division) != (entry.level, entry.division):
            yield "unit", f"{unit.id} is of {unit.level} {unit.division}: write these here too"


@dataclass(frozen=True)
class _Row:
    line: int
    cells: dict[str, str]
    report: Callable[[Problem], None]
    file: str
    identities: dict[str, int]

    def problem(self, column: str, text: str) -> None:
        self.report(Problem(self.file, self.line, column, text))

    def text(self, column: str) -> str:
        value = self.cells[column]
        if not 0 < len(value) <= 80:
            self.problem(column, "write 1 to 80 characters")
        return value

    def word(self, column: str) -> str:
        value = self.cells[column]
        if not _WORD.fullmatch(value):
            self.problem(
                column, f"{value!r}: write a lower-case word, such as {LEVEL_OF_LENGTH[12]}"
            )
        return value

    def code(self, column: str) -> str:
        value = self.cells[column]
        if not _CODE.fullmatch(value):
            self.problem(column, f"{value!r}: write a division code of 6 to 32 digits")
            return ""
        if (len(value) == 14 and value.endswith("00")) or (
            len(value) == 17 and value.endswith("000")
        ):
            self.problem(column, f"{value}: groups are numbered from 01, household grids from 001")
        return value

    def number(self, column: str, least: float, most: float) -> float:
        value = self.cells.get(column, "")
        try:
            number = float(value)
        except ValueError:
            number = nan
        if least <= number <= most:
            return number
        self.problem(column, f"{value!r}: write a number from {least:g} to {most:g}")
        return least

    def date(self, column: str) -> date | None:
        value = self.cells[column]
        try:
            if _DATE.fullmatch(value):
                return date.fromisoformat(value)
        except ValueError as error:
            self.problem(column, f"{value!r}: {error}")
            return None
        self.problem(column, f"{value!r}: write a date such as 2027-01-01")
        return None

    def identity(self) -> str:
        value = self.cells["id"]
        if not _ID.fullmatch(value):
            self.problem("id", f"{value!r}: write letters, digits, '.', '_' and '-', at most 80")
        elif value in self.identities:
            first = self.identities[value]
            self.problem("id", f"{value} is given twice, first in line {first}: keep one of them")
        self.identities.setdefault(value, self.line)
        return value

    def choice(self, column: str, allowed: Sequence[str]) -> str:
        value = self.cells[column]
        if value not in allowed:
            self.problem(column, not_among(value, allowed))
        return value

    def truth(self, column: str) -> bool:
        value = _TRUTH.get(self.cells[column].lower())
        if value is None:
            self.problem(column, f"{self.cells[column]!r}: write true or false")
        return bool(value)


class _Rows:
    """The rows of a CSV file with a header; whatever is wrong is collected."""

    def __init__(self, path: Path, required: Sequence[str], optional: Sequence[str] = ()) -> None:
        self.problems: list[Problem] = []
        self._rows = list(self._read(path, required, optional))

    def __iter__(self) -> Iterator[_Row]:
        return iter(self._rows)

    def check(self) -> None:
        """Raises what was found."""
        if self.problems:
            raise ProfileError(self.problems)

    def _read(self, path: Path, required: Sequence[str], optional: Sequence[str]) -> Iterator[_Row]:
        try:
            text = path.read_bytes().decode("utf-8-sig")
        except OSError as error:
            wrong = f"can't be read: {error.strerror}"
            raise ProfileError([Problem(str(path), 0, "", wrong)]) from error
        except UnicodeDecodeError as error:
            line = error.object.count(b"\n", 0, error.start) + 1
            wrong = "not UTF-8: save it as UTF-8 (in Excel: CSV UTF-8)"
            raise ProfileError([Problem(str(path), line, "", wrong)]) from error
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        identities: dict[str, int] = {}
        try:
            header = [name.strip() for name in next(reader, [])]
            self._check_header(path, header, required, optional)
            for cells in reader:
                if not any(cells):
                    continue
                if len(cells) != len(header):
                    wrong = f"has {len(cells)} columns, the header has {len(header)}"
                    self.problems.append(Problem(str(path), reader.line_num, "", wrong))
                    continue
                named = dict(zip(header, (cell.strip() for cell in cells), strict=True))
                yield _Row(reader.line_num, named, self.problems.append, str(path), identities)
        except csv.Error as error:
            self.problems.append(Problem(str(path), reader.line_num, "", f"not CSV: {error}"))

    def _check_header(
        self, path: Path, header: list[str], required: Sequence[str], optional: Sequence[str]
    ) -> None:
        if not required:
            return
        missing = [name for name in required if name not in header]
        if missing:
            wrong = f"the first line must name the columns {','.join(required)}"
            raise ProfileError([Problem(str(path), 1, missing[0], wrong)])
        for index, name in enumerate(header):
            if name in header[:index]:
                wrong = "names this column twice: keep one"
                self.problems.append(Problem(str(path), 1, name, wrong))
            elif name not in (*required, *optional):
                self.problems.append(
                    Problem(str(path), 1, name, not_among(name, (*required, *optional)))
                )


def _prefix(code: str, codes: set[str]) -> str | None:
    """The longest other code that ``code`` continues: its parent by default."""
    shorter = (code[:length] for length in range(len(code) - 1, 5, -1))
    return next((other for other in shorter if other in codes), None)


def kind_of(level: str, name: str) -> str:
    """What a division is (类型), by its name and level, where nobody says it."""
    if level == "village" and name.endswith(("社区", "居委会", "居民委员会")):
        return "community"
    if level == "village" and name.endswith("生活区"):
        return "farm"
    return level if level in KINDS else "area"


def _refuse_circles(found: dict[str, tuple[Division, _Row]]) -> None:
    sound: set[str] = set()
    for code, (division, row) in found.items():
        chain = [code]
        above = division.parent
        while above in found and above not in sound and above not in chain:
            chain.append(above)
            above = found[above][0].parent
        if above in chain:
            circle = " > ".join([*chain[chain.index(above) :], above])
            row.problem("parent", f"the parents go round in a circle: {circle}")
        sound.update(chain)
