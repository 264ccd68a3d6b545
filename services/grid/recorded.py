"""Recorded cases: what levels did with a case and how long they took, one JSON object a line.

A line is one round of a case::

    {"id": "c-1", "division": "46900210421403007", "category": "facility",
     "urgency": "ordinary", "source": "app", "reported_at": "2026-03-02T01:00:00.000Z",
     "stays": [
       {"level": "household", "arrived_at": "2026-03-02T01:00:00.000Z", "left": "passed",
        "passed": [{"kind": "acknowledge", "due": "2026-03-02T03:00:00.000Z"}]},
       {"level": "group", "arrived_at": "2026-03-02T03:00:00.000Z",
        "acknowledged_at": "2026-03-02T03:20:00.000Z", "resolved_at": "2026-03-02T05:00:00.000Z"}]}

A stay is one level's time with the case; it ends when the next one begins. ``left`` says why:
:data:`PASSED`, :data:`REQUESTED`, :data:`UNSTAFFED` or :data:`MOVED`; a last stay has none. A
round that nobody resolved has ``recorded_at``, up to when the record goes, or ``withdrawn_at``.
``respond_by`` is what another system had promised, which holds whatever the rules say.
Nothing says what the matter was, or who reported it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from services.grid import json
from services.grid.clock import Instant, parse, seconds_between
from services.grid.deadlines import KINDS
from services.grid.problems import not_among
from services.grid.tokens import Stage, Token

PASSED = "passed"
"""A deadline of the level passed, and the case climbed."""

REQUESTED = "requested"
"""The level asked that it be moved up."""

UNSTAFFED = "unstaffed"
"""Nobody was on duty, and the profile skips such a level."""

MOVED = "moved"
"""It was moved in another way: down, sideways, by an operator."""

LEFT = (PASSED, REQUESTED, UNSTAFFED, MOVED)
"""Why a stay ended before the case did."""

_REQUIRED = ("id", "division", "category", "urgency", "source", "reported_at", "stays")
_CASE = (*_REQUIRED, "round", "respond_by", "recorded_at", "withdrawn_at")
_STAY = ("level", "unit", "arrived_at", "acknowledged_at", "resolved_at", "left", "passed")
_PASSING = ("kind", "due", "rule", "source")
_WORD = re.compile(r"[a-z][a-z0-9_]{0,39}", re.ASCII)
_CODE = re.compile(r"[0-9]{6,32}", re.ASCII)
_MOST_STAYS = 1000
_LONGEST_TEXT = 200
_EARLIEST, _LATEST = "2000", "2100"
_SKEW_SECONDS = 300.0
"""Desks and custodian have clocks of their own: so much earlier still counts as at once."""


class Wrong(NamedTuple):
    """One mistake of a line: the field, and what to write instead."""

    field: str
    text: str


class UnreadableCase(ValueError):
    """A line is no recorded case; ``wrong`` lists everything that was found."""

    def __init__(self, wrong: Iterable[Wrong]) -> None:
        self.wrong = tuple(wrong)
        super().__init__("; ".join(f"{item.field}: {item.text}" for item in self.wrong))


class Passing(NamedTuple):
    """A deadline that passed: its kind, and where the profile said so and why, if known."""

    kind: str
    due: Instant
    rule: str | None
    source: str | None


@dataclass(frozen=True, slots=True)
class RecordedStay:
    """One level's time with a case; ``left`` is None while it is, or ended, there.

    ``unit`` is the one that had it, None: the level's desk, or it is not recorded.
    """

    level: str
    unit: str | None
    arrived: Instant
    acknowledged: Instant | None
    resolved: Instant | None
    left: str | None
    passed: tuple[Passing, ...]


@dataclass(frozen=True, slots=True)
class Conduct:
    """What a level was seen to do with a case, in seconds after the case came to it.

    ``seen`` is for how long it was watched: what it would have done later nobody knows.
    ``passive``: it let its time pass.
    """

    acknowledges: float | None
    resolves: float | None
    requests: float | None
    seen: float
    passive: bool


@dataclass(frozen=True)
class RecordedCase:
    """One round of a case as it went.

    ``recorded`` is up to when the record goes, where nobody resolved the case.
    """

    id: str
    round: int
    facts: Mapping[str, str]
    division: str
    reported: Instant
    recorded: Instant | None
    withdrawn: Instant | None
    stays: tuple[RecordedStay, ...]

    @property
    def began(self) -> Instant:
        """When this round came to its first level."""
        return self.stays[0].arrived

    @cached_property
    def resolving(self) -> RecordedStay | None:
        """The stay whose level resolved it; of two, as in the register, the later one's."""
        return next((stay for stay in reversed(self.stays) if stay.resolved is not None), None)

    @cached_property
    def ended(self) -> Instant:
        """When it was resolved or withdrawn, or up to when the record goes."""
        resolved = self.resolving.resolved if self.resolving is not None else None
        # A line without any of them is not read.
        return resolved or self.withdrawn or self.recorded or self.stays[-1].arrived

    @cached_property
    def conduct(self) -> Mapping[tuple[str, str | None], Conduct]:
        """What each level, or unit of it, did the first time the case came to it.

        A level that was skipped because nobody was on duty did nothing that could be told.
        """
        found: dict[tuple[str, str | None], Conduct] = {}
        for index, stay in enumerate(self.stays):
            who = stay.level, stay.unit
            if stay.left == UNSTAFFED or who in found:
                continue
            after = self.stays[index + 1].arrived if index + 1 < len(self.stays) else self.ended
            found[who] = _conduct(stay, after)
        return found


def _conduct(stay: RecordedStay, ended: Instant) -> Conduct:
    acknowledges = _since(stay, stay.acknowledged)
    resolves = _since(stay, stay.resolved)
    seen = max(0.0, seconds_between(stay.arrived, ended))
    return Conduct(
        acknowledges=acknowledges,
        resolves=resolves,
        requests=seen if stay.left == REQUESTED else None,
        seen=max(seen, acknowledges or 0.0, resolves or 0.0),
        passive=stay.left == PASSED,
    )


def _since(stay: RecordedStay, at: Instant | None) -> float | None:
    return None if at is None else max(0.0, seconds_between(stay.arrived, at))


def read_case(line: bytes) -> RecordedCase:
    """The recorded case of one line, UTF-8.

    :raises UnreadableCase: everything that is wrong with it, each with its cure.
    """
    try:
        found = json.loads(line)
    except json.InvalidJson as error:
        raise UnreadableCase([Wrong("", f"{error}: write one JSON object a line")]) from error
    if not isinstance(found, dict):
        raise UnreadableCase([Wrong("", "not a JSON object: write one case a line, {...}")])
    reader = _Reader()
    case = reader.case(found)
    if reader.wrong:
        raise UnreadableCase(reader.wrong)
    return case


class _Reader:
    """Reads one line and collects what is wrong; then what it returns is not used."""

    def __init__(self) -> None:
        self.wrong: list[Wrong] = []

    def case(self, found: dict[str, Any]) -> RecordedCase:
        self._fields(found, _CASE, _REQUIRED, "")
        facts = {
            name: self._like(found, name, _WORD, "a lower-case word such as facility")
            for name in ("category", "urgency", "source")
        }
        reported = self._at(found, "reported_at") or Instant("")
        promised = self._at(found, "respond_by")
        if promised is not None:
            facts |= {"reported_at": reported, "respond_by": promised}
        case = RecordedCase(
            id=self._text(found, "id"),
            round=self._round(found),
            facts=facts,
            division=self._like(found, "division", _CODE, "a division code, 6 digits or more"),
            reported=reported,
            recorded=self._at(found, "recorded_at"),
            withdrawn=self._at(found, "withdrawn_at"),
            stays=self._stays(found),
        )
        if not self.wrong:
            self._order(case)
        return case

    def _stays(self, found: dict[str, Any]) -> tuple[RecordedStay, ...]:
        listed = found.get("stays")
        if not isinstance(listed, list) or not 0 < len(listed) <= _MOST_STAYS:
            if "stays" in found:
                self._say("stays", f"write a list of 1 to {_MOST_STAYS} stays")
            return ()
        return tuple(
            self._stay(item, f"stays[{index}]", last=index == len(listed) - 1)
            for index, item in enumerate(listed)
        )

    def _stay(self, item: Any, place: str, *, last: bool) -> RecordedStay:
        if not isinstance(item, dict):
            self._say(place, "write an object with level and arrived_at")
            item = {}
        else:
            self._fields(item, _STAY, ("level", "arrived_at"), place)
        left = item.get("left")
        if last and left is not None:
            self._say(f"{place}.left", "the last stay has none: leave it out, or add the next stay")
        elif not last and left is None:
            self._say(f"{place}.left", f"missing: write why it left, one of {', '.join(LEFT)}")
        elif not last and left not in LEFT:
            self._say(f"{place}.left", not_among(left, LEFT))
        return RecordedStay(
            level=self._like(item, "level", _WORD, "a level such as village", place),
            unit=self._text(item, "unit", place) if item.get("unit") is not None else None,
            arrived=self._at(item, "arrived_at", place) or Instant(""),
            acknowledged=self._at(item, "acknowledged_at", place),
            resolved=self._at(item, "resolved_at", place),
            left=left,
            passed=self._passings(item.get("passed"), f"{place}.passed"),
        )

    def _passings(self, listed: Any, place: str) -> tuple[Passing, ...]:
        if listed is None:
            return ()
        if not isinstance(listed, list) or not all(isinstance(item, dict) for item in listed):
            self._say(place, "write a list of objects with kind and due")
            return ()
        found = []
        for index, item in enumerate(listed):
            where = f"{place}[{index}]"
            self._fields(item, _PASSING, ("kind", "due"), where)
            kind = item.get("kind")
            if "kind" in item and kind not in KINDS:
                self._say(f"{where}.kind", not_among(kind, KINDS))
            rule, source = (
                self._text(item, name, where) if item.get(name) is not None else None
                for name in ("rule", "source")
            )
            due = self._at(item, "due", where) or Instant("")
            found.append(Passing(str(kind), due, rule, source))
        return tuple(found)

    def _order(self, case: RecordedCase) -> None:
        """What can't be, given when other things were."""
        self._follows("stays[0].arrived_at", case.began, "reported_at", case.reported)
        for index, stay in enumerate(case.stays):
            place = f"stays[{index}]"
            for name, at in (
                ("acknowledged_at", stay.acknowledged),
                ("resolved_at", stay.resolved),
            ):
                self._follows(f"{place}.{name}", at, f"{place}.arrived_at", stay.arrived)
            if index:
                before = case.stays[index - 1].arrived
                earlier = f"stays[{index - 1}].arrived_at"
                self._follows(f"{place}.arrived_at", stay.arrived, earlier, before)
        if case.resolving is not None:
            return
        last = case.stays[-1]
        place = f"stays[{len(case.stays) - 1}].arrived_at"
        if case.withdrawn is None and case.recorded is None:
            self._say(
                "recorded_at",
                "nobody resolved it: write up to when the record goes, or withdrawn_at",
            )
        self._follows("withdrawn_at", case.withdrawn, place, last.arrived)
        self._follows("recorded_at", case.recorded, place, last.arrived)

    def _follows(self, field: str, at: Instant | None, other: str, earlier: Instant) -> None:
        if at is not None and at < earlier and seconds_between(at, earlier) > _SKEW_SECONDS:
            self._say(field, f"{at} lies before {other}, {earlier}: correct one of them")

    def _fields(
        self, found: dict[str, Any], known: tuple[str, ...], required: tuple[str, ...], place: str
    ) -> None:
        for name in required:
            if found.get(name) is None:
                self._say(_field(place, name), "missing: write it")
        for name in sorted(found.keys() - set(known)):
            said = f"{not_among(name, known)}; leave out what is not needed"
            self._say(_field(place, name[:40]), said)

    def _round(self, found: dict[str, Any]) -> int:
        value = found.get("round", 1)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= 1_000_000:
            self._say("round", "write a number from 1 on, or leave it out")
            return 1
        return value

    def _text(self, found: dict[str, Any], name: str, place: str = "") -> str:
        value = found.get(name)
        if value is not None and not (isinstance(value, str) and 0 < len(value) <= _LONGEST_TEXT):
            self._say(_field(place, name), f"write text of 1 to {_LONGEST_TEXT} characters")
        return str(value)

    def _like(
        self, found: dict[str, Any], name: str, form: re.Pattern[str], cure: str, place: str = ""
    ) -> str:
        value = found.get(name)
        if value is not None and not (isinstance(value, str) and form.fullmatch(value)):
            self._say(_field(place, name), f"{_shown(value)} can't be used: write {cure}")
        return str(value)

    def _at(self, found: dict[str, Any], name: str, place: str = "") -> Instant | None:
        value = found.get(name)
        if value is None:
            return None
        try:
            if not isinstance(value, str):
                raise ValueError(
                    "not text: write an RFC 3339 time such as 2026-11-23T08:30:00+08:00"
                )
            at = parse(value)
            if not _EARLIEST <= at < _LATEST:
                raise ValueError(f"{at} is not in the years {_EARLIEST} to 2099: correct it")
        except ValueError as error:
            self._say(_field(place, name), str(error))
            return None
        return at

    def _say(self, field: str, text: str) -> None:
        self.wrong.append(Wrong(field, text))


def _field(place: str, name: str) -> str:
    return f"{place}.{name}" if place else name


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def of_timeline(
    case: Mapping[str, Any], events: Iterable[Mapping[str, Any]], recorded: Instant
) -> list[dict[str, Any]]:
    """The lines of a case: one for each round, as plain values.

    :param case: the register's record, as ``GET /v1/cases`` shows it.
    :param events: its timeline, in any order, also incomplete: what the register knows of
        the latest state counts as well.
    :param recorded: when both were asked for.
    """
    heard = [event for event in events if "state" in event["data"]]
    states = [event["data"]["state"] for event in heard]
    states.append({name: case[name] for name in _STATE})
    rounds = sorted({state["token"]["round"] for state in states} - {0})
    return [_line(case, number, heard, states, recorded) for number in rounds]


_STATE = ("token", "address", "acknowledged", "clocks", "resolution")


def _line(
    case: Mapping[str, Any],
    number: int,
    heard: Collection[Mapping[str, Any]],
    states: Collection[Mapping[str, Any]],
    recorded: Instant,
) -> dict[str, Any]:
    mine = [state for state in states if state["token"]["round"] == number]
    hops = sorted({state["token"]["hop"] for state in mine})
    in_round = [event for event in heard if event["data"]["state"]["token"]["round"] == number]
    visits: list[list[int]] = []
    for hop in hops:
        if visits and _stayed(in_round, hop):
            visits[-1].append(hop)
        else:
            visits.append([hop])
    stays = [
        _stay_of(
            [state for state in mine if state["token"]["hop"] in visit],
            [event for event in in_round if event["data"]["state"]["token"]["hop"] in visit],
            None if visit[-1] == hops[-1] else _why_left(in_round, visit[-1]),
        )
        for visit in visits
    ]
    resolved = any("resolved_at" in stay for stay in stays)
    withdrawn = [
        event["time"]
        for event in in_round
        if event["data"]["state"]["token"]["stage"] == Stage.WITHDRAWN.word
    ]
    line = {
        "id": case["id"],
        "round": number,
        "division": _code(case["division"]),
        **{name: case[name] for name in ("category", "urgency", "source", "reported_at")},
        "stays": stays,
    }
    if case.get("respond_by") is not None:
        line["respond_by"] = case["respond_by"]
    if withdrawn and not resolved:
        line["withdrawn_at"] = min(withdrawn)
    elif not resolved:
        # What was heard of while we asked is part of the record.
        line["recorded_at"] = max(recorded, stays[-1]["arrived_at"])
    return line


def _code(division: Any) -> str:
    return str(division["code"] if isinstance(division, Mapping) else division)


def _stay_of(
    states: Collection[Mapping[str, Any]],
    events: Collection[Mapping[str, Any]],
    left: str | None,
) -> dict[str, Any]:
    first = min(states, key=lambda state: Token.of(state["token"]))
    stay: dict[str, Any] = {
        "level": first["address"]["level"],
        "arrived_at": first["clocks"]["level"]["started_at"],
    }
    if first["address"].get("unit") is not None:
        stay["unit"] = first["address"]["unit"]
    for name, of in (("acknowledged_at", "acknowledged"), ("resolved_at", "resolution")):
        times = [state[of]["at"] for state in states if state.get(of) is not None]
        if times:
            stay[name] = min(times)
    if left is not None:
        stay["left"] = left
    passed = {
        (item["kind"], item["due"]): item
        for event in events
        if event["type"] == "case.deadline_passed"
        for item in [_passing_of(event["data"])]
    }
    if passed:
        stay["passed"] = sorted(passed.values(), key=lambda item: (item["due"], item["kind"]))
    return stay


def _passing_of(data: Mapping[str, Any]) -> dict[str, Any]:
    """The deadline that passed, with the rule that its level's state had for it."""
    found = {name: data["passed"][name] for name in ("kind", "due")}
    for item in data["state"]["deadlines"]:
        if (item["kind"], item["due"]) == (found["kind"], found["due"]):
            return {**found, "rule": item["rule"], "source": item["source"]}
    return found


def _stayed(events: Collection[Mapping[str, Any]], hop: int) -> bool:
    """Whether the case came under other rules with this hop and stayed with who held it."""
    return any(
        event["type"] == "case.transferred"
        and event["data"]["state"]["token"]["hop"] == hop
        and event["data"]["previous"] == event["data"]["state"]["address"]
        for event in events
    )


def _why_left(events: Collection[Mapping[str, Any]], hop: int) -> str:
    """Why a hop ended, by the event that began the next one."""
    after = hop + 1
    for event in events:
        data = event["data"]
        if event["type"] == "case.escalated" and data["state"]["token"]["hop"] == after:
            if data["reason"] == "deadline_missed":
                return PASSED
            return UNSTAFFED if _asked_for_nobody(events, hop) else REQUESTED
    return MOVED


def _asked_for_nobody(events: Collection[Mapping[str, Any]], hop: int) -> bool:
    """Whether the desk asked by itself, because nobody was on duty."""
    return any(
        event["type"] == "case.requested"
        and event["data"]["state"]["token"]["hop"] == hop
        and event["data"]["request"]["reason"] == "unstaffed"
        for event in events
    )
