"""How cases, clocks and times look in a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any
from zoneinfo import ZoneInfo

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from services.grid.clock import Instant, moment, seconds_between
from services.grid.preview import Preview

Json = Mapping[str, Any]

COUNTY_ZONE = ZoneInfo("Asia/Shanghai")
"""Every county of China keeps this time."""

_UNITS = ((86_400, "d"), (3_600, "h"), (60, "m"), (1, "s"))
_STATUS_STYLES = {
    "reported": "yellow",
    "supervised": "red",
    "acknowledged": "cyan",
    "resolved": "green",
    "closed": "green",
    "withdrawn": "dim",
    "live": "yellow",
    "ended": "dim",
    "armed": "yellow",
    "fired": "red",
    "met": "green",
    "void": "dim",
}


def duration(seconds: float) -> str:
    """``1d 4h``, ``12m``, ``3s``: the two largest units."""
    left = round(abs(seconds))
    parts: list[str] = []
    for size, name in _UNITS:
        count, left = divmod(left, size)
        if count or parts:
            parts.append(f"{count}{name}" if count else "")
        if len(parts) == 2:
            break
    return " ".join(filter(None, parts)) or "0s"


def left(due: str, now: Instant) -> Text:
    """How long until ``due``, or how long it has passed."""
    seconds = seconds_between(now, Instant(due))
    if seconds < 0:
        return Text(f"{duration(seconds)} over", "red")
    return Text(f"{duration(seconds)} left", "green" if seconds > 3600 else "yellow")


def local(instant: str, zone: ZoneInfo) -> str:
    """The time of day where the case is: ``11-23 16:30:05``."""
    return moment(Instant(instant)).astimezone(zone).strftime("%m-%d %H:%M:%S")


def status(word: str) -> Text:
    """A status in its colour."""
    return Text(word, _STATUS_STYLES.get(word, ""))


def place(division: Any) -> str:
    """A division as the services show it, by its name where they tell it."""
    if isinstance(division, Mapping):
        return str(division.get("name") or division.get("code"))
    return str(division)


def address(case: Json) -> str:
    """Who holds a case: level, place and unit."""
    found = case["address"]
    name = found.get("name") or place(found["division"])
    return " ".join(filter(None, (found["level"], name, found.get("unit"))))


def holder(found: Json) -> str:
    """Who holds a case, as a token or a problem names it."""
    return " ".join(filter(None, (found["level"], found["division"], found.get("unit"))))


def next_due(case: Json) -> str | None:
    """When the earliest deadline that is not a reminder is due."""
    dues = [item["due"] for item in case.get("deadlines", []) if item["kind"] != "remind"]
    return min(dues, default=None)


def listing(cases: Iterable[Json], now: Instant) -> Table:
    """One line a case."""
    table = Table("tracking", "title", "where", "status", "due", box=None, header_style="bold")
    for case in cases:
        due = next_due(case)
        table.add_row(
            case["tracking"],
            case["title"],
            address(case),
            status(case["status"]),
            left(due, now) if due else "",
        )
    return table


def duplicates(found: Iterable[Json], zone: ZoneInfo) -> Table:
    """One line a case that may be the same, with how much alike it is, and in what."""
    heads = ("alike", "case", "title", "where", "status", "reported", "because")
    table = Table(*heads, box=None, header_style="bold")
    for case in found:
        why = case["why"]
        because = f"words {why['words']:.0%}, place {why['place']}, {why['hours']} h apart"
        because += "" if why["same_category"] else f", {case['category']}"
        table.add_row(
            f"{case['score']:.0%}",
            case["id"],
            case["title"],
            address(case),
            status(case["status"]),
            local(case["reported_at"], zone),
            because,
        )
    return table


def trail(entries: Iterable[Json], zone: ZoneInfo) -> Table:
    """One line an entry of the audit trail."""
    table = Table("time", "who", "from", "did", "case", "", box=None, header_style="bold")
    for entry in entries:
        style = "green" if entry["status"] < 400 else "red"
        table.add_row(
            local(entry["at"], zone),
            Text(f"{entry['who'] or 'unknown'} ({entry['role']})"),
            Text(entry["from"]),
            Text(f"{entry['service']} {entry['action']}"),
            Text(" ".join(entry["cases"])),
            Text(entry["why"] or str(entry["status"]), style),
        )
    return table


def whole(case: Json, now: Instant, zone: ZoneInfo) -> RenderableType:
    """A case with its clocks and its deadlines."""
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim")
    acknowledged, resolution = case.get("acknowledged"), case.get("resolution")
    supervised = case.get("supervised")
    rows: list[tuple[str, RenderableType]] = [
        ("case", case.get("id", "")),
        ("tracking", case["tracking"]),
        ("title", Text(case.get("title", ""), "bold")),
        ("status", status(case["status"])),
        ("category", f"{case.get('category', '')} · {case.get('urgency', '')}"),
        ("place", place(case.get("division", ""))),
        ("held by", address(case)),
        ("reported", local(case["reported_at"], zone)),
    ]
    if case.get("triage"):
        rows.append(("triage", Text("the place is not certain: to be placed (分拨)", "yellow")))
    if acknowledged:
        rows.append(("acknowledged", f"{local(acknowledged['at'], zone)} by {acknowledged['by']}"))
    if resolution:
        said = f"{resolution['outcome']} {local(resolution['at'], zone)} by {resolution['by']}"
        rows.append(("resolved", f"{said} {resolution['note']}".strip()))
    rows.extend(("called", _called(item, zone)) for item in case.get("joined", ()))
    rows.extend(_others(case))
    rows.extend(_ends(case, zone))
    if supervised:
        rows.append(("supervised", Text(f"{supervised['times']} times", "red")))
    if case.get("late_custody"):
        rows.append(("late custody", "resolved by a desk from which it had moved on"))
    for name, value in rows:
        facts.add_row(name, value)
    if not case.get("deadlines"):
        return facts
    return Group(facts, Text(), deadlines(case["deadlines"], now, zone))


def _called(item: Json, zone: ZoneInfo) -> str:
    """A unit that was called (吹哨报到), and how far it is."""
    words = [item["unit"] + (" (lead 牵头)" if item["lead"] else "")]
    for name in ("checked_in", "finished", "released"):
        if item[name]:
            words.append(f"{name.replace('_', ' ')} {local(item[name]['at'], zone)}")
    if not item["checked_in"] and not item["released"]:
        words.append(f"check in by {local(item['check_in']['due'], zone)}")
    if item["missed"]:
        missed = " and ".join(item["missed"]).replace("_", " ")
        words.append(f"missed its time to {missed}")
    if item["released"] and item["released"]["score"]:
        words.append(f"{item['released']['score']} of 5")
    return ", ".join(words)


def _others(case: Json) -> Iterator[tuple[str, RenderableType]]:
    """The cases that it was merged or linked with."""
    followed = (case.get("resolution") or {}).get("followed")
    if case.get("follows"):
        yield "follows", f"{case['follows']}{', which was resolved' if followed else ''}"
    for name, words in (("followers", "followed by"), ("linked", "linked with")):
        if case.get(name):
            yield words, ", ".join(case[name])


def _ends(case: Json, zone: ZoneInfo) -> Iterator[tuple[str, RenderableType]]:
    """What the reporter says of it, and how it ends."""
    said, closing, closed = (case.get(name) for name in ("feedback", "closing", "closed"))
    withdrawal = case.get("withdrawal")
    if said:
        word = Text("satisfied", "green") if said["satisfied"] else Text("not satisfied", "red")
        score = f", {said['score']} of 5" if said["score"] else ""
        told = f"{score}, {local(said['at'], zone)} {said['comment']}".rstrip()
        yield "feedback", word.append(f"{told}, round {said['round']}", "default")
    if closing:
        yield "answer by", f"{local(closing['due'], zone)}, else it is closed"
    if closed:
        yield "closed", f"{local(closed['at'], zone)}, {closed['why']}"
    if withdrawal:
        at = local(withdrawal["at"], zone)
        yield "withdrawn", f"{at} by {withdrawal['by']}: {withdrawal['reason']}"


def deadlines(rows: Iterable[Json], now: Instant, zone: ZoneInfo) -> Table:
    """Deadlines with the rule that set each; with what became of them, if that is told."""
    table = Table("deadline", "due", "", "rule", "source", box=None, header_style="bold")
    for row in rows:
        kind = " ".join(filter(None, (row["kind"], row.get("of"), row.get("at"))))
        if "status" in row and row["status"] != "armed":
            state = status(row["status"])
            if row.get("lateness_seconds") is not None:
                state.append(f" {row['lateness_seconds']:.2f} s late")
        else:
            state = left(row["due"], now)
        level = f"{row['level']} " if "level" in row else ""
        table.add_row(level + kind, local(row["due"], zone), state, row["rule"], row["source"])
    return table


def events(found: Iterable[Json], zone: ZoneInfo) -> Table:
    """The timeline (流转记录) of a case."""
    table = Table("time", "event", "at", "token", "said", box=None, header_style="bold")
    for event in found:
        state = event.get("data", {}).get("state", {})
        token, where = state.get("token"), state.get("address", {})
        table.add_row(
            local(event["time"], zone),
            event["type"],
            where.get("level", ""),
            ".".join(str(token[name]) for name in ("round", "stage", "hop", "seq"))
            if token
            else "",
            _said(event.get("data", {})),
        )
    return table


def _said(data: Json) -> str:
    """What a person wrote with an act, or why they asked for something."""
    note = data.get("note", "")
    told = [note["text"] if isinstance(note, Mapping) else note]
    told += [data[name]["reason"] for name in ("request", "supervisor") if name in data]
    return " ".join(filter(None, told))


def preview(found: Preview, zone: ZoneInfo) -> RenderableType:
    """The ladder of a report that nobody answers: one row a deadline, levels in order."""

    def at(instant: str) -> str:
        return moment(Instant(instant)).astimezone(zone).strftime("%Y-%m-%d %a %H:%M")

    table = Table("level", "who", "arrives", "deadline", "due", "counted", "source")
    for step in found.steps:
        who = ", ".join(step.officers) or Text(step.deputy or "nobody", "yellow")
        table.add_section()
        for index, item in enumerate(step.deadlines):
            first = index == 0
            kind = " ".join(filter(None, (item["kind"], item.get("at"))))
            table.add_row(
                f"{step.address.level} {step.title}\n{step.place}" if first else "",
                who if first else "",
                at(step.arrives) if first else "",
                Text(kind, "red" if item["due"] == step.leaves else ""),
                at(item["due"]),
                "\n".join(item["counted"]),
                item["source"],
            )
    told = f", {', '.join(found.tell)} is told" if found.tell else ""
    times = ", ".join(map(at, found.supervised))
    return Group(
        f"by {found.rule}, ladder {found.ladder}"
        + (", to be placed (分拨)" if found.triage else ""),
        table,
        f"supervised 督办 {times}, ...{told}",
        *_calls(found, at),
    )


def _calls(found: Preview, at: Callable[[str], str]) -> Iterator[RenderableType]:
    """By when a unit must come, if a level calls it (吹哨) as soon as it has the case."""
    called = [step for step in found.steps if step.calls]
    if not called:
        return
    table = Table("a unit called 吹哨 by", "checks in 报到 by", "is done by", "rule", box=None)
    for step in called:
        check_in, finish = step.calls
        table.add_row(step.address.level, at(check_in["due"]), at(finish["due"]), check_in["rule"])
    yield Text()
    yield table
