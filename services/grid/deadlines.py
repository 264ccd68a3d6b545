"""Deadlines (时限) as pure functions: when a level must have acknowledged, resolved, be reminded.

A new *form* of deadline is one more entry of :data:`FORMS`: how its text is read, when it is
due and what was counted, and the least time that it gives. Everything counts from a
:class:`Start`, with an :class:`~services.grid.calendars.Office`.
"""

from __future__ import annotations

import re
from calendar import monthrange
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple
from zoneinfo import ZoneInfo

from services.grid.calendars import (
    ALL_DAY,
    Calendar,
    Holidays,
    Office,
    Pause,
    end_of_day,
    local_date,
    out_of_pause,
)
from services.grid.clock import Instant, moment, plus, seconds_between
from services.grid.clocks import pauses, round_began
from services.grid.conditions import UNIT, Condition
from services.grid.tokens import Address

if TYPE_CHECKING:
    from services.grid.profile import Profile

TERMS = ("acknowledge", "report", "resolve")
"""What counts from the start of a clock: response 响应, report upwards 上报, completion 办结."""

PROGRESS = "progress"
"""What counts from the last act of who accepted the case: an acknowledgement lapses without one."""

KINDS = (*TERMS, PROGRESS)
"""The kinds whose passing moves a case on."""

PROMISE = {"rule": "respond_by", "source": "promised by the system that reported it"}
"""The rule of a deadline that comes from outside, as ``respond_by`` of a report."""

EVERY_DAY = Calendar("every_day", frozenset(range(7)), ALL_DAY, None)
"""What a rule that names no calendar counts with."""

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"([0-9]{1,9})([smhd])", re.ASCII)
_LONGEST = 3660 * 86400
_LONGEST_OFFICE_DAYS = 8 * 366
_PERCENT = re.compile(r"([1-9][0-9]?)%", re.ASCII)
_RELATIVE = re.compile(r"([0-9]{1,9}[smhd]) (before|after)", re.ASCII)
_DURATION_CURE = "a duration such as 90s, 10m, 2h or 1d"
_REMINDER_CURE = "a percentage from 1% to 99%, or a duration with before or after: 2h before"
_SINCE_REPORT = " since report"


def duration(text: str) -> float:
    """The seconds of a duration: ``90s``, ``10m``, ``2h``, ``1d`` (always 24 hours).

    :raises ValueError: what is allowed.
    """
    found = _DURATION.fullmatch(text)
    seconds = int(found[1]) * _UNITS[found[2]] if found else 0
    if not 0 < seconds <= _LONGEST:
        raise ValueError(f"{text!r}: write {_DURATION_CURE}, above 0 and at most 3660d")
    return float(seconds)


class Start(NamedTuple):
    """From when deadlines count: the nominal start of the level's clock, and of the case's own.

    The pauses are when each of them stood.
    """

    level: Instant
    case: Instant
    level_pauses: tuple[Pause, ...] = ()
    case_pauses: tuple[Pause, ...] = ()

    @classmethod
    def of(cls, clocks: Mapping[str, Any]) -> Start:
        """From the clocks of a case, see :mod:`services.grid.clocks`."""
        level, case = clocks["level"], clocks["case"]
        return cls(level["started_at"], case["started_at"], pauses(level), pauses(case))


class Due(NamedTuple):
    """When a deadline is due, and what was counted, for people to check."""

    due: Instant
    counted: tuple[str, ...]


@dataclass(frozen=True)
class Form:
    """One way to write a deadline.

    ``pattern`` says which texts are of this form, ``parse`` reads such a text once, when the
    profile is loaded (ValueError: why not). ``due`` counts from an instant with an office;
    ``least`` is the least number of seconds that it nominally gives. ``by_office``: only a
    rule that names a calendar may use it. ``shorten`` gives so many
    percent of it, as value and text; a form without has no length to take from.
    """

    name: str
    allowed: str
    pattern: re.Pattern[str]
    parse: Callable[[re.Match[str]], Any]
    due: Callable[[Any, Instant, Office], Due]
    least: Callable[[Any], float]
    by_office: bool = False
    shorten: Callable[[Any, int], tuple[Any, str]] | None = None


def _between(text: str, least: int, most: int, what: str) -> int:
    number = int(text)
    if not least <= number <= most:
        raise ValueError(f"{text} {what}: write {least} to {most}")
    return number


def _end_of_day(_value: None, started: Instant, office: Office) -> Due:
    day = office.day_ends(local_date(started, office.zone))
    return Due(end_of_day(day, office.zone), (f"to the end of {day}",))


def _working_days(count: int, started: Instant, office: Office) -> Due:
    days = office.working_days(started, count)
    return Due(office.closes(days[-1]), (*map(str, days), *_unknown(office, days)))


def _working_time(seconds: float, started: Instant, office: Office) -> Due:
    counted: list[str] = []
    days: list[date] = []
    ends = started
    for opens, closes in office.stretches(started):
        stretch = min(seconds, seconds_between(opens, closes))
        seconds -= stretch
        ends = plus(opens, stretch)
        counted.append(_shown(opens, ends, office.zone))
        days.append(local_date(opens, office.zone))
        if seconds <= 0:
            break
    return Due(ends, (*counted, *_unknown(office, days)))


def _monthly_window(window: tuple[int, int], started: Instant, office: Office) -> Due:
    first, last = window
    day = local_date(started, office.zone)
    if day.day > last:
        # Missed this month's: the window of the next one.
        day = day.replace(day=1) + timedelta(days=monthrange(day.year, day.month)[1])
    ends = office.day_ends(day.replace(day=last))
    return Due(end_of_day(ends, office.zone), (f"{day.replace(day=first)} to {ends}",))


def _shown(opens: Instant, closes: Instant, zone: ZoneInfo) -> str:
    local = moment(opens).astimezone(zone), moment(closes).astimezone(zone)
    return f"{local[0]:%Y-%m-%d %H:%M}-{local[1]:%H:%M}"


def _from_to(starts: Instant, ends: Instant, zone: ZoneInfo) -> str:
    local = moment(starts).astimezone(zone), moment(ends).astimezone(zone)
    return f"{local[0]:%Y-%m-%d %H:%M} to {local[1]:%Y-%m-%d %H:%M}"


def _unknown(office: Office, days: list[date]) -> list[str]:
    return [
        f"{year}: the holidays are not known, the plain week counts"
        for year in office.years_unknown(days)
    ]


def _window(found: re.Match[str]) -> tuple[int, int]:
    first, last = int(found[1]), int(found[2])
    if not 1 <= first <= last <= 28:
        raise ValueError(f"{found[0]!r}: write two days of every month in order, 1 to 28")
    return first, last


def _part(number: float, percent: int) -> int:
    """So many percent of a whole number, rounded up: never nothing."""
    return -(-int(number) * percent // 100)


def _shorter(seconds: float, percent: int) -> tuple[float, str]:
    left = _part(seconds, percent)
    unit = max((unit for unit in _UNITS if left % _UNITS[unit] == 0), key=_UNITS.__getitem__)
    return float(left), f"{left // _UNITS[unit]}{unit}"


def _fewer_days(count: int, percent: int) -> tuple[int, str]:
    left = _part(count, percent)
    return left, f"{left} working day{'s' if left > 1 else ''}"


def _less_working_time(seconds: float, percent: int) -> tuple[float, str]:
    minutes = _part(seconds / 60, percent)
    return minutes * 60.0, f"{minutes} working minutes"


FORMS: tuple[Form, ...] = (
    Form(
        name="duration",
        allowed=_DURATION_CURE,
        pattern=_DURATION,
        parse=lambda found: duration(found[0]),
        due=lambda seconds, started, office: Due(office.elapsed(started, seconds), ()),
        least=lambda seconds: seconds,
        shorten=_shorter,
    ),
    # 小事不过夜: settled before the day on which it came is over.
    Form(
        name="end_of_day",
        allowed="end_of_day",
        pattern=re.compile("end_of_day"),
        parse=lambda _found: None,
        due=_end_of_day,
        least=lambda _value: 86400.0,
    ),
    # Civil Code (民法典), articles 201 and 203: the first day does not count, and the last ends
    # when business does.
    Form(
        name="working_days",
        allowed="3 working days",
        pattern=re.compile(r"([0-9]{1,3}) working days?", re.ASCII),
        parse=lambda found: _between(found[1], 1, 366, "working days"),
        due=_working_days,
        least=lambda count: count * 86400.0,
        by_office=True,
        shorten=_fewer_days,
    ),
    Form(
        name="working_time",
        allowed="4 working hours (or minutes)",
        pattern=re.compile(r"([0-9]{1,4}) working (hour|minute)s?", re.ASCII),
        parse=lambda found: (
            _between(found[1], 1, 2000, f"working {found[2]}s")
            * {"hour": 3600.0, "minute": 60.0}[found[2]]
        ),
        due=_working_time,
        least=lambda seconds: seconds,
        by_office=True,
        shorten=_less_working_time,
    ),
    # “170”工作处理机制: 每个月1号开始,利用7天时间,将所有排查出来的问题清零 (江千乡).
    Form(
        name="monthly_window",
        allowed="monthly_window 1-7 (from the 1st to the end of the 7th)",
        pattern=re.compile(r"monthly_window ([0-9]{1,2})-([0-9]{1,2})", re.ASCII),
        parse=_window,
        due=_monthly_window,
        least=lambda window: (window[1] - window[0] + 1) * 86400.0,
    ),
)


@dataclass(frozen=True)
class Term:
    """A deadline as a rule gives it: its text, the form it is of, and what that form read.

    ``own`` counts on the case's own clock instead of the level's; ``less`` says by what it was
    shortened.
    """

    text: str
    form: Form
    value: Any
    own: bool
    less: tuple[str, ...] = ()

    def due(self, start: Start, office: Office) -> Due:
        """When it is due, and what was counted: its text first, and the pauses last."""
        started, stood = (
            (start.case, start.case_pauses) if self.own else (start.level, start.level_pauses)
        )
        office = replace(office, pauses=stood) if stood else office
        due, counted = self.form.due(self.value, started, office)
        shown = [
            f"without {_from_to(pause.starts, pause.ends, office.zone)}, {pause.reason}"
            for pause in stood
            if pause.ends > started and pause.starts < due
        ]
        return Due(due, (self.text, *self.less, *counted, *shown))

    def shortened(self, percent: int) -> Term:
        """The same with so many percent of its time, rounded up to whole units.

        What ends with a day, and what counts on the case's own clock (which went on from where
        it stood), stays as it is.
        """
        if self.own or self.form.shorten is None:
            return self
        value, text = self.form.shorten(self.value, percent)
        said = f"{percent}% of it, because the case was reopened: {text}"
        return replace(self, value=value, less=(said,))

    @property
    def least(self) -> float:
        """The least number of seconds that it gives; the case's own clock gives a level none."""
        return self.form.least(self.value)


def ends_with(item: Term, calendar: Calendar) -> bool:
    """Whether a term of working days or hours is over within eight years of its calendar."""
    days = item.least / 86400
    if item.form.name == "working_time":
        days = item.least / sum(hours.seconds for hours in calendar.hours)
    return days * 7 <= _LONGEST_OFFICE_DAYS * len(calendar.days)


def percentage(text: str) -> int:
    """Reads a part of something: ``50%``.

    :raises ValueError: what is allowed.
    """
    found = _PERCENT.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r}: write a percentage from 1% to 99%")
    return int(found[1])


def term(text: str) -> Term:
    """Reads a deadline of any form; `` since report`` after it counts on the case's own clock.

    :raises ValueError: which forms there are.
    """
    own = text.endswith(_SINCE_REPORT)
    for form in FORMS:
        found = form.pattern.fullmatch(text.removesuffix(_SINCE_REPORT) if own else text)
        if found:
            return Term(text, form, form.parse(found), own)
    allowed = ", ".join(form.allowed for form in FORMS)
    raise ValueError(
        f"{text!r} is not a deadline: write {allowed}; "
        "with ' since report' after it, it counts from the report on"
    )


@dataclass(frozen=True)
class Reminder:
    """A reminder (催办) of the deadline ``of``.

    ``part`` is how much of the time from the start to when that is due; or ``seconds`` after the
    start, negative: before it is due.
    """

    of: str
    at: str
    part: float | None
    seconds: float

    def due(self, started: Instant, passes: Instant, office: Office) -> Instant:
        """When to remind of a deadline that passes at ``passes``; never in a pause."""
        if self.part is not None:
            return office.elapsed(started, self.part * office.ran(started, passes))
        if self.seconds > 0:
            return office.elapsed(started, self.seconds)
        return out_of_pause(plus(passes, self.seconds), office.pauses)


def reminder(text: str, of: str = "resolve") -> Reminder:
    """Reads a reminder: ``50%``, ``2h before`` it is due, ``1d after`` the start.

    :raises ValueError: what is allowed.
    """
    percent, relative = _PERCENT.fullmatch(text), _RELATIVE.fullmatch(text)
    if percent is not None:
        return Reminder(of, text, int(percent[1]) / 100, 0.0)
    if relative is not None:
        seconds = duration(relative[1])
        return Reminder(of, text, None, seconds if relative[2] == "after" else -seconds)
    raise ValueError(f"{text!r} is not a reminder: write {_REMINDER_CURE}")


@dataclass(frozen=True)
class Then:
    """What follows when the last level's deadline passes (督办).

    ``supervise_every`` is in seconds; ``tell`` are division codes.
    """

    supervise_every: float
    tell: tuple[str, ...]
    source: str


@dataclass(frozen=True)
class DeadlineRule:
    """One line of a profile's ``deadlines``; ``terms`` are by kind, the earliest counts.

    ``calendar`` None counts every day and hour. ``progress`` is for how long who accepted a case
    may do nothing, None for ever.
    """

    name: str
    level: str
    when: Condition
    calendar: Calendar | None
    terms: Mapping[str, tuple[Term, ...]]
    reminders: tuple[Reminder, ...]
    then: Then | None
    source: str
    progress: Term | None = None


def for_level(
    profile: Profile,
    facts: Mapping[str, Any],
    address: Address,
    start: Start,
    holidays: Holidays,
    *,
    extensions: Sequence[Mapping[str, Any]] = (),
    inherited: Sequence[Mapping[str, Any]] = (),
    round_: int = 1,
) -> list[dict[str, Any]]:
    """The deadlines of a case that came to ``address``, by due time, as events carry them.

    ``counted`` is the rule's text, then the days or hours that were counted, the pauses that
    were not, and what was granted.

    :param extensions: what was granted (延期), ``{by, granted_by}``: each counts from when the
        case had to be resolved without it.
    :param inherited: what a merge brought (:func:`bequeathed`), of which the earlier counts.
    :param round_: a reopened case, in its second round or later, may have less time.
    """
    rule = _rule(profile, facts, address)
    office = Office(rule.calendar or EVERY_DAY, ZoneInfo(profile.timezone), holidays)
    why: dict[str, Any] = {"rule": rule.name, "source": rule.source}
    found: dict[str, dict[str, Any]] = {}
    promised = _promised(facts)
    all_terms = {**_terms(profile, rule, round_)}
    if promised is not None:
        all_terms["resolve"] = (*all_terms["resolve"], promised)
    for kind, terms in all_terms.items():
        dues = [(term.due(start, office), term) for term in terms]
        earliest, counting = min(dues, key=lambda pair: pair[0].due)
        calendar = rule.calendar.name if rule.calendar and counting.form.by_office else None
        found[kind] = {
            "kind": kind,
            "due": earliest.due,
            **(PROMISE if counting is promised else why),
            "calendar": calendar,
            "counted": list(earliest.counted),
        }
    stands = replace(office, pauses=start.level_pauses) if start.level_pauses else office
    more = profile.extension.calendar if profile.extension is not None else None
    # What was granted after a merge is more time than that left, what was before is not.
    for agreed in sorted([*inherited, *extensions], key=_agreed_at):
        if "since" in agreed:
            _inherit(found, agreed, stands)
        else:
            _extend(found["resolve"], agreed, replace(stands, calendar=more) if more else stands)
    reminders = []
    for item in rule.reminders:
        of = found[item.of]
        due = item.due(start.level, of["due"], stands)
        if of["calendar"] is not None:
            # Who works by office hours is reminded in them.
            due, _closes = next(stands.stretches(due))
        # "1d before" of a deadline of two hours would remind of what has just come.
        if start.level < due < of["due"]:
            reminders.append(
                {
                    "kind": "remind",
                    "of": item.of,
                    "at": item.at,
                    "due": due,
                    **why,
                    "calendar": of["calendar"],
                    "counted": [f"{item.at} of {of['counted'][0]}"],
                }
            )
    return sorted([*found.values(), *reminders], key=lambda item: (item["due"], item["kind"]))


def of_state(
    profile: Profile, facts: Mapping[str, Any], state: Mapping[str, Any], holidays: Holidays
) -> list[dict[str, Any]]:
    """The deadlines of whoever holds a case, as its state has them: for what is not done yet."""
    found = for_level(
        profile,
        facts,
        Address.of(state["address"]),
        Start.of(state["clocks"]),
        holidays,
        extensions=state.get("extensions", ()),
        inherited=state.get("inherited", ()),
        round_=state["token"]["round"],
    )
    kept = open_of(found, state)
    return with_progress(profile, facts, {**state, "deadlines": kept}, holidays)


def with_progress(
    profile: Profile, facts: Mapping[str, Any], state: Mapping[str, Any], holidays: Holidays
) -> list[dict[str, Any]]:
    """The deadlines of a state, with the one by which its holder must do something again (进展).

    There is none before the case was accepted. It counts on the level's clock, from the last act.
    """
    kept = [item for item in state["deadlines"] if item["kind"] != PROGRESS]
    rule = _rule(profile, facts, Address.of(state["address"]))
    if rule.progress is None or state["acknowledged"] is None:
        return kept
    start = Start.of(state["clocks"])
    # An act of another round or hop, or of a clock that is behind, takes nothing of the time.
    began = max(start.level, round_began(state["clocks"]))
    acts = (state["acknowledged"]["at"], state.get("progressed_at", ""), began)
    office = Office(rule.calendar or EVERY_DAY, ZoneInfo(profile.timezone), holidays)
    due, counted = rule.progress.due(start._replace(level=max(acts)), office)
    by_office = rule.calendar is not None and rule.progress.form.by_office
    item = {
        "kind": PROGRESS,
        "due": due,
        "rule": rule.name,
        "source": rule.source,
        "calendar": rule.calendar.name if rule.calendar is not None and by_office else None,
        "counted": list(counted),
    }
    return sorted([*kept, item], key=lambda item: (item["due"], item["kind"]))


def open_of(found: Sequence[dict[str, Any]], state: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Those of these deadlines that a case still has: none to acknowledge what was (接单)."""
    if state["acknowledged"] is None:
        return list(found)
    return [item for item in found if "acknowledge" not in (item["kind"], item.get("of"))]


def extension(text: str) -> Term:
    """Reads by how much a deadline is extended: ``2d``, ``3 working days``.

    :raises ValueError: what is allowed.
    """
    found = term(text)
    if found.own or found.form.name not in ("duration", "working_days", "working_time"):
        raise ValueError(f"{text!r}: write {_DURATION_CURE}, or 3 working days, or 4 working hours")
    return found


def own_time(
    profile: Profile, facts: Mapping[str, Any], address: Address, round_: int = 1
) -> float:
    """The level's own time in seconds: the least that it has to acknowledge or resolve."""
    found = _terms(profile, _rule(profile, facts, address), round_)
    return min(item.least for terms in found.values() for item in terms)


def told_once(profile: Profile) -> list[str]:
    """The lines by which what passes at the end of a ladder is told once, and never again."""
    ends = dict.fromkeys((steps[-1].level, steps[-1].unit) for steps in profile.ladders.values())
    rules = {
        rule.name: level
        for level, unit in ends
        for rule in profile.deadlines[level]
        # What a unit lets pass goes on to the desk after it.
        if rule.then is None and (unit is not None or UNIT not in rule.when.values)
    }
    return [
        f"{name}: what {level}, the end of a ladder, lets pass is told once and never again: "
        "add then: {supervise: ..., tell: [...]}"
        for name, level in rules.items()
    ]


def then(profile: Profile, facts: Mapping[str, Any], address: Address) -> Then | None:
    """What follows when the deadline passes at the last level; None: supervised just once."""
    return _rule(profile, facts, address).then


def of_feedback(profile: Profile, asked: Instant, holidays: Holidays) -> dict[str, Any] | None:
    """Until when the reporter's answer is waited for, ``{due, rule, source, calendar, counted}``.

    None: the profile asks for none.
    """
    rule = profile.feedback
    if rule is None:
        return None
    office = Office(rule.calendar or EVERY_DAY, ZoneInfo(profile.timezone), holidays)
    due, counted = rule.ask.due(Start(asked, asked), office)
    calendar = rule.calendar.name if rule.calendar and rule.ask.form.by_office else None
    why = {"rule": rule.name, "source": rule.source, "calendar": calendar}
    return {"due": due, **why, "counted": list(counted)}


def bequeathed(
    found: Sequence[Mapping[str, Any]], since: Instant, said: str, stood: Sequence[Pause] = ()
) -> list[dict[str, Any]]:
    """Those of these deadlines that are to come, as a merge (并案) leaves them to a hop.

    That is those of :data:`TERMS`: when something must be done again depends on its own holder.

    :param said: what people read of where they come from.
    :param stood: the pauses in which they did not count; what they are left to has its own.
    """
    office = Office(EVERY_DAY, ZoneInfo("UTC"), Holidays(), tuple(stood))
    return [
        {
            **{name: item[name] for name in ("kind", "rule", "source", "calendar")},
            "due": plus(since, office.ran(since, item["due"])),
            "counted": [*item["counted"], said],
            "since": since,
        }
        for item in found
        if item["kind"] in TERMS and item["due"] > since
    ]


def mark(deadline: Mapping[str, Any]) -> str:
    """What identifies a firing within a hop: ``resolve@...``, ``remind:resolve:50%@...``."""
    what, of, at = deadline["kind"], deadline.get("of"), deadline.get("at")
    if of is not None:
        what = f"{what}:{of}"
    if at is not None:
        what = f"{what}:{at}"
    return f"{what}@{deadline['due']}"


def _agreed_at(item: Mapping[str, Any]) -> str:
    """When an extension was granted, or a deadline was taken over."""
    return str(item.get("since") or item.get("at", ""))


def _inherit(found: dict[str, dict[str, Any]], item: Mapping[str, Any], office: Office) -> None:
    due = office.elapsed(item["since"], seconds_between(item["since"], item["due"]))
    if item["kind"] in found and due < found[item["kind"]]["due"]:
        kept = {name: item[name] for name in item if name != "since"}
        found[item["kind"]] = {**kept, "due": due}


def _extend(deadline: dict[str, Any], granted: Mapping[str, Any], office: Office) -> None:
    by = extension(granted["by"])
    due, counted = by.form.due(by.value, deadline["due"], office)
    shown = f"extended by {by.text}, granted by {granted['granted_by']}"
    deadline |= {"due": due, "counted": [*deadline["counted"], shown, *counted]}


def _promised(facts: Mapping[str, Any]) -> Term | None:
    """What another system has promised, as a deadline on the case's own clock."""
    respond_by = facts.get("respond_by")
    if respond_by is None:
        return None
    form = next(form for form in FORMS if form.name == "duration")
    seconds = max(0.0, seconds_between(facts["reported_at"], respond_by))
    return Term(f"promised for {respond_by}", form, seconds, own=True)


def _terms(profile: Profile, rule: DeadlineRule, round_: int) -> Mapping[str, Sequence[Term]]:
    """What a rule gives in a round: a reopened case may have less."""
    percent = profile.reopening.shorter
    if round_ == 1 or percent is None:
        return rule.terms
    return {kind: [item.shortened(percent) for item in terms] for kind, terms in rule.terms.items()}


def _rule(profile: Profile, facts: Mapping[str, Any], address: Address) -> DeadlineRule:
    rules = profile.deadlines[address.level]
    asked = {**facts, UNIT: address.unit}
    # A checked profile covers every case; the last line also takes facts it does not know.
    return next((rule for rule in rules if rule.when.matches(asked)), rules[-1])
