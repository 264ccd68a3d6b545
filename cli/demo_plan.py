"""The demo's script: what happens to each report, and whether it did. Pure.

Cases that somebody answers on the way are ordinary ones: their time to acknowledge, 12 real
seconds at 600 times speed, outlasts the restart of a desk that was killed. Urgent ones climb
fast and are settled at the township, above which nothing takes them away.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

Json = Mapping[str, Any]

LADDER = ("household", "group", "village", "township")

_CUSTODY = ("case.reported", "case.escalated")


@dataclass(frozen=True)
class Play:
    """What happens to one report.

    :param enters: the level at which it comes in.
    :param ends: the level that settles it, or where it stays.
    :param outcome: how it is settled; None: nobody ever does, and it is supervised.
    :param kept_by: a level that accepts it and then lets the time to resolve pass.
    :param after_supervision: ``ends`` answers only once it was supervised.
    """

    enters: str
    ends: str
    outcome: str | None
    kept_by: str | None = None
    after_supervision: bool = False

    @property
    def path(self) -> tuple[str, ...]:
        """The levels that it comes to, in order."""
        return LADDER[LADDER.index(self.enters) : LADDER.index(self.ends) + 1]

    @property
    def length(self) -> int:
        """How long its road is, for comparison: a time to resolve outlasts every other."""
        return len(self.path) + (10 if self.kept_by else 0)

    @property
    def supervised(self) -> bool:
        """Whether the plan has the last level's deadline pass."""
        return self.outcome is None or self.after_supervision

    def action(self, level: str, *, acknowledged: bool, supervised: bool) -> str | None:
        """What the officers of ``level`` do next with it: ``acknowledge``, ``resolve``, nothing."""
        if level == self.kept_by:
            return None if acknowledged else "acknowledge"
        waits = self.after_supervision and not supervised
        if level != self.ends or self.outcome is None or waits:
            return None
        return "resolve" if acknowledged else "acknowledge"


PLAN: dict[str, Play] = {
    # Trivial matters do not leave the household (琐事不出户).
    "qh-001": Play("household", "household", "settled"),
    "qh-004": Play("household", "household", "settled"),
    "qh-013": Play("household", "household", "explained"),
    "qh-016": Play("household", "household", "mediated"),
    "qh-018": Play("household", "household", "settled"),
    # Small ones do not leave the group (小事不出组): the household contact did not answer.
    "qh-003": Play("household", "group", "mediated"),
    "qh-006": Play("household", "group", "settled"),
    "qh-020": Play("household", "group", "settled"),
    # Big ones do not leave the village (大事不出村).
    "qh-014": Play("household", "village", "settled"),
    # The group accepts it, and its time to resolve passes.
    "qh-010": Play("household", "village", "settled", kept_by="group"),
    # Nobody answers at all: it climbs to the township and is supervised (督办).
    "qh-015": Play("household", "township", None),
    # Difficult ones do not leave the township (难事不出镇): urgent ones get there fast.
    "qh-002": Play("household", "township", "transferred_out"),
    "qh-005": Play("household", "township", "settled"),
    "qh-008": Play("household", "township", "transferred_out"),
    "qh-011": Play("household", "township", "mediated"),
    "qh-017": Play("household", "township", "settled"),
    # Emergencies, and reports of which just the township is known, enter there.
    "qh-007": Play("township", "township", "settled"),
    "qh-012": Play("township", "township", "settled"),
    "qh-009": Play("township", "township", "explained"),
    "qh-019": Play("township", "township", "settled", after_supervision=True),
}


def play_of(report: Json) -> Play:
    """The plan for a report; one that has none is settled where it comes in."""
    if report["ref"] in PLAN:
        return PLAN[report["ref"]]
    if report["urgency"] == "emergency" or len(report["division"]) < 12:
        return Play("township", "township", "settled")
    level = "household" if report["grid"] else "group" if report["group"] else "village"
    return Play(level, level, "settled")


def body(report: Json) -> dict[str, Any]:
    """A report of the file as ``POST /v1/cases`` takes it; 0 means that it is not known."""
    division = report["division"]
    if report["group"]:
        division += f"{report['group']:02d}"
        if report["grid"]:
            division += f"{report['grid']:03d}"
    names = ("category", "urgency", "source", "title", "description")
    return {"division": division, **{name: report[name] for name in names}}


@dataclass(frozen=True)
class Seen:
    """Everything that the services say of one case of the demo."""

    play: Play
    register: Json | None
    timeline: Sequence[Json]
    deadlines: Sequence[Json]
    entries: Sequence[tuple[str, Json]]
    """Docket entries as (level of the desk, entry)."""

    @property
    def path(self) -> tuple[str, ...]:
        """The levels that had it, by its timeline."""
        moved = [event for event in self.timeline if event["type"] in _CUSTODY]
        moved.sort(key=lambda event: _token(event)["hop"])
        return tuple(event["data"]["state"]["address"]["level"] for event in moved)


def wrong(seen: Seen) -> list[str]:
    """What is not as planned; empty if all services agree that it is."""
    case, play = seen.register, seen.play
    if case is None:
        return ["missing in the register"]
    found: list[str] = []
    expected = "resolved" if play.outcome else "reported"
    if case["status"] != expected:
        found.append(f"is {case['status']}, not {expected}")
    if case["address"]["level"] != play.ends:
        found.append(f"is at the {case['address']['level']}, not the {play.ends}")
    outcome = (case.get("resolution") or {}).get("outcome")
    if outcome != play.outcome:
        found.append(f"ended as {outcome}, not {play.outcome}")
    if play.supervised and not case.get("supervised"):
        found.append("was not supervised")
    return found + _timeline_wrong(seen) + _dockets_wrong(seen) + _deadlines_wrong(seen)


def _timeline_wrong(seen: Seen) -> list[str]:
    found = []
    ids = [event["id"] for event in seen.timeline]
    if len(ids) != len(set(ids)):
        found.append("an event is in the timeline twice")
    if seen.path != seen.play.path:
        found.append(f"came by {' > '.join(seen.path)}, not {' > '.join(seen.play.path)}")
    resolved = sum(event["type"] == "case.resolved" for event in seen.timeline)
    if resolved != (seen.play.outcome is not None):
        found.append(f"was resolved {resolved} times")
    return found


def _dockets_wrong(seen: Seen) -> list[str]:
    by_level = Counter(level for level, _ in seen.entries)
    found = [
        f"{by_level[level]} entries at the {level} desk, not {expected}"
        for level in LADDER
        if by_level[level] != (expected := int(level in seen.play.path))
    ]
    for level, entry in seen.entries:
        live = seen.play.outcome is None and level == seen.play.ends
        if (entry["status"] == "live") != live:
            found.append(f"the {level} desk has it {entry['status']}")
    return found


def _deadlines_wrong(seen: Seen) -> list[str]:
    climbed = Counter(row["level"] for row in seen.deadlines if _planned(seen.play, row))
    return [
        f"{climbed[level]} deadlines passed at the {level}, not 1"
        for level in seen.play.path[:-1]
        if climbed[level] != 1
    ]


def _planned(play: Play, row: Json) -> bool:
    """Whether the plan has this deadline pass; an urgent one at the township may, no matter."""
    passed = row["status"] == "fired" and row["kind"] in ("acknowledge", "resolve")
    return passed and (row["level"] != play.ends or play.supervised)


def _token(event: Json) -> Json:
    token: Json = event["data"]["state"]["token"]
    return token


def summary(cases: Iterable[tuple[str, Seen]]) -> dict[str, Any]:
    """What became of all: counts that the plan fixes, and how late deadlines fired."""
    listed = list(cases)
    settled: Counter[str] = Counter()
    late: list[float] = []
    problems: dict[str, list[str]] = {}
    for ref, seen in listed:
        if seen.register is not None and seen.register["status"] == "resolved":
            settled[seen.register["address"]["level"]] += 1
        late += [row["lateness_seconds"] for row in seen.deadlines if _planned(seen.play, row)]
        if found := wrong(seen):
            problems[ref] = found
    return {
        "reported": len(listed),
        "missing": sum(seen.register is None for _, seen in listed),
        "settled": {level: settled[level] for level in LADDER},
        "climbs": sum(max(0, len(seen.path) - 1) for _, seen in listed),
        "supervised": sum(
            seen.play.supervised and bool((seen.register or {}).get("supervised"))
            for _, seen in listed
        ),
        "still_open": sum(
            (seen.register or {}).get("status") in ("reported", "acknowledged")
            for _, seen in listed
        ),
        "late_seconds": {
            "deadlines": len(late),
            "median": round(median(late), 3) if late else 0.0,
            "most": round(max(late, default=0.0), 3),
        },
        "wrong": problems,
    }
