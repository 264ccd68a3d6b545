"""Counting the courses of cases without keeping them: where they come, how long, how many."""

from __future__ import annotations

import math
from array import array
from collections import Counter
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

from services.grid.clock import Instant, instant, moment, seconds_between
from services.grid.profile import Loaded
from services.grid.profile_rules import DEFAULT_LADDER
from services.grid.recorded import LEFT, PASSED, RecordedCase
from services.grid.tokens import Address
from services.grid.whatif import (
    ASSUMPTIONS,
    RESOLVED,
    UNKNOWN,
    WORST_CASE,
    Course,
    Fired,
    Stay,
    not_replayable,
    recorded_course,
    replay,
)

_MINUTE = 60
_MINUTES_A_DAY = 1440
_DIGITS = 3


class Durations:
    """Durations in seconds, to three digits: a quantile is at most half a percent off."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()

    def add(self, seconds: float) -> None:
        """Counts one more."""
        self._counts[_rounded(seconds)] += 1

    @property
    def count(self) -> int:
        """How many."""
        return self._counts.total()

    def quantile(self, part: float) -> int | None:
        """The least duration that ``part`` of all don't exceed; None without any."""
        rank, counted = math.ceil(part * self.count), 0
        for seconds in sorted(self._counts):
            counted += self._counts[seconds]
            if counted >= rank:
                return seconds
        return None


def _rounded(seconds: float) -> int:
    whole = round(seconds)
    return round(whole, _DIGITS - len(str(abs(whole)))) if abs(whole) >= 10**_DIGITS else whole


class Open:
    """How many cases were open at once, looked at each full minute."""

    def __init__(self) -> None:
        self._days: dict[int, array[int]] = {}

    def add(self, begins: Instant, ends: Instant) -> None:
        """One more case that was open from ``begins`` to before ``ends``."""
        if begins < ends:
            self._change(_minute(begins), 1)
            self._change(_minute(ends), -1)

    def most(self) -> tuple[int, Instant | None]:
        """The most at once, and when that was first; 0 and None without any."""
        now, most, when = 0, 0, 0
        for day in sorted(self._days):
            for minute, change in enumerate(self._days[day]):
                if change:
                    now += change
                    if now > most:
                        most, when = now, day * _MINUTES_A_DAY + minute
        return most, instant(datetime.fromtimestamp(when * _MINUTE, UTC)) if most else None

    def _change(self, minute: int, by: int) -> None:
        day, of_day = divmod(minute, _MINUTES_A_DAY)
        changes = self._days.get(day)
        if changes is None:
            changes = self._days[day] = array("i", bytes(4 * _MINUTES_A_DAY))
        changes[of_day] += by


def _minute(at: Instant) -> int:
    """The first full minute that is not before ``at``, since the epoch."""
    return math.ceil(moment(at).timestamp() / _MINUTE)


_MOST_NAMES = 1000
_OTHERS = "(others)"


class _Level:
    """What came to one level."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.held = Durations()
        self.open = Open()

    def add(self, stay: Stay) -> None:
        self.counts["came"] += 1
        self.counts["late"] += stay.late
        self.counts["supervised"] += stay.supervised
        if stay.ended in LEFT:
            self.counts["climbed"] += 1
        elif stay.ended != RESOLVED:
            # Who resolved it is counted by the case: it may be a desk that no longer held it.
            self.counts[stay.ended] += 1
        if stay.ended in (*LEFT, RESOLVED):
            self.held.add(seconds_between(stay.arrived, stay.until))
        self.open.add(stay.arrived, stay.until)

    def shown(self) -> dict[str, Any]:
        most, when = self.open.most()
        counted = ("came", "late", "resolved", "climbed", "supervised")
        rest = ("open", "withdrawn", "elsewhere", UNKNOWN)
        return {
            **{name: self.counts[name] for name in (*counted, *rest)},
            "most_open": most,
            "most_open_at": when,
            "held_median_seconds": self.held.quantile(0.5),
            "held_90_seconds": self.held.quantile(0.9),
        }


class Tally:
    """Courses counted: by level, by category, and by the rule that let them climb."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.levels: dict[str, _Level] = {}
        self.categories: Counter[str] = Counter()
        self.rules: Counter[tuple[str, Fired]] = Counter()
        self.unknown: Counter[tuple[str, str]] = Counter()

    def add(self, case: RecordedCase, course: Course) -> None:
        """Counts one more."""
        for stay in course.stays:
            self._level(stay.level).add(stay)
            if stay.fired is not None and (stay.ended == PASSED or stay.supervised):
                _count(self.rules, (stay.level, stay.fired), ("", Fired("", _OTHERS, "", "")))
        last = course.stays[-1]
        if last.unknown is not None:
            self.unknown[last.level, last.unknown] += 1
        if course.resolved_by is not None:
            self._level(course.resolved_by).counts["resolved"] += 1
        self.counts["cases"] += 1
        self.counts["climbed"] += course.climbed
        self.counts["resolved"] += course.resolved_by is not None
        self.counts["supervised"] += course.supervised
        self.counts["told" if course.told and not course.assumed else "not_told"] += 1
        self.counts["assumed"] += course.assumed
        self.counts["unknown"] += not course.told
        self.categories[case.facts["category"]] += course.climbed

    def shown(self) -> dict[str, Any]:
        """All of it as plain values."""
        names = ("cases", "climbed", "resolved", "supervised", "told", "assumed", "unknown")
        return {
            **{name: self.counts[name] for name in names},
            "levels": {name: level.shown() for name, level in self.levels.items()},
            "categories": dict(self.categories),
            "rules": [
                {"level": level, **fired._asdict(), "times": times}
                for (level, fired), times in sorted(
                    self.rules.items(), key=lambda item: (-item[1], item[0])
                )
            ],
            "unknown_at": [
                {"level": level, "why": why, "cases": cases}
                for (level, why), cases in sorted(self.unknown.items())
            ],
        }

    def _level(self, name: str) -> _Level:
        if name not in self.levels and len(self.levels) >= _MOST_NAMES:
            name = _OTHERS
        found = self.levels.get(name)
        if found is None:
            found = self.levels[name] = _Level()
        return found


class Comparison:
    """Recorded cases as they went, or under the present rules, beside the proposed ones.

    :param present: a folder; None compares with the record itself.
    """

    def __init__(
        self, proposed: Loaded, present: Loaded | None = None, *, worst_case: bool = False
    ) -> None:
        self._proposed = proposed
        self._present = present
        self._worst_case = worst_case
        self._before = Tally()
        self._after = Tally()
        self._words: Counter[tuple[str, str]] = Counter()
        self._refused = 0
        self._moved: Counter[str] = Counter()
        self._taken = Durations(), Durations()
        self._ids = array("q")

    @property
    def cases(self) -> int:
        """How many were added, replayed or not."""
        return len(self._ids)

    def add(self, case: RecordedCase) -> None:
        """One more case: counted on both sides, or on none if a side does not know a word."""
        self._ids.append(hash((case.id, case.round)))
        sides = filter(None, (self._proposed, self._present))
        unknown = next(filter(None, (not_replayable(side, case) for side in sides)), None)
        if unknown is not None:
            self._refused += 1
            _count(self._words, unknown, (unknown[0], _OTHERS))
            return
        before = (
            recorded_course(case)
            if self._present is None
            else replay(self._present, case, worst_case=self._worst_case)
        )
        after = replay(self._proposed, case, worst_case=self._worst_case)
        self._before.add(case, before)
        self._after.add(case, after)
        if before.told and after.told and before.climbed != after.climbed:
            self._moved["climbs_now" if after.climbed else "climbs_no_more"] += 1
        # Of different cases on either side two medians would compare nothing.
        if before.resolved is not None and after.resolved is not None:
            for taken, resolved in zip(self._taken, (before.resolved, after.resolved), strict=True):
                taken.add(seconds_between(case.reported, resolved))

    def shown(self) -> dict[str, Any]:
        """The result as plain values; ``repeated`` are lines of a case that came before."""
        proposed, present = self._proposed.profile, self._present
        seen = [*proposed.levels, *self._before.levels, *self._after.levels]
        return {
            "proposed": proposed.id,
            "before": present.profile.id if present is not None else "recorded",
            "assumptions": self._assumptions(),
            "cases": self.cases,
            "not_replayed": self._refused,
            "unknown_words": [
                {"field": field, "word": word, "cases": cases}
                for (field, word), cases in sorted(
                    self._words.items(), key=lambda item: (-item[1], item[0])
                )
            ],
            "repeated": self._repeated(),
            **{name: self._moved[name] for name in ("climbs_now", "climbs_no_more")},
            "resolved_on_both_sides": self._resolved_on_both_sides(),
            "levels": [
                {"level": level, "title": self._title(level)} for level in dict.fromkeys(seen)
            ],
            "recorded" if present is None else "present": self._before.shown(),
            "replayed": self._after.shown(),
        }

    def _title(self, level: str) -> str:
        """What the proposed profile calls the desks of a level."""
        proposed, desk = self._proposed.profile, Address(level, self._proposed.profile.region)
        return proposed.title_of(DEFAULT_LADDER, desk, self._proposed.directory)

    def _assumptions(self) -> list[str]:
        if not self._worst_case:
            return list(ASSUMPTIONS)
        return [*ASSUMPTIONS[:2], WORST_CASE, *ASSUMPTIONS[3:]]

    def _resolved_on_both_sides(self) -> dict[str, Any]:
        """How long it took from report to resolution, the same cases on both sides."""
        before, after = (
            {"taken_median_seconds": side.quantile(0.5), "taken_90_seconds": side.quantile(0.9)}
            for side in self._taken
        )
        return {"cases": self._taken[0].count, "before": before, "after": after}

    def _repeated(self) -> int:
        ordered = sorted(self._ids)
        return sum(one == other for one, other in pairwise(ordered))


def _count(counts: Counter[Any], name: Any, others: Any) -> None:
    """Counts a name from outside: of too many different ones the rest is counted together."""
    counts[name if name in counts or len(counts) < _MOST_NAMES else others] += 1
