"""What would have become of recorded cases under other rules.

:func:`recorded_course` is how a case went, :func:`replay` how it would have gone. What people
did is taken from the record, in seconds after the case came to their level; nothing is made
up. :data:`ASSUMPTIONS` says so to people. :mod:`services.grid.tally` counts courses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from services.grid.climbing import Turn, turn
from services.grid.clock import Instant, plus, seconds_between
from services.grid.profile import Loaded
from services.grid.recorded import LEFT, PASSED, REQUESTED, UNSTAFFED, Conduct, RecordedCase
from services.grid.tokens import Address

ASSUMPTIONS = (
    "a level acknowledges, resolves or asks for the next one as long after the case came to it "
    "as is recorded, on whatever day or hour that is now",
    "a level that let its time pass lets it pass again, also where it is longer now: assumed",
    "of a level that the record tells nothing of, or too little, nothing is made up: there the "
    "replay of that case ends, not in the record",
    "officers and duty are those of the folder, and Huashi itself was never down",
    "an acknowledgement never lapses: what was done meanwhile is not recorded",
)
"""What the numbers rest on, in words for whoever signs them."""

WORST_CASE = (
    "worst case: a level that the record tells nothing of, or too little, lets its time pass: "
    "assumed"
)
"""What replaces the third assumption on demand."""

RESOLVED = "resolved"
WITHDRAWN = "withdrawn"
OPEN = "open"
ELSEWHERE = "elsewhere"
UNKNOWN = "unknown"
"""How a last stay ends; the others by one of :data:`services.grid.recorded.LEFT`."""

NOTHING = "nothing recorded"
"""In the record the case never came to this level."""

TOO_LITTLE = "recorded too short"
"""It was there, but ended or went elsewhere before this deadline."""


class Fired(NamedTuple):
    """The deadline that moved a case on; ``text`` as the rule writes it, where it is known."""

    kind: str
    rule: str
    text: str
    source: str


@dataclass(frozen=True, slots=True)
class Stay:
    """One level's time with a case.

    ``until`` is up to when it is known to be here. ``late``: it was not acknowledged in time.
    ``fired`` is the first deadline that passed here; ``supervised``: it did at the last level.
    ``unknown`` is why the record does not tell how it goes on.
    """

    level: str
    arrived: Instant
    until: Instant
    ended: str
    late: bool = False
    supervised: bool = False
    fired: Fired | None = None
    unknown: str | None = None


@dataclass(frozen=True, slots=True)
class Course:
    """How a case goes.

    ``resolved_by`` is the level, or None. ``assumed``: a level that let its time pass was
    given longer, or a worst case was taken.
    """

    stays: tuple[Stay, ...]
    resolved_by: str | None = None
    resolved: Instant | None = None
    assumed: bool = False

    @property
    def climbed(self) -> bool:
        """Whether a deadline moved it up at all."""
        return any(stay.ended == PASSED for stay in self.stays)

    @property
    def supervised(self) -> bool:
        """Whether the last level's deadline passed (督办)."""
        return any(stay.supervised for stay in self.stays)

    @property
    def told(self) -> bool:
        """Whether the record tells it to the end."""
        return self.stays[-1].ended != UNKNOWN


def not_replayable(loaded: Loaded, case: RecordedCase) -> tuple[str, str] | None:
    """Which word of a case this folder does not know, as (field, word); None: it knows all.

    Such a case would not be accepted here, so there is nothing to replay.
    """
    profile = loaded.profile
    for name, known in (
        ("category", profile.categories),
        ("urgency", profile.urgencies),
        ("source", profile.sources),
    ):
        if case.facts[name] not in known:
            return name, case.facts[name]
    if loaded.directory.division(case.division) is None:
        return "division", case.division
    return None


def recorded_course(case: RecordedCase) -> Course:
    """How a case went."""
    stays = []
    for index, stay in enumerate(case.stays):
        last = index == len(case.stays) - 1
        until = case.ended if last else case.stays[index + 1].arrived
        passed = stay.passed[0] if stay.passed else None
        stays.append(
            Stay(
                level=stay.level,
                arrived=stay.arrived,
                until=max(until, stay.arrived),
                ended=_recorded_end(case) if last else str(stay.left),
                late=any(item.kind == "acknowledge" for item in stay.passed),
                supervised=bool(stay.passed) and stay.left != PASSED,
                fired=passed and Fired(passed.kind, passed.rule or "", "", passed.source or ""),
            )
        )
    by = case.resolving
    return Course(
        tuple(stays),
        by.level if by is not None else None,
        by.resolved if by is not None else None,
    )


def _recorded_end(case: RecordedCase) -> str:
    if case.resolving is None:
        return OPEN if case.withdrawn is None else WITHDRAWN
    return RESOLVED if case.resolving is case.stays[-1] else ELSEWHERE


def replay(loaded: Loaded, case: RecordedCase, *, worst_case: bool = False) -> Course:
    """How a case would have gone in this folder.

    :param worst_case: a level that the record tells nothing of, or too little, lets its time
        pass; otherwise the course ends there as ``unknown``.
    :raises DivisionError: the case's division is unknown here; ask :func:`not_replayable`.
    """
    return _Replay(loaded, case, worst_case).course()


_NOTHING_DONE = Conduct(acknowledges=None, resolves=None, requests=None, seen=0.0, passive=True)


class _Replay:
    """One replay in the making."""

    def __init__(self, loaded: Loaded, case: RecordedCase, worst_case: bool) -> None:
        self.loaded = loaded
        self.case = case
        self.worst_case = worst_case
        self.assumed = False
        self._told: list[tuple[str, str | None]] = []
        self._known = False
        # A case that is open, or was withdrawn, is followed as far as the record goes.
        self.cut = None if case.resolving is not None else case.ended

    def course(self) -> Course:
        """From level to level, until it ends or the record does."""
        profile, directory = self.loaded.profile, self.loaded.directory
        case, stays = self.case, list[Stay]()
        ladder, address, *_ = profile.enter(case.facts, case.division, directory)
        arrives = case.began
        while True:
            at = turn(self.loaded, case.facts, address, arrives, case.reported, round_=case.round)
            above = profile.next_address(ladder, address, directory)
            stay = self._stay(at, last=above is None)
            stays.append(stay)
            if above is None or stay.ended not in LEFT:
                break
            address, arrives = above, stay.until
        resolved = stay.ended == RESOLVED
        return Course(
            tuple(stays),
            stay.level if resolved else None,
            stay.until if resolved else None,
            self.assumed and stay.ended != UNKNOWN,
        )

    def _stay(self, at: Turn, *, last: bool) -> Stay:
        """What happens at one level; at the last one nothing takes the case away."""
        if at.skipped and not last:
            return _made(at, UNSTAFFED, at.arrives)
        nothing = _NOTHING_DONE if self.worst_case else None
        recorded = self._conduct(at.address)
        self._known, conduct = recorded is not None, recorded or nothing
        return self._not_told(at) if conduct is None else self._acts(at, conduct, last)

    def _conduct(self, address: Address) -> Conduct | None:
        """What is recorded of who has it now: of just this unit or desk, else of its level.

        Each is taken once: a desk does not do again what the unit below it did.
        """
        level, _division, unit = address
        left = [who for who in self.case.conduct if who[0] == level and who not in self._told]
        if not left:
            return None
        who = (level, unit) if (level, unit) in left else left[0]
        self._told.append(who)
        return self.case.conduct[who]

    def _acts(self, at: Turn, conduct: Conduct, last: bool) -> Stay:
        """The level does what it did, and its deadlines pass or not."""
        resolves = _after(at, conduct.resolves)
        # Above the last level there is nobody to ask.
        requests = None if last else _after(at, conduct.requests)
        acts = min(filter(None, (resolves, requests)), default=None)
        passing = _passing(at, _after(at, conduct.acknowledges), acts)
        if passing is not None:
            passes = at.passes_at(passing)
            if self._beyond(passes):
                return self._still_there(at)
            if not self._tells(conduct, seconds_between(at.arrives, passes)):
                return self._not_told(at)
            if not last:
                return _made(at, PASSED, passes, passing)
        how = RESOLVED if acts == resolves else REQUESTED
        return self._ended(at, how, acts, passing)

    def _ended(
        self, at: Turn, how: str, acts: Instant | None, passing: Mapping[str, Any] | None
    ) -> Stay:
        """The level acts, if it ever does, and within what the record goes up to."""
        if acts is None and self.cut is None:
            return self._not_told(at, passing)
        if acts is None or self._beyond(acts):
            return self._still_there(at, passing)
        return _made(at, how, acts, passing)

    def _tells(self, conduct: Conduct, seconds: float) -> bool:
        """Whether the record, or what is assumed, has a deadline pass after so long."""
        if seconds <= conduct.seen:
            return True
        self.assumed = True
        return conduct.passive or self.worst_case

    def _beyond(self, at: Instant) -> bool:
        return self.cut is not None and at > self.cut

    def _still_there(self, at: Turn, passing: Mapping[str, Any] | None = None) -> Stay:
        ended = OPEN if self.case.withdrawn is None else WITHDRAWN
        return _made(at, ended, self.case.ended, passing)

    def _not_told(self, at: Turn, passing: Mapping[str, Any] | None = None) -> Stay:
        why = TOO_LITTLE if self._known else NOTHING
        return _made(at, UNKNOWN, self.case.ended, passing, why)


def _passing(at: Turn, acknowledges: Instant | None, acts: Instant | None) -> dict[str, Any] | None:
    """The first deadline that passes, if the level accepts and ends it at these times."""

    def met(deadline: Mapping[str, Any]) -> bool:
        due = at.passes_at(deadline)
        if acts is not None and acts <= due:
            return True
        accepted = acknowledges is not None and acknowledges <= due
        return accepted and deadline["kind"] == "acknowledge"

    return at.passing(met)


def _after(at: Turn, seconds: float | None) -> Instant | None:
    return None if seconds is None else plus(at.arrives, seconds)


def _made(
    at: Turn,
    ended: str,
    until: Instant,
    passing: Mapping[str, Any] | None = None,
    unknown: str | None = None,
) -> Stay:
    fired = None
    if passing is not None:
        text = passing["counted"][0]
        fired = Fired(passing["kind"], passing["rule"], text, passing["source"])
    return Stay(
        level=at.address.level,
        arrived=at.arrives,
        until=max(until, at.arrives),
        ended=ended,
        late=fired is not None and fired.kind == "acknowledge",
        supervised=fired is not None and ended != PASSED,
        fired=fired,
        unknown=unknown,
    )
