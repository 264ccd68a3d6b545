"""``huashi demo``: twenty reports from Qionghai on a stack whose time runs fast.

It reports them over HTTP, plays the officers who answer (and those who do not) and shows
where each case is. Any service may be killed meanwhile: what was not accepted is tried again.
"""

from __future__ import annotations

import json
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from cli import demo_plan, render
from cli.client import Client
from cli.demo_plan import LADDER, Play, Seen
from cli.failures import Exit, Failure
from services.grid import profile as profiles
from services.grid.clock import Instant, monotonic, plus, seconds_between

Json = dict[str, Any]
Value = TypeVar("Value")

_TICK = 0.4
_REPORT_EVERY = 0.25
# An officer takes this long from accepting a case to settling it.
_WORK_SECONDS = 2.5
_LONGEST = 240.0
_SETTLES = 40.0
_SLOWEST = 20.0


@dataclass
class Case:
    """One report of the demo and what is known of it."""

    report: Json
    play: Play
    key: str
    id: str = ""
    tracking: str = ""
    register: Json | None = None
    accepted_at: float | None = None
    shown: tuple[Any, ...] = field(default=())

    @property
    def ref(self) -> str:
        """Its name in the file."""
        return str(self.report["ref"])

    @property
    def supervised(self) -> bool:
        """Whether the register has heard of a supervision."""
        return bool(self.register and self.register.get("supervised"))

    @property
    def played(self) -> bool:
        """Whether it has come, as far as the register says, to where the plan ends."""
        if self.register is None:
            return False
        if self.play.outcome is None:
            return self.supervised
        return bool(self.register["status"] == "resolved")


def play(client: Client, path: Path, console: Console, *, quiet: bool = False) -> Json:
    """Plays the reports of ``path`` and returns the summary; ``wrong`` is empty if all is well.

    :raises Failure: the file can't be read, or the stack's time does not run fast.
    """
    director = _Director(client, _reports(path), console, _titles(path.parent), quiet)
    summary = director.run()
    if not quiet:
        _tell(console, summary, director.titles)
    return summary


def _reports(path: Path) -> list[Json]:
    try:
        return [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise Failure(Exit.USAGE, f"{path} can't be read: {error}") from error


def _titles(folder: Path) -> Mapping[str, str]:
    """What the county calls its levels; their ids where no profile is at hand."""
    try:
        profile = profiles.load(folder)
    except (profiles.ProfileError, OSError):
        return {level: level for level in LADDER}
    return {step.level: step.title for steps in profile.ladders.values() for step in steps}


class _Director:
    """The loop of the demo: report, answer, look, show."""

    def __init__(
        self,
        client: Client,
        reports: list[Json],
        console: Console,
        titles: Mapping[str, str],
        quiet: bool,
    ) -> None:
        if client.stack.clock.scale < _SLOWEST:
            raise Failure(
                Exit.USAGE,
                "the stack's time does not run fast enough to watch: start it with TIME_SCALE=600",
            )
        run = uuid.uuid4().hex[:8]
        self.titles = titles
        self._client = client
        self._console = console
        self._quiet = quiet
        # The longest roads first, so that all come to their end at about the same time.
        reports = sorted(reports, key=lambda report: demo_plan.play_of(report).length, reverse=True)
        self._cases = [
            Case(report, demo_plan.play_of(report), f"demo-{run}-{report['ref']}")
            for report in reports
        ]
        self._began = monotonic()
        # Some room for other clocks; other cases are told apart by their ids.
        self._since = plus(client.stack.clock.now(), -60 * client.stack.clock.scale)
        self._away: set[str] = set()

    def run(self) -> Json:
        """Plays until every case is where the plan ends, then compares all services."""
        plain = self._quiet or not self._console.is_terminal
        with Live(console=self._console, auto_refresh=False, screen=False) as live:
            while not all(case.played for case in self._cases) and self._seconds() < _LONGEST:
                self._tick(plain, live)
            limit = monotonic() + _SETTLES
            summary = self._compare()
            while summary["wrong"] and monotonic() < limit:
                self._tick(plain, live)
                summary = self._compare()
            self._look(plain, live)
        return {**summary, "seconds": round(self._seconds(), 1)}

    def _tick(self, plain: bool, live: Live) -> None:
        until = monotonic() + _TICK
        self._away.clear()
        self._report()
        for level in self._client.stack.desks:
            self._answer(level)
        self._look(plain, live)
        time.sleep(max(0.0, until - monotonic()))

    def _seconds(self) -> float:
        return monotonic() - self._began

    def _tried(self, name: str, ask: Callable[[], Value]) -> Value | None:
        """What ``ask`` answers; None if that service is away: the next round asks again."""
        if name in self._away:
            return None
        try:
            return ask()
        except Failure as failure:
            if failure.code != Exit.UNREACHABLE:
                raise
            self._away.add(name)
            return None

    def _report(self) -> None:
        due = int(self._seconds() / _REPORT_EVERY) + 1
        for case in self._cases[:due]:
            if case.id:
                continue
            body = demo_plan.body(case.report)
            answer = self._tried("intake", partial(self._client.report, body, case.key))
            if answer is not None:
                case.id, case.tracking = answer["id"], answer["tracking"]

    def _answer(self, level: str) -> None:
        """The officers of one desk do what the plan has them do."""
        entries = self._docket(level, status="live")
        ours = {case.id: case for case in self._cases if case.id}
        for entry in entries:
            case = ours.get(entry["id"])
            if case is None:
                continue
            acknowledged = entry["acknowledged"] is not None
            action = case.play.action(level, acknowledged=acknowledged, supervised=case.supervised)
            if action == "acknowledge":
                if self._act(level, case, action, {}):
                    case.accepted_at = monotonic()
            elif action == "resolve" and (
                case.accepted_at is None or monotonic() - case.accepted_at > _WORK_SECONDS
            ):
                for step in (entry["procedure"] or {"steps": []})["steps"]:
                    if step["done"] is None:
                        said = {"note": step["title"], "step": step["id"]}
                        self._act(level, case, "note", said)
                self._act(level, case, action, {"outcome": case.play.outcome})

    def _docket(self, level: str, **filters: str) -> list[Json]:
        return self._tried(level, lambda: list(self._client.docket(level, **filters))) or []

    def _registered(self) -> dict[str, Json] | None:
        """The register's cases since the demo began, by id."""
        cases = partial(self._client.cases, reported_from=self._since)
        return self._tried("intake", lambda: {case["id"]: case for case in cases()})

    def _act(self, level: str, case: Case, action: str, body: Json) -> bool:
        try:
            done = self._tried(level, lambda: self._client.act(level, case.id, action, body))
        except Failure as failure:
            if failure.code not in (Exit.REFUSED, Exit.NOT_FOUND):
                raise
            # The case has moved on, against the plan: the comparison at the end says so.
            return False
        return done is not None

    def _look(self, plain: bool, live: Live) -> None:
        found = self._registered()
        for case in self._cases:
            if found is not None:
                case.register = found.get(case.id, case.register)
        if self._quiet:
            return
        if plain:
            self._lines()
        else:
            live.update(self._table(), refresh=True)

    def _lines(self) -> None:
        """A line for each change: for logs, and terminals that are none."""
        for case in self._cases:
            if case.register is None:
                continue
            level, word = case.register["address"]["level"], self._word(case, case.register)
            if (level, word) == case.shown:
                continue
            case.shown = (level, word)
            title = case.report["title"]
            line = (
                f"{self._seconds():6.1f} s  {case.tracking}  {self._title(level)}  {word}  {title}"
            )
            self._console.print(line, highlight=False, soft_wrap=True)

    def _table(self) -> RenderableType:
        now = self._client.stack.clock.now()
        table = Table(box=None, header_style="bold", padding=(0, 1))
        for heading in ("tracking", "matter", *(self._title(level) for level in LADDER)):
            table.add_column(heading, no_wrap=True)
        table.add_column("status", no_wrap=True)
        table.add_column("left", no_wrap=True, justify="right", min_width=9)
        table.add_column("", width=14)
        for case in sorted(self._cases, key=lambda case: case.ref):
            table.add_row(*self._row(case, now))
        settled = sum(case.played for case in self._cases)
        scale = self._client.stack.clock.scale
        clock = f"{render.local(now, render.COUNTY_ZONE)}, at {scale:g} times speed"
        line = f"{settled} of {len(self._cases)} have come to their end · it is {clock}"
        away = ", ".join(sorted(self._away))
        return Group(table, Text(line, "dim"), *([Text(f"away: {away}", "red")] if away else []))

    def _row(self, case: Case, now: Instant) -> list[RenderableType]:
        row: list[RenderableType] = [Text(case.tracking or "…", "dim"), case.report["title"]]
        if case.register is None:
            return row
        level = case.register["address"]["level"]
        at = LADDER.index(level) if level in LADDER else -1
        entered = LADDER.index(case.play.enters)
        done = case.register["status"] == "resolved"
        mark = Text("●", "green" if done else "red" if case.supervised else "yellow")
        row += [
            mark if index == at else Text("▸" if entered <= index < at else "·", "dim")
            for index in range(len(LADDER))
        ]
        row.append(render.status(self._word(case, case.register)))
        due = None if done else render.next_due(case.register)
        if due is None:
            return row
        started = case.register["clocks"]["level"]["started_at"]
        whole = max(1.0, seconds_between(Instant(started), Instant(due)))
        passed = seconds_between(Instant(started), now)
        style = "red" if passed > whole else "yellow" if passed > whole / 2 else "green"
        done_by_now = min(whole, max(0.0, passed))
        bar = ProgressBar(whole, done_by_now, 14, complete_style=style, finished_style=style)
        return [*row, render.left(due, now), bar]

    def _word(self, case: Case, register: Json) -> str:
        status: str = register["status"]
        return "supervised" if case.supervised and status == "reported" else status

    def _title(self, level: str) -> str:
        return self.titles.get(level, level)

    def _compare(self) -> Json:
        """Asks every service about every case and compares with the plan."""
        register = self._registered()
        entries: dict[str, list[tuple[str, Json]]] = defaultdict(list)
        for level in self._client.stack.desks:
            for entry in self._docket(level):
                entries[entry["id"]].append((level, entry))
        seen = []
        for case in self._cases:
            known = (register or {}).get(case.id)
            seen.append(
                (
                    case.ref,
                    Seen(
                        case.play,
                        known,
                        self._asked("intake", self._client.timeline, case) if known else [],
                        self._asked("escalation", self._client.deadlines, case) if known else [],
                        entries[case.id],
                    ),
                )
            )
        return demo_plan.summary(seen)

    def _asked(self, name: str, ask: Callable[[str], Any], case: Case) -> list[Json]:
        try:
            found = self._tried(name, lambda: ask(case.id))
        except Failure as failure:
            if failure.code != Exit.NOT_FOUND:
                raise
            return []
        rows = found["deadlines"] if isinstance(found, dict) else found
        return list(rows or ())


def _tell(console: Console, summary: Json, titles: Mapping[str, str]) -> None:
    """The summary for people."""
    late = summary["late_seconds"]
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    for level, count in summary["settled"].items():
        table.add_row(f"settled at {titles.get(level, level)}", f"{count}")
    table.add_row("climbed by deadline", f"{summary['climbs']} times")
    table.add_row("supervised (督办)", f"{summary['supervised']}")
    table.add_row("still open, as planned", f"{summary['still_open']}")
    table.add_row("lost", f"{summary['missing']} of {summary['reported']}")
    console.print()
    console.print(table)
    for ref, problems in summary["wrong"].items():
        for problem in problems:
            console.print(Text(f"{ref}: {problem}", "red"))
    if summary["wrong"]:
        console.print(Text(f"{len(summary['wrong'])} cases are not where they belong.", "bold red"))
    else:
        console.print(
            Text(
                f"All {summary['reported']} cases are where they belong, in the register, at every "
                "desk and with the custodian.",
                "bold green",
            )
        )
    console.print(
        Text(
            f"Deadlines fired {late['median']:.2f} s late (median), {late['most']:.2f} s at most. "
            f"It took {summary['seconds']:.0f} s.",
            "dim",
        )
    )
