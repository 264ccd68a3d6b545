"""Deadlines (时限) as pure functions: when a level must have acknowledged, resolved, be reminded.

A new *form* of deadline (``end_of_day``, ``3 working days``) is one more entry of
:data:`FORMS`: how its text is read, when it is due, and the least time that it gives.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from services.grid.clock import Instant, plus, seconds_between
from services.grid.conditions import Condition
from services.grid.tokens import Address

if TYPE_CHECKING:
    from services.grid.profile import Profile

KINDS = ("acknowledge", "resolve")
"""The kinds whose passing moves a case on: response 响应 and completion 办结."""

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"([0-9]{1,9})([smhd])", re.ASCII)
_LONGEST = 3660 * 86400
_PERCENT = re.compile(r"([1-9][0-9]?)%", re.ASCII)
_DURATION_CURE = "a duration such as 90s, 10m, 2h or 1d"


def duration(text: str) -> float:
    """The seconds of a duration: ``90s``, ``10m``, ``2h``, ``1d`` (always 24 hours).

    :raises ValueError: what is allowed.
    """
    found = _DURATION.fullmatch(text)
    seconds = int(found[1]) * _UNITS[found[2]] if found else 0
    if not 0 < seconds <= _LONGEST:
        raise ValueError(f"{text!r}: write {_DURATION_CURE}, above 0 and at most 3660d")
    return float(seconds)


@dataclass(frozen=True)
class Form:
    """One way to write a deadline.

    ``pattern`` says which texts are of this form, ``parse`` reads such a text once, when the
    profile is loaded (ValueError: why not). ``due`` counts from the nominal start of the
    level's clock; ``least`` is the least number of seconds that it gives.
    """

    name: str
    allowed: str
    pattern: re.Pattern[str]
    parse: Callable[[str], Any]
    due: Callable[[Any, Instant], Instant]
    least: Callable[[Any], float]


FORMS: tuple[Form, ...] = (
    Form(
        name="duration",
        allowed=_DURATION_CURE,
        pattern=_DURATION,
        parse=duration,
        due=lambda seconds, started: plus(started, seconds),
        least=lambda seconds: seconds,
    ),
)


@dataclass(frozen=True)
class Term:
    """A deadline as a rule gives it: its text, the form it is of, and what that form read."""

    text: str
    form: Form
    value: Any

    def due(self, started: Instant) -> Instant:
        """When it is due for a clock that started at ``started``."""
        return self.form.due(self.value, started)

    @property
    def least(self) -> float:
        """The least number of seconds that it gives."""
        return self.form.least(self.value)


def term(text: str) -> Term:
    """Reads a deadline of any form.

    :raises ValueError: which forms there are.
    """
    for form in FORMS:
        if form.pattern.fullmatch(text):
            return Term(text, form, form.parse(text))
    raise ValueError(f"{text!r} is not a deadline: write {' or '.join(f.allowed for f in FORMS)}")


@dataclass(frozen=True)
class Reminder:
    """A reminder (催办) at a part of the time from the start to when ``of`` is due."""

    of: str
    at: str
    part: float

    def due(self, started: Instant, passes: Instant) -> Instant:
        """When to remind of a deadline that passes at ``passes``."""
        return plus(started, self.part * seconds_between(started, passes))


def reminder(text: str, of: str = "resolve") -> Reminder:
    """Reads a reminder: a whole percentage from ``1%`` to ``99%``.

    :raises ValueError: what is allowed.
    """
    found = _PERCENT.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is not a reminder: write a percentage from 1% to 99%")
    return Reminder(of, text, int(found[1]) / 100)


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
    """One line of a profile's ``deadlines``; ``terms`` are by kind, the earliest counts."""

    name: str
    level: str
    when: Condition
    terms: Mapping[str, tuple[Term, ...]]
    reminders: tuple[Reminder, ...]
    then: Then | None
    source: str


def for_level(
    profile: Profile, facts: Mapping[str, Any], address: Address, started: Instant
) -> list[dict[str, Any]]:
    """The deadlines of a case that came to ``address``, by due time, as events carry them.

    :param started: the nominal start of the level's clock; all are counted from it.
    """
    rule = _rule(profile, facts, address)
    why: dict[str, Any] = {"rule": rule.name, "source": rule.source, "calendar": None}
    found: dict[str, dict[str, Any]] = {}
    for kind, terms in rule.terms.items():
        earliest = min(terms, key=lambda item: item.due(started))
        found[kind] = {
            "kind": kind,
            "due": earliest.due(started),
            **why,
            "counted": [earliest.text],
        }
    reminders = [
        {
            "kind": "remind",
            "of": item.of,
            "at": item.at,
            "due": item.due(started, found[item.of]["due"]),
            **why,
            "counted": [f"{item.at} of {found[item.of]['counted'][0]}"],
        }
        for item in rule.reminders
    ]
    return sorted([*found.values(), *reminders], key=lambda item: (item["due"], item["kind"]))


def own_time(profile: Profile, facts: Mapping[str, Any], address: Address) -> float:
    """The level's own time in seconds: the least that it has to acknowledge or resolve."""
    rule = _rule(profile, facts, address)
    return min(item.least for terms in rule.terms.values() for item in terms)


def then(profile: Profile, facts: Mapping[str, Any], address: Address) -> Then | None:
    """What follows when the deadline passes at the last level; None: supervised just once."""
    return _rule(profile, facts, address).then


def mark(deadline: Mapping[str, Any]) -> str:
    """What identifies a firing within a hop: ``resolve@...``, ``remind:resolve:50%@...``."""
    parts = [deadline[name] for name in ("kind", "of", "at") if deadline.get(name) is not None]
    return f"{':'.join(parts)}@{deadline['due']}"


def _rule(profile: Profile, facts: Mapping[str, Any], address: Address) -> DeadlineRule:
    rules = profile.deadlines[address.level]
    # A checked profile covers every case; the last line also takes facts it does not know.
    return next((rule for rule in rules if rule.when.matches(facts)), rules[-1])
