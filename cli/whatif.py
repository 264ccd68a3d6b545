"""``huashi profile whatif``: recorded cases under a proposed profile, and how that looks.

The file is read line by line and never held. If any line can't be used, nothing is shown but
what is wrong with each, up to a limit.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO
from zoneinfo import ZoneInfo

from rich.console import Console, Group, RenderableType
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from cli import render
from cli.failures import Exit, Failure
from services.grid.clock import monotonic
from services.grid.problems import Problem
from services.grid.profile import Loaded
from services.grid.recorded import UnreadableCase, read_case
from services.grid.tally import Comparison

Json = Mapping[str, Any]

_MOST_PROBLEMS = 20
_LONGEST_LINE = 1024 * 1024
_TOLD_EVERY = 500
_BOM = b"\xef\xbb\xbf"
_TOP = 10


def compare(
    cases: Path, proposed: Loaded, present: Loaded | None, *, worst_case: bool, quiet: bool
) -> dict[str, Any]:
    """The comparison of a file of recorded cases, with ``cases_per_second``.

    :raises Failure: the file can't be read, has no case, or lines that can't be used.
    """
    comparison = Comparison(proposed, present, worst_case=worst_case)
    problems: list[Problem] = []
    started = monotonic()
    with _opened(cases) as file, _progress(cases, quiet) as told:
        for number, line, ended in _lines(file):
            if number % _TOLD_EVERY == 0:
                told(ended)
            try:
                case = read_case(line)
            except UnreadableCase as error:
                problems += (Problem(str(cases), number, *wrong) for wrong in error.wrong)
                if len(problems) >= _MOST_PROBLEMS:
                    break
                continue
            # After the first mistake only the others are looked for.
            if not problems:
                comparison.add(case)
    seconds = monotonic() - started
    if problems:
        raise _unusable(problems)
    if not comparison.cases:
        said = f"{cases} has no cases: write them with huashi export cases --out FILE"
        raise Failure(Exit.USAGE, said)
    return {**comparison.shown(), "cases_per_second": round(comparison.cases / seconds)}


def _unusable(problems: list[Problem]) -> Failure:
    shown = problems[:_MOST_PROBLEMS]
    said = [str(problem) for problem in shown]
    if len(problems) >= _MOST_PROBLEMS:
        said.append(f"reading stopped in line {shown[-1].line}: mend these first")
    listed = [dataclasses.asdict(problem) for problem in shown]
    document = {"title": "cases", "detail": "\n".join(said), "problems": listed}
    return Failure(Exit.USAGE, "\n".join(said), document)


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    try:
        if str(path) == "-":
            yield sys.stdin.buffer
            return
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise Failure(Exit.USAGE, f"{path} can't be read: {error.strerror}") from error


def _lines(file: BinaryIO) -> Iterator[tuple[int, bytes, int]]:
    """Number, text and end in bytes of each line that is not blank, without its line break."""
    number, ended = 0, 0
    while line := file.readline(_LONGEST_LINE):
        number += 1
        ended += len(line)
        text = line.removeprefix(_BOM) if number == 1 else line
        if text.strip():
            yield number, text.strip(), ended
        # A line that long is no case; what is left of it is not the next one.
        while line and not line.endswith(b"\n"):
            line = file.readline(_LONGEST_LINE)
            ended += len(line)


@contextmanager
def _progress(path: Path, quiet: bool) -> Iterator[Callable[[int], None]]:
    """A bar on standard error, where that is a terminal."""
    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield lambda _ended: None
        return
    total = path.stat().st_size if path.is_file() else None
    columns = (TextColumn("replaying"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=total)
        yield lambda ended: progress.update(task, completed=ended)


def shown(found: Json, zone: ZoneInfo) -> RenderableType:
    """The comparison for people: what happens to all cases, to each level, and why."""
    name = "recorded" if "recorded" in found else "present"
    before, after = found[name], found["replayed"]
    parts: list[RenderableType] = [
        _summary(found, before, after, name),
        Text(),
        _levels(found, before, after, zone),
    ]
    for table in (_categories(before, after), _rules("replayed", after), _rules(name, before)):
        if table.row_count:
            parts += [Text(), table]
    parts += [Text(), *(Text(f"· {line}", "dim") for line in found["assumptions"])]
    return Group(*parts)


def warnings(found: Json) -> list[str]:
    """What whoever reads the numbers has to know besides."""
    listed = []
    if found["not_replayed"]:
        words = ", ".join(
            f"{item['field']} {item['word']} ({item['cases']})"
            for item in found["unknown_words"][:_TOP]
        )
        more = ", ..." if len(found["unknown_words"]) > _TOP else ""
        listed.append(
            f"{found['not_replayed']} cases are counted nowhere, as a profile here does not know "
            f"their words: {words}{more}"
        )
    if found["repeated"]:
        listed.append(
            f"{found['repeated']} lines repeat a case of the file and count again: "
            "keep one line for each round of a case"
        )
    return listed


def _summary(found: Json, before: Json, after: Json, name: str) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    replayed, both = after["cases"], found["resolved_on_both_sides"]
    same = f" (of the {both['cases']} that are resolved on both sides)"
    # Of a case that is not in the record to its end only the beginning is counted.
    least = ", or more" if before["unknown"] or after["unknown"] else ""

    def sure(kind: str) -> str:
        # What is recorded is all told: only a replay can be unsure.
        return str(after[kind]) if name == "recorded" else _change(before[kind], after[kind])

    rows = [
        ("proposed", found["proposed"]),
        ("compared with", "what is recorded" if name == "recorded" else found["before"]),
        ("cases", f"{replayed}"),
        *(
            (kind, _change(before[kind], after[kind]) + least)
            for kind in ("climbed", "supervised", "resolved")
        ),
        ("report to resolved", f"{_times(both['before'], both['after'], 'taken')}{same}"),
        ("climb only now", str(found["climbs_now"])),
        ("no longer climb", str(found["climbs_no_more"])),
        ("told by the record", f"{sure('told')} of {replayed}"),
        ("assumed", f"{sure('assumed')} of {replayed}"),
        ("not in the record", f"{sure('unknown')} of {replayed}{_unknown_at(after)}"),
    ]
    for row in rows:
        table.add_row(*row)
    return table


def _unknown_at(after: Json) -> str:
    places = [
        f"{item['level']} {item['cases']} {item['why']}" for item in after["unknown_at"][:_TOP]
    ]
    return f": {', '.join(places)}" if places else ""


def _levels(found: Json, before: Json, after: Json, zone: ZoneInfo) -> Table:
    table = Table(
        *("level", "came", "not acknowledged", "resolved", "climbed", "supervised"),
        *("open, unknown", "most open at once", "held, median", "held, 90%"),
        box=None,
        header_style="bold",
    )
    for item in found["levels"]:
        old, new = (side["levels"].get(item["level"]) for side in (before, after))
        if old is None and new is None:
            continue
        counts = [
            _change(*(side[name] if side else 0 for side in (old, new)))
            for name in ("came", "late", "resolved", "climbed", "supervised")
        ]
        left = [
            sum(side[name] for name in ("open", "withdrawn", "elsewhere", "unknown")) if side else 0
            for side in (old, new)
        ]
        most = _change(*(side["most_open"] if side else 0 for side in (old, new)))
        when = new and new["most_open_at"]
        title = "" if item["title"] == item["level"] else f" {item['title']}"
        table.add_row(
            f"{item['level']}{title}",
            *counts,
            _change(*left),
            f"{most}, {render.local(when, zone)[:-3]}" if when else most,
            *(_times(old or {}, new or {}, "held", part) for part in ("median", "90")),
        )
    return table


def _categories(before: Json, after: Json) -> Table:
    table = Table("category", "climbed", box=None, header_style="bold")
    both = {**before["categories"], **after["categories"]}
    rows = [
        (name, before["categories"].get(name, 0), after["categories"].get(name, 0)) for name in both
    ]
    for name, old, new in sorted(rows, key=lambda row: (-row[2], -row[1], row[0]))[:_TOP]:
        if old or new:
            table.add_row(name, _change(old, new))
    return table


def _rules(name: str, side: Json) -> Table:
    table = Table(
        *(f"{name}: what let them climb", "level", "deadline", "times", "source"),
        box=None,
        header_style="bold",
    )
    for item in side["rules"][:_TOP]:
        deadline = f"{item['kind']} {item['text']}".strip()
        rule = item["rule"] or "not in the record"
        table.add_row(rule, item["level"], deadline, str(item["times"]), item["source"])
    return table


def _change(before: int, after: int) -> str:
    """``12 → 8 (-4)``; one number where nothing changes."""
    return str(after) if before == after else f"{before} → {after} ({after - before:+})"


def _times(before: Json, after: Json, name: str, *parts: str) -> str:
    """Durations of both sides: of one part, or the median and 90% of them."""
    told = []
    for part in parts or ("median", "90"):
        old, new = (side.get(f"{name}_{part}_seconds") for side in (before, after))
        texts = [render.duration(value) if value is not None else "none" for value in (old, new)]
        word = "" if parts else {"median": "median ", "90": "90% "}[part]
        told.append(word + (texts[0] if old == new else " → ".join(texts)))
    return ", ".join(told)
