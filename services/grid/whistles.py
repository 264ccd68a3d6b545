"""Whistles (吹哨报到): a holder calls units to join a case, and who of them came and went.

A case's state has each unit that was called in its round as ``joined``, a list of
``{id, round, hop, level, division, unit, lead, by, at, reason, check_in, finish, supervise,
released}``: the holder's desk alone writes it, and the next holder inherits it. ``check_in`` (报到)
and ``finish`` are deadlines with what explains them, decided when the unit is called and never
moved: they are what the unit was told. ``released`` is ``{by, at, score, note}``, none while the
unit may not leave (事不绝、人不撤).

What the unit does is beside the state, for no desk writes another's: a *progress*
``{checked_in, finished, missed}``, the first two none or ``{by, at, note}`` and written by the
unit's desk alone, the last by the custodian. Merging two is a maximum in each part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from services.grid.calendars import Calendar, Holidays, Office
from services.grid.clock import Instant
from services.grid.conditions import UNIT, Condition
from services.grid.deadlines import EVERY_DAY, Due, Start, Term, term
from services.grid.directory import Directory, Unit
from services.grid.events.envelope import event_id
from services.grid.problems import not_among
from services.grid.tokens import Address, Token

if TYPE_CHECKING:
    from services.grid.profile import Profile

KINDS = ("check_in", "finish")
"""The deadlines of a unit that was called: to check in 报到, and to be done."""

DONE = {"check_in": "checked_in", "finish": "finished"}
"""What of a unit's progress each of them waits for."""

SUPERVISE = ("all", "any", "never")
"""When a case is supervised (督办) for it: all the units that are called stay away, or any."""

MOST = 20
"""How many units may be called in a round; each stands in every event of the case."""

Call = dict[str, Any]
Progress = dict[str, Any]


@dataclass(frozen=True)
class WhistleRule:
    """One line of a profile's ``whistle``: how long a unit has to check in, and to finish.

    ``by`` are the levels whose desks may call anybody by it, none: all; ``terms`` are by kind, the
    earliest counts; ``supervise`` is one of :data:`SUPERVISE`.
    """

    name: str
    when: Condition
    by: tuple[str, ...] | None
    calendar: Calendar | None
    terms: Mapping[str, tuple[Term, ...]]
    supervise: str
    source: str


def call_term(text: str) -> Term:
    """Reads a deadline of a unit that is called: any form, counted from the call.

    :raises ValueError: what is allowed.
    """
    found = term(text)
    if found.own:
        raise ValueError(f"{text!r}: it counts from the call on, leave out ' since report'")
    return found


def rule_for(
    profile: Profile, facts: Mapping[str, Any], level: str, unit: Unit | None
) -> WhistleRule | None:
    """The rule by which a desk of this level may call this unit; None: it may not.

    :param unit: None asks for a unit that no rule names.
    """
    named = ("",) if unit is None else (unit.id, unit.name)
    asked = [{**facts, UNIT: word} for word in named]
    return next(
        (
            rule
            for rule in profile.whistle
            if (rule.by is None or level in rule.by) and any(map(rule.when.matches, asked))
        ),
        None,
    )


def due(
    profile: Profile,
    rule: WhistleRule,
    called: Instant,
    holidays: Holidays,
    asked: Mapping[str, str] | None = None,
) -> dict[str, dict[str, Any]]:
    """The deadlines of a unit that is called now, by kind, as events carry them.

    :param asked: what the caller wants instead of the rule's, by kind.
    :raises WrongCall: it is no deadline, it is later than the rule allows, or the rule has no
        calendar for it.
    """
    office = Office(rule.calendar or EVERY_DAY, ZoneInfo(profile.timezone), holidays)
    start, wrong = Start(called, called), dict[str, str]()
    found: dict[str, dict[str, Any]] = {}
    for kind in KINDS:
        counting, made = _earliest(rule.terms[kind], start, office)
        if asked is not None and kind in asked:
            try:
                counting = _sooner(asked[kind], rule, made, start, office)
            except ValueError as error:
                wrong[kind] = str(error)
            made = counting.due(start, office)
        calendar = rule.calendar.name if rule.calendar and counting.form.by_office else None
        found[kind] = {
            "kind": kind,
            "due": made.due,
            "rule": rule.name,
            "source": rule.source,
            "calendar": calendar,
            "counted": list(made.counted),
        }
    if wrong:
        raise WrongCall(wrong)
    return found


def _sooner(text: str, rule: WhistleRule, most: Due, start: Start, office: Office) -> Term:
    """What a caller asks for, if it is not later than what the rule gives."""
    asked = call_term(text)
    if asked.form.by_office and rule.calendar is None:
        raise ValueError(f"{rule.name} counts with no calendar: write a duration such as 2h")
    if asked.due(start, office).due > most.due:
        raise ValueError(f"the profile allows {most.counted[0]} at most: write less")
    return asked


def _earliest(terms: Sequence[Term], start: Start, office: Office) -> tuple[Term, Due]:
    dues = [(item, item.due(start, office)) for item in terms]
    return min(dues, key=lambda pair: pair[1].due)


class WrongCall(ValueError):
    """Nobody can be called like this; ``errors`` maps each field to why and the cure."""

    def __init__(self, errors: Mapping[str, str]) -> None:
        super().__init__("; ".join(f"{name}: {why}" for name, why in errors.items()))
        self.errors = dict(errors)


def named(
    said: Sequence[Mapping[str, Any]], here: Address, profile: Profile, directory: Directory
) -> list[Unit]:
    """The units that a holder means by ``[{unit, level, division}]``.

    A unit is known by its id, or by its name: in the division that is said, else in the holder's
    or the nearest above that has one.

    :raises WrongCall: what is wrong, field by field (``units.0.unit``).
    """
    wrong: dict[str, str] = {}
    found: list[Unit] = []
    for index, item in enumerate(said):
        unit = _named(item, here, directory)
        why = _why_not(unit, item, here, profile, directory)
        if why is not None or unit is None:
            wrong[f"units.{index}.unit"] = str(why)
        elif unit in found:
            wrong[f"units.{index}.unit"] = f"{unit.id} is called twice: keep one"
        else:
            found.append(unit)
    if wrong:
        raise WrongCall(wrong)
    return found


def _named(said: Mapping[str, Any], here: Address, directory: Directory) -> Unit | None:
    word, division = said["unit"], said.get("division")
    if word in directory.units:
        return directory.units[word]
    places = directory.ancestors(division or here.division)
    for place in places[:1] if division else places:
        unit = directory.unit(word, said.get("level") or place.level, place.code)
        if unit is not None:
            return unit
    return None


def _why_not(
    unit: Unit | None,
    said: Mapping[str, Any],
    here: Address,
    profile: Profile,
    directory: Directory,
) -> str | None:
    if unit is None:
        above = {place.code for place in directory.ancestors(said.get("division") or here.division)}
        near = sorted(item.id for item in directory.units.values() if item.division in above)
        return not_among(said["unit"], near[:20] or sorted(directory.units)[:20])
    for name in ("level", "division"):
        wanted, is_ = said.get(name), getattr(unit, name)
        if wanted is not None and wanted != is_:
            return f"{unit.id} is at the {unit.level} {unit.division}: write these, or leave them"
    if not profile.reaches(unit.division, directory):
        return f"{unit.id} is outside of {profile.region}, the region of the case's profile"
    if unit.level not in profile.levels:
        return f"no desk serves {unit.id}: its level {unit.level} is on no ladder of the profile"
    if unit.id == here.unit:
        return f"{unit.id} holds the case: call others"
    return None


def called(
    case: str,
    state: Mapping[str, Any],
    units: Sequence[Unit],
    *,
    profile: Profile,
    facts: Mapping[str, Any],
    holidays: Holidays,
    by: str,
    reason: str,
    now: Instant,
    lead: str | None,
    asked: Mapping[str, str],
) -> list[Call]:
    """The calls of these units by the holder's next act, for ``joined``.

    :param lead: the one of them that leads all who are called; None: who does already, or else
        the first.
    :param asked: see :func:`due`.
    :raises WrongCall: what is asked for is wrong, or this level may not call one of them.
    """
    level: str = state["address"]["level"]
    token = Token.of(state["token"]).act()
    if lead is None and leading(state) is None:
        lead = units[0].id
    calls = []
    for unit in units:
        rule = rule_for(profile, facts, level, unit)
        if rule is None:
            raise WrongCall({"units": f"the profile lets no {level} call {unit.id}: escalate it"})
        dues = due(profile, rule, now, holidays, asked)
        calls.append(
            {
                "id": event_id(case, token, "call", unit.id),
                "round": token.round,
                "hop": token.hop,
                **address_of(unit).as_dict(),
                "lead": unit.id == lead,
                "by": by,
                "at": now,
                "reason": reason,
                **dues,
                "supervise": rule.supervise,
                "released": None,
            }
        )
    return calls


def standing(state: Mapping[str, Any]) -> list[Call]:
    """The units that were called and are not released."""
    return [item for item in state.get("joined", ()) if item["released"] is None]


def leading(state: Mapping[str, Any]) -> str | None:
    """The unit that leads those who are called (牵头), if one does."""
    return next((str(item["unit"]) for item in standing(state) if item["lead"]), None)


def released(
    state: Mapping[str, Any], by: str, at: Instant, scores: Mapping[str, int | None]
) -> dict[str, list[Call]]:
    """What a resolution changes of a state: everybody who is still there may leave.

    :param scores: by unit; who has none is not scored.
    """
    if not standing(state):
        return {}
    joined = [
        item
        if item["released"]
        else {
            **item,
            "released": {"by": by, "at": at, "score": scores.get(item["unit"]), "note": ""},
        }
        for item in state["joined"]
    ]
    return {"joined": joined}


NOTHING: Progress = {"checked_in": None, "finished": None, "missed": []}
"""Of a unit that has not done anything yet."""


def merged(known: Progress | None, said: Mapping[str, Any]) -> Progress:
    """What two say of a unit, whatever came first."""
    known = known or NOTHING
    acts = {}
    for name in ("checked_in", "finished"):
        # Its desk writes each once: of two, after a loss of its database, the first counts.
        told = [item for item in (known[name], said.get(name)) if item is not None]
        acts[name] = min(told, key=lambda item: (item["at"], item["by"]), default=None)
    missed = sorted({*known["missed"], *said.get("missed", ())})
    return {**acts, "missed": missed}


def heard(known: Mapping[str, Progress], said: Sequence[Mapping[str, Any]]) -> dict[str, Progress]:
    """What is known of calls, by id, with what an event says of some, ``[{call, ...progress}]``."""
    return {**known, **{item["call"]: merged(known.get(item["call"]), item) for item in said}}


def met(kind: str, progress: Mapping[str, Any]) -> bool:
    """Whether a unit has done what this deadline waits for; who is done has come."""
    return progress[DONE[kind]] is not None or progress["finished"] is not None


def shown(
    state: Mapping[str, Any], progress: Mapping[str, Progress] | None
) -> list[dict[str, Any]]:
    """Each unit that was called in this round, with what it did, as people see it."""
    known = progress or {}
    return [{**item, **known.get(item["id"], NOTHING)} for item in state.get("joined", ())]


def address(call: Mapping[str, Any]) -> Address:
    """Where a unit that was called is."""
    return Address(call["level"], call["division"], call["unit"])


def address_of(unit: Unit) -> Address:
    """Where a unit of the directory is."""
    return Address(unit.level, unit.division, unit.id)
