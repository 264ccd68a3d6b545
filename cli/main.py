"""The ``huashi`` command.

Exit codes: 0 done, 1 refused or a problem, 2 wrong usage, 3 the stack can't be reached,
4 there is no such case. With ``--json`` the answer goes to standard output as JSON and a
problem, as a problem document, to standard error.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC
from itertools import chain
from pathlib import Path
from typing import Annotated, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from cli import bulk, export, render, subscriptions, systems, whatif
from cli import demo as demonstration
from cli import desk as desks
from cli import directory as directories
from cli import emergency as emergencies
from cli.client import Client
from cli.failures import Exit, Failure
from cli.stack import find_stack
from services.grid import deadlines as deadline_rules
from services.grid import json as strict_json
from services.grid import profile as profiles
from services.grid.calendars import local_date
from services.grid.clock import ScaledClock, parse, plus
from services.grid.directory import DivisionError
from services.grid.preview import Preview, preview
from services.grid.problems import not_among
from services.grid.whatif import ASSUMPTIONS

HELP = """Huashi 化事: report cases, see where they are, and work at a desk.

It finds the local stack by .run/stack.json (here, in a folder above, or in RUN_DIR), and
another by HUASHI_INTAKE, HUASHI_DESKS (household=URL,group=URL), HUASHI_ESCALATION,
HUASHI_NOTIFY and HUASHI_TOKEN; for other systems also HUASHI_BROKER and HUASHI_VHOST.
Times are shown in HUASHI_TIMEZONE (Asia/Shanghai).

Exit codes: 0 done, 1 refused or a problem, 2 wrong usage, 3 the stack can't be reached,
4 there is no such case.
"""

app = typer.Typer(help=HELP, no_args_is_help=True, rich_markup_mode=None)
desk_app = typer.Typer(help="A desk (受理台): huashi desk household list", no_args_is_help=True)
profile_app = typer.Typer(help="Profiles (模式).", no_args_is_help=True)
stack_app = typer.Typer(help="The running services.", no_args_is_help=True)
export_app = typer.Typer(help="What a running system knows, as files.", no_args_is_help=True)
directory_app = typer.Typer(help="The directory (区划, 人员, 值班).", no_args_is_help=True)
emergency_app = typer.Typer(help="Emergency mode (战时机制).", no_args_is_help=True)
system_app = typer.Typer(help="Other county systems.", no_args_is_help=True)
subscription_app = typer.Typer(
    help="Events over HTTP, to other county systems.", no_args_is_help=True
)
app.add_typer(desk_app, name="desk")
app.add_typer(directory_app, name="directory")
app.add_typer(system_app, name="system")
app.add_typer(subscription_app, name="subscription")
app.add_typer(emergency_app, name="emergency")
app.add_typer(profile_app, name="profile")
app.add_typer(stack_app, name="stack")
app.add_typer(export_app, name="export")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
CaseArgument = Annotated[str, typer.Argument(help="A case id or a tracking code.")]
CaseId = Annotated[str, typer.Argument(help="The case's id.")]
Note = Annotated[str, typer.Option(help="A note.")]
Reason = Annotated[str, typer.Option(help="Why; it is kept, and everybody sees it.")]
To = Annotated[str, typer.Option("--to", help="The code of a division.")]
ToUnit = Annotated[str, typer.Option("--unit", help="A unit's id, or its name at that place.")]
Attach = Annotated[
    list[str] | None,
    typer.Option(
        metavar="FILE=URL",
        help="What shows it: a file, and where it lies; again for more than one.",
    ),
]

_WIDE = 160
_WATCH_SECONDS = 1.0
_ENDED = ("resolved", "closed", "withdrawn")


def _levels(incomplete: str) -> list[str]:
    """The desks of the stack, for completion."""
    try:
        desks = find_stack(os.environ, Path.cwd()).desks
    except Failure:
        return []
    return [level for level in desks if level.startswith(incomplete)]


@contextmanager
def _failures(as_json: bool) -> Iterator[None]:
    """Turns what goes wrong into words on standard error and an exit code."""
    try:
        yield
    except Failure as failure:
        if as_json:
            typer.echo(json.dumps(failure.document(), ensure_ascii=False), err=True)
        else:
            for line in failure.lines():
                typer.secho(line, fg="red", err=True)
        raise typer.Exit(failure.code) from failure


@contextmanager
def _client(as_json: bool) -> Iterator[Client]:
    with _failures(as_json):
        client = Client(find_stack(os.environ, Path.cwd()))
        try:
            yield client
        finally:
            client.close()


def _console() -> Console:
    """Standard output; wide enough for whole lines where it is no terminal."""
    wide = None if sys.stdout.isatty() or "COLUMNS" in os.environ else _WIDE
    # What people wrote is shown as they wrote it, never read as markup.
    return Console(width=wide, markup=False, emoji=False)


def _print(value: Any) -> None:
    typer.echo(json.dumps(value, ensure_ascii=False, indent=2 if sys.stdout.isatty() else None))


def _listed(
    found: Any, table: Callable[[], RenderableType], nothing: str, *, as_json: bool
) -> None:
    """Shows a list as a table, or says that there is ``nothing``."""
    if as_json:
        _print(found)
    elif found:
        _console().print(table())
    else:
        typer.echo(nothing)


def _made(found: Any, lines: Callable[[Any], Iterable[str]], *, as_json: bool) -> None:
    """Shows what was made, with what is not shown again."""
    if as_json:
        _print(found)
        return
    for line in lines(found):
        typer.echo(line)


def _zone() -> ZoneInfo:
    name = os.environ.get("HUASHI_TIMEZONE", "Asia/Shanghai")
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError) as error:
        said = f"HUASHI_TIMEZONE is {name!r}: write a zone such as Asia/Shanghai"
        raise Failure(Exit.USAGE, said) from error


def _case(client: Client, text: str) -> dict[str, Any]:
    """The case of an id; of a tracking code just what the public may see."""
    for ask in (client.case, client.tracking):
        try:
            return ask(text)
        except Failure as failure:
            if failure.code not in (Exit.NOT_FOUND, Exit.REFUSED):
                raise
    raise Failure(Exit.NOT_FOUND, f"there is no case {text}: write its id or its tracking code")


@app.command()
def report(  # noqa: PLR0917 - typer reads its options from here
    title: Annotated[str, typer.Argument(help="What is the matter, in a few words.")] = "",
    division: Annotated[
        str, typer.Option(help="Division code, as far down as the place is known.")
    ] = "",
    address: Annotated[str, typer.Option(help="Address or place name, if not the code.")] = "",
    category: Annotated[str, typer.Option(help="A category of the profile.")] = "",
    urgency: Annotated[str, typer.Option(help="ordinary, urgent or emergency.")] = "ordinary",
    source: Annotated[str, typer.Option(help="Where it comes from.")] = "app",
    description: Annotated[str, typer.Option(help="What happened.")] = "",
    body: Annotated[
        Path | None,
        typer.Option("--from", help="A JSON file with the whole report; - for standard input."),
    ] = None,
    key: Annotated[
        str, typer.Option(help="Idempotency-Key: the same again reports nothing new.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Report a case. Who reports it (name, phone) goes into --from, never into the shell."""
    with _client(as_json) as client:
        named = {
            "title": title,
            "division": division,
            "address": address,
            "category": category,
            "urgency": urgency,
            "source": source,
            "description": description,
        }
        sent = _read_report(body) if body is not None else {k: v for k, v in named.items() if v}
        answer = client.report(sent, key or str(uuid.uuid4()))
        if as_json:
            _print(answer)
        else:
            triage = ", to be placed (分拨)" if answer.get("triage") else ""
            typer.echo(f"{answer['tracking']}  {answer['id']}{triage}")


def _read_report(path: Path) -> dict[str, Any]:
    try:
        text = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
        found = strict_json.loads(text)
    except (OSError, ValueError) as error:
        raise Failure(Exit.USAGE, f"{path} can't be read: {error}") from error
    if not isinstance(found, dict):
        raise Failure(Exit.USAGE, f"{path} is not a JSON object: write one report, {{...}}")
    return found


@app.command()
def show(
    case: CaseArgument,
    timeline: Annotated[bool, typer.Option("--timeline", help="Also every event.")] = False,
    deadlines: Annotated[
        bool, typer.Option("--deadlines", help="Every deadline it ever had, and why.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show a case: status, who holds it, its clocks and deadlines."""
    with _client(as_json) as client:
        zone, now = _zone(), client.stack.clock.now()
        found = _case(client, case)
        full = "id" in found
        if full and timeline:
            found["timeline"] = client.timeline(found["id"])
        if full and deadlines:
            found["all_deadlines"] = client.deadlines(found["id"])["deadlines"]
        if as_json:
            _print(found)
            return
        console = _console()
        if not full:
            console.print(_public(found))
            return
        console.print(render.whole(found, now, zone))
        for name, draw in (("all_deadlines", render.deadlines), ("timeline", None)):
            if name in found:
                console.print()
                rows = found[name]
                console.print(draw(rows, now, zone) if draw else render.events(rows, zone))


def _public(found: dict[str, Any]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    for name, value in found.items():
        table.add_row(name.replace("_", " "), str(value))
    return table


@app.command()
def watch(
    case: CaseArgument,
    as_json: AsJson = False,
) -> None:
    """Watch a case until it has ended. Without a terminal: a line for each change."""
    with _client(as_json) as client:
        zone, console = _zone(), _console()
        plain = as_json or not console.is_terminal
        shown: tuple[Any, ...] = ()
        with Live(console=console, auto_refresh=False, transient=False) as live:
            while True:
                found = _case(client, case)
                now = client.stack.clock.now()
                state = (found["status"], found.get("address"), found.get("supervised"))
                if plain and state != shown:
                    _print(found) if as_json else typer.echo(_line(found))
                elif not plain:
                    drawn = render.whole(found, now, zone) if "id" in found else _public(found)
                    clock = Text(f"{render.local(now, zone)}  ctrl-C ends", "dim")
                    live.update(Group(drawn, clock), refresh=True)
                shown = state
                if found["status"] in _ENDED:
                    return
                try:
                    time.sleep(_WATCH_SECONDS)
                except KeyboardInterrupt:
                    return


def _line(case: dict[str, Any]) -> str:
    where = render.address(case) if "address" in case else case.get("level_title", "")
    return f"{case['tracking']}  {case['status']}  {where}"


@app.command()
def feedback(
    case: CaseArgument,
    satisfied: Annotated[
        bool, typer.Option("--satisfied/--not-satisfied", help="Whether it helped.")
    ],
    score: Annotated[
        int | None, typer.Option(min=1, max=5, help="1 to 5, 5 being the best.")
    ] = None,
    comment: Annotated[str, typer.Option(help="In the reporter's own words.")] = "",
    as_json: AsJson = False,
) -> None:
    """Say what the reporter thinks of how a case was resolved (回访).

    Satisfied, the case is closed (销号); not satisfied, it is taken up again (重新办理).
    """
    with _client(as_json) as client:
        body = {"satisfied": satisfied, "score": score, "comment": comment}
        found = client.feedback(case, body)
        _print(found) if as_json else typer.echo(_line(found))


@app.command()
def withdraw(
    case: Annotated[str, typer.Argument(help="The case's id.")],
    reason: Annotated[str, typer.Option(help="Why; it is kept, and everybody sees it.")],
    as_json: AsJson = False,
) -> None:
    """Take a report back (撤回), while nobody has resolved it."""
    with _client(as_json) as client:
        found = client.withdraw(case, reason)
        _print(found) if as_json else typer.echo(_line(found))


@app.command()
def reopen(case: CaseId, reason: Reason, attach: Attach = None, as_json: AsJson = False) -> None:
    """Take a resolved or closed case up again (重新办理), in a new round."""
    with _client(as_json) as client:
        found = client.reopen(case, {"reason": reason, **desks.attached(attach)})
        _print(found) if as_json else typer.echo(_line(found))


@desk_app.callback()
def desk(
    context: typer.Context,
    level: Annotated[
        str, typer.Argument(help="household, group, village, ...", autocompletion=_levels)
    ],
) -> None:
    """A desk (受理台): huashi desk household list."""
    context.obj = level


@desk_app.command("list")
def desk_list(
    context: typer.Context,
    division: Annotated[str, typer.Option(help="Only this division and below.")] = "",
    unit: Annotated[str, typer.Option(help="Only this unit: its id, or its name there.")] = "",
    status: Annotated[str, typer.Option(help="live, ended, or all.")] = "live",
    as_json: AsJson = False,
) -> None:
    """The desk's docket (案卷)."""
    with _client(as_json) as client:
        wanted = "" if status == "all" else status
        filters = {"division": division, "unit": unit, "status": wanted}
        kept = {name: value for name, value in filters.items() if value}
        found = list(client.docket(context.obj, **kept))
        _listed(
            found,
            lambda: render.listing(found, client.stack.clock.now()),
            f"the {context.obj} desk has nothing {status}",
            as_json=as_json,
        )


@desk_app.command("duty")
def desk_duty(
    context: typer.Context,
    division: Annotated[str, typer.Option(help="A division: it and all below, or what it is in.")],
    at: Annotated[str, typer.Option(help="Another time than now, RFC 3339.")] = "",
    as_json: AsJson = False,
) -> None:
    """Who is on duty (值班), until when, and who is next."""
    with _client(as_json) as client:
        zone = _zone()
        filters = {"division": division, **({"at": at} if at else {})}
        found = list(client.duty(context.obj, **filters))
        _listed(
            found,
            lambda: desks.on_duty(found, zone),
            f"no place of the {context.obj} desk in {division} has officers",
            as_json=as_json,
        )


@desk_app.command("rates")
def desk_rates(  # noqa: PLR0917 - typer reads its options from here
    context: typer.Context,
    division: Annotated[str, typer.Option(help="Only this division and below.")] = "",
    unit: Annotated[str, typer.Option(help="Only this unit: its id, or its name there.")] = "",
    since: Annotated[str, typer.Option("--from", help="Arrived then or later, RFC 3339.")] = "",
    until: Annotated[str, typer.Option("--to", help="Arrived before then, RFC 3339.")] = "",
    as_json: AsJson = False,
) -> None:
    """What became of what came: 响应率, 办结率, 按期办结率, 超时率; of the last 30 days."""
    with _client(as_json) as client:
        zone = _zone()
        filters = {"division": division, "unit": unit, "from": since, "to": until}
        kept = {name: value for name, value in filters.items() if value}
        found = client.rates(context.obj, **kept)
        if as_json:
            _print(found)
        else:
            _console().print(desks.rates(found, zone))


@desk_app.command()
def acknowledge(
    context: typer.Context,
    case: CaseId,
    note: Note = "",
    attach: Attach = None,
    as_json: AsJson = False,
) -> None:
    """Accept a case (接单)."""
    body = {"note": note} if note else {}
    _act(context.obj, case, "acknowledge", body, attach, as_json=as_json)


@desk_app.command()
def resolve(  # noqa: PLR0917 - typer reads its options from here
    context: typer.Context,
    case: CaseId,
    outcome: Annotated[str, typer.Option(help="An outcome of the profile.")] = "settled",
    note: Annotated[str, typer.Option(help="What was done.")] = "",
    attach: Attach = None,
    as_json: AsJson = False,
) -> None:
    """Settle a case (办结)."""
    body = {"outcome": outcome, **({"note": note} if note else {})}
    _act(context.obj, case, "resolve", body, attach, as_json=as_json)


@desk_app.command()
def suspend(  # noqa: PLR0917 - typer reads its options from here
    context: typer.Context,
    case: CaseId,
    reason: Annotated[str, typer.Option(help="One of the profile's suspensions.")],
    longest: Annotated[str, typer.Option(help="A time such as 2d, if less than it allows.")] = "",
    note: Note = "",
    attach: Attach = None,
    as_json: AsJson = False,
) -> None:
    """Let a case wait (挂起): its deadlines move at once, and after its time it goes on."""
    said = {"reason": reason, "longest": longest, "note": note}
    body = {name: value for name, value in said.items() if value}
    _act(context.obj, case, "suspend", body, attach, as_json=as_json)


@desk_app.command()
def resume(
    context: typer.Context,
    case: CaseId,
    note: Note = "",
    attach: Attach = None,
    as_json: AsJson = False,
) -> None:
    """Let a case wait no longer (恢复): its deadlines come back."""
    _act(context.obj, case, "resume", {"note": note} if note else {}, attach, as_json=as_json)


@desk_app.command()
def extend(  # noqa: PLR0917 - typer reads its options from here
    context: typer.Context,
    case: CaseId,
    by: Annotated[str, typer.Option(help="How much more, such as 2d or 3 working days.")],
    reason: Reason,
    attach: Attach = None,
    as_json: AsJson = False,
) -> None:
    """Ask the step above for more time (延期); the clock runs until it is granted."""
    body = {"by": by, "reason": reason}
    _act(context.obj, case, "extend", body, attach, as_json=as_json, key=str(uuid.uuid4()))


@desk_app.command("extensions")
def desk_extensions(
    context: typer.Context,
    division: Annotated[str, typer.Option(help="Only this division and below.")] = "",
    status: Annotated[str, typer.Option(help="asked, granted, refused, or all.")] = "asked",
    as_json: AsJson = False,
) -> None:
    """What more time the step below asks this desk for (延期)."""
    with _client(as_json) as client:
        filters = {"division": division, "status": "" if status == "all" else status}
        kept = {name: value for name, value in filters.items() if value}
        found = list(client.extensions(context.obj, **kept))
        _listed(
            found,
            lambda: desks.extensions(found, _zone()),
            f"nobody asks the {context.obj} desk for more time",
            as_json=as_json,
        )


ExtensionId = Annotated[
    str, typer.Argument(help="The extension's id, as huashi desk LEVEL extensions shows it.")
]


@desk_app.command()
def grant(
    context: typer.Context,
    extension: ExtensionId,
    note: Note = "",
    attach: Attach = None,
    as_json: AsJson = False,
) -> None:
    """Grant more time (同意延期); who asked has it as soon as their desk has heard."""
    _answer_extension(context.obj, extension, "grant", note, attach, as_json=as_json)


@desk_app.command()
def refuse(
    context: typer.Context,
    extension: ExtensionId,
    note: Note = "",
    attach: Attach = None,
    as_json: AsJson = False,
) -> None:
    """Refuse more time (不同意延期)."""
    _answer_extension(context.obj, extension, "refuse", note, attach, as_json=as_json)


def _answer_extension(
    level: str, extension: str, action: str, note: str, attach: Attach, *, as_json: bool
) -> None:
    with _client(as_json) as client:
        body = {**({"note": note} if note else {}), **desks.attached(attach)}
        found = client.answer_extension(level, extension, action, body)
        if as_json:
            _print(found)
        else:
            typer.echo("  ".join((found["tracking"], found["by"], found["status"])))


@desk_app.command()
def note(  # noqa: PLR0917 - typer reads its options from here
    context: typer.Context,
    case: CaseId,
    text: Annotated[str, typer.Argument(help="How far it is.")],
    step: Annotated[
        str, typer.Option(help="The step of its procedure (四议两公开) that was done with it.")
    ] = "",
    key: Annotated[
        str, typer.Option(help="Idempotency-Key: the same again writes nothing new.")
    ] = "",
    attach: Attach = None,
    as_json: AsJson = False,
) -> None:
    """Say how far a case is (进展)."""
    body = {"note": text, **({"step": step} if step else {})}
    _act(context.obj, case, "note", body, attach, as_json=as_json, key=key or str(uuid.uuid4()))


@desk_app.command()
def escalate(
    context: typer.Context,
    case: CaseId,
    reason: Reason,
    attach: Attach = None,
    as_json: AsJson = False,
) -> None:
    """Ask for a case to go one level up (提级): why this level can't settle it."""
    _act(context.obj, case, "escalate", {"reason": reason}, attach, as_json=as_json)


@desk_app.command()
def delegate(  # noqa: PLR0917 - typer reads its options from here
    context: typer.Context,
    case: CaseId,
    reason: Reason,
    to: To = "",
    unit: ToUnit = "",
    authorise: Annotated[
        bool, typer.Option("--authorise", help="With this level's authority to settle it (授权).")
    ] = False,
    attach: Attach = None,
    as_json: AsJson = False,
) -> None:
    """Ask for a case to go down (下派), to a division below or a unit."""
    body = {"reason": reason, "to": _to(to, unit), **({"authorise": True} if authorise else {})}
    _act(context.obj, case, "delegate", body, attach, as_json=as_json)


@desk_app.command()
def transfer(  # noqa: PLR0917 - typer reads its options from here
    context: typer.Context,
    case: CaseId,
    reason: Reason,
    to: To = "",
    unit: ToUnit = "",
    attach: Attach = None,
    as_json: AsJson = False,
) -> None:
    """Ask for a case to go sideways (转办), to another division or unit of this level."""
    body = {"reason": reason, "to": _to(to, unit)}
    _act(context.obj, case, "transfer", body, attach, as_json=as_json)


@desk_app.command("return")
def send_back(
    context: typer.Context,
    case: CaseId,
    reason: Reason,
    attach: Attach = None,
    as_json: AsJson = False,
) -> None:
    """Ask for a case to go back to who sent it (退回)."""
    _act(context.obj, case, "return", {"reason": reason}, attach, as_json=as_json)


@desk_app.command()
def whistle(  # noqa: PLR0917 - typer reads its options from here
    context: typer.Context,
    case: CaseId,
    unit: Annotated[
        list[str],
        typer.Option(help="A unit, by its id or its name there; again for more than one."),
    ],
    reason: Reason,
    lead: Annotated[str, typer.Option(help="Which of them leads; by default the first.")] = "",
    check_in: Annotated[str, typer.Option(help="A time such as 30m, if sooner.")] = "",
    finish: Annotated[str, typer.Option(help="A time such as 1d, if sooner.")] = "",
    attach: Attach = None,
    as_json: AsJson = False,
) -> None:
    """Call units to join a case (吹哨); none leaves before it is released."""
    said = {"lead": lead, "check_in": check_in, "finish": finish}
    body = {
        "units": [{"unit": item} for item in unit],
        "reason": reason,
        **{name: value for name, value in said.items() if value},
    }
    _act(context.obj, case, "whistle", body, attach, as_json=as_json)


@desk_app.command()
def release(  # noqa: PLR0917 - typer reads its options from here
    context: typer.Context,
    case: CaseId,
    unit: ToUnit,
    score: Annotated[
        int | None, typer.Option(min=1, max=5, help="How it did, 5 is the best.")
    ] = None,
    note: Annotated[str, typer.Option(help="A word about it.")] = "",
    attach: Attach = None,
    as_json: AsJson = False,
) -> None:
    """Let a unit leave that was called, and score it (评价)."""
    body = {"unit": unit, "score": score, "note": note}
    _act(context.obj, case, "release", body, attach, as_json=as_json)


@desk_app.command("calls")
def desk_calls(
    context: typer.Context,
    division: Annotated[str, typer.Option(help="Only this division and below.")] = "",
    unit: Annotated[str, typer.Option(help="Only this unit: its id, or its name there.")] = "",
    status: Annotated[
        str, typer.Option(help="called, checked_in, finished or ended; all if not given.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """What the units of this level are called to (吹哨报到)."""
    with _client(as_json) as client:
        filters = {"division": division, "unit": unit, "status": status}
        kept = {name: value for name, value in filters.items() if value}
        found = list(client.calls(context.obj, **kept))
        _listed(
            found,
            lambda: desks.calls(found, client.stack.clock.now()),
            f"no unit of the {context.obj} desk is called to anything",
            as_json=as_json,
        )


CallId = Annotated[str, typer.Argument(help="The call's id, as huashi desk LEVEL calls shows it.")]


@desk_app.command("check-in")
def desk_check_in(
    context: typer.Context,
    call: CallId,
    note: Note = "",
    attach: Attach = None,
    as_json: AsJson = False,
) -> None:
    """Say that a unit that was called has come (报到)."""
    _answer_call(context.obj, call, "check-in", note, attach, as_json=as_json)


@desk_app.command("finish")
def desk_finish(
    context: typer.Context,
    call: CallId,
    note: Note = "",
    attach: Attach = None,
    as_json: AsJson = False,
) -> None:
    """Say that a unit that was called is done; it stays until it is released."""
    _answer_call(context.obj, call, "finish", note, attach, as_json=as_json)


def _answer_call(
    level: str, call: str, action: str, note: str, attach: Attach, *, as_json: bool
) -> None:
    with _client(as_json) as client:
        body = {**({"note": note} if note else {}), **desks.attached(attach)}
        found = client.answer_call(level, call, action, body)
        if as_json:
            _print(found)
        else:
            typer.echo("  ".join((found["tracking"], found["address"]["unit"], found["status"])))


def _to(division: str, unit: str) -> dict[str, str]:
    return {name: said for name, said in (("division", division), ("unit", unit)) if said}


def _act(
    level: str,
    case: str,
    action: str,
    body: dict[str, Any],
    attach: Attach,
    *,
    as_json: bool,
    say: Callable[[str, dict[str, Any]], str] | None = None,
    key: str | None = None,
) -> None:
    """Acts on a case; ``say`` makes a line of the action and its answer, else its entry."""
    with _client(as_json) as client:
        found = client.act(level, case, action, {**body, **desks.attached(attach)}, key)
        if as_json:
            _print(found)
        else:
            typer.echo((say or _entry)(action, found))


def _entry(action: str, entry: dict[str, Any]) -> str:
    words = [entry["tracking"], entry["status"]]
    asked = entry.get("request")
    if asked is not None and asked["action"] == action:
        # What is refused is a failure; what is not answered yet, one may look at.
        held_by = entry["held_by"] or entry["address"]
        words += [asked["answer"] or "asked", f"held by {render.holder(held_by)}"]
    if action == "extend":
        # What the step above needs to answer it.
        words.append(f"asked for {entry['extension']['by']}: {entry['extension']['id']}")
    return "  ".join(words)


@desk_app.command()
def supervise(
    context: typer.Context,
    case: CaseId,
    reason: Reason,
    attach: Attach = None,
    as_json: AsJson = False,
) -> None:
    """Have a case supervised (督办): it is told upwards now, and repeated until it has ended."""

    def say(_action: str, found: dict[str, Any]) -> str:
        holder = render.holder(found["custody"]["address"])
        return f"supervised {found['supervised']['times']} times, held by {holder}"

    body = {"reason": reason}
    _act(context.obj, case, "supervise", body, attach, as_json=as_json, say=say)


@desk_app.command()
def watchers(  # noqa: PLR0917 - typer reads its options from here
    context: typer.Context,
    case: CaseId,
    officer: Annotated[str, typer.Option(help="An officer's id.")] = "",
    level: Annotated[str, typer.Option(help="A desk: its level, ...")] = "",
    division: Annotated[str, typer.Option(help="... and its division.")] = "",
    remove: Annotated[bool, typer.Option("--remove", help="Tell them no longer.")] = False,
    note: Note = "",
    attach: Attach = None,
    as_json: AsJson = False,
) -> None:
    """Have somebody told of what happens to a case (关注), or no longer; says who all is."""
    said = {"officer": officer, "level": level, "division": division, "note": note}
    _act(
        context.obj,
        case,
        "unwatch" if remove else "watch",
        {name: value for name, value in said.items() if value},
        attach,
        as_json=as_json,
        say=lambda _action, found: "\n".join(found["watchers"]) or "nobody watches this case",
    )


With = Annotated[str, typer.Option("--with", help="The other case's id.")]


@desk_app.command()
def merge(  # noqa: PLR0917 - typer reads its options from here
    context: typer.Context,
    case: CaseId,
    other: With,
    reason: Reason,
    attach: Attach = None,
    as_json: AsJson = False,
) -> None:
    """Merge two cases that are one matter (并案): the older is kept, the other one follows it."""

    def say(_action: str, found: dict[str, Any]) -> str:
        kept, follower = found["kept"], found["follower"]["case"]
        late = "" if found["heard"] else "; the follower's desk has not heard of it yet"
        return f"{follower} follows {kept['case']}, held by {render.holder(kept['address'])}{late}"

    body = {"with": other, "reason": reason}
    _act(context.obj, case, "merge", body, attach, as_json=as_json, say=say)


@desk_app.command()
def link(  # noqa: PLR0917 - typer reads its options from here
    context: typer.Context,
    case: CaseId,
    other: With,
    remove: Annotated[bool, typer.Option("--remove", help="Link them no longer.")] = False,
    note: Note = "",
    attach: Attach = None,
    as_json: AsJson = False,
) -> None:
    """Link two cases that have to do with each other (关联); says what a case is linked with."""
    _act(
        context.obj,
        case,
        "unlink" if remove else "link",
        {"case": other, **({"note": note} if note else {})},
        attach,
        as_json=as_json,
        say=lambda _action, found: "\n".join(found["linked"]) or "no case is linked with this one",
    )


@app.command()
def duplicates(case: CaseId, as_json: AsJson = False) -> None:
    """What may be the same matter (疑似重复): reported near it, at about the same time."""
    with _client(as_json) as client:
        found = client.duplicates(case)
        if as_json:
            _print(found)
        elif found["duplicates"]:
            _console().print(render.duplicates(found["duplicates"], _zone()))
        else:
            apart = render.duration(found["within_seconds"])
            typer.echo(f"nothing alike was reported near it within {apart}")


DivisionArgument = Annotated[str, typer.Argument(help="A division code: it and all below it.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do it; without, only what would change.")]


@emergency_app.command("list")
def emergency_list(as_json: AsJson = False) -> None:
    """Which divisions are in emergency mode, and which were."""
    with _client(as_json) as client:
        zone, found = _zone(), client.emergencies()
        _listed(
            found,
            lambda: emergencies.listed(found, zone),
            "no division was ever in emergency mode",
            as_json=as_json,
        )


@emergency_app.command("begin")
def emergency_begin(
    division: DivisionArgument, reason: Reason, yes: Yes = False, as_json: AsJson = False
) -> None:
    """Switch a division to emergency mode; without --yes show what would change."""
    _switch(division, reason, on=True, yes=yes, as_json=as_json)


@emergency_app.command("end")
def emergency_end(
    division: DivisionArgument, reason: Reason, yes: Yes = False, as_json: AsJson = False
) -> None:
    """Switch a division back; without --yes show what would change."""
    _switch(division, reason, on=False, yes=yes, as_json=as_json)


def _switch(division: str, reason: str, *, on: bool, yes: bool, as_json: bool) -> None:
    with _client(as_json) as client:
        zone = _zone()
        if yes:
            found = client.switch_emergency(division, reason, on=on)
            said = f"{found['name']} is {'in' if found['on'] else 'not in'} emergency mode"
            _print(found) if as_json else typer.echo(said)
            return
        changes = emergencies.changes(client, division, on=on)
        if as_json:
            _print(changes)
            return
        _console().print(emergencies.shown(changes, zone))
        typer.secho("nothing is done: add --yes to switch", dim=True, err=True)


@directory_app.command("list")
def directory_list(
    kind: Annotated[str, typer.Argument(help="division, unit, officer or duty.")],
    division: Annotated[str, typer.Option(help="Only this division and below.")] = "",
    as_json: AsJson = False,
) -> None:
    """What the directory has now, and who said it: a profile's folder, or an operator."""
    with _client(as_json) as client:
        zone, only = _zone(), {"division": division} if division else {}
        found = list(client.directory(kind, **only))
        if as_json:
            _print(found)
        else:
            _console().print(directories.listed(found, zone))


@directory_app.command("apply")
def directory_apply(
    path: Annotated[
        Path,
        typer.Argument(help="A folder, its units.csv, officers.csv or duty.csv, or a YAML file."),
    ],
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Make people, units and duty what files say, while services run; what they leave out stays.

    Without --yes it shows what would change.
    """
    with _client(as_json) as client:
        _change(client, directories.different(client, directories.read(path)), yes, as_json)


@directory_app.command("retire")
def directory_retire(
    entries: Annotated[list[str], typer.Argument(help="officer:ID, duty:ID or unit:ID.")],
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Take entries out of the directory; without --yes it shows what would change."""
    with _client(as_json) as client:
        _change(client, {"retire": entries}, yes, as_json)


def _change(client: Client, body: dict[str, Any], yes: bool, as_json: bool) -> None:
    found = client.change_directory(body, dry_run=not yes) if body else []
    if as_json:
        _print(found)
    elif not found:
        typer.echo("the directory says all of it already")
    else:
        _console().print(directories.changes(found))
        if not yes:
            typer.secho("nothing is done: add --yes to change it", dim=True, err=True)


SystemName = Annotated[str, typer.Argument(help="Its name: a lower-case word.")]


@app.command("import")
def bulk_import(
    file: Annotated[Path, typer.Argument(help="Reports, one JSON object a line; - is stdin.")],
    system: Annotated[str, typer.Option(help="The system whose key is in HUASHI_API_KEY.")],
    results: Annotated[
        Path | None, typer.Option(help="A file that gets a line for each line: the case, or why.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Import reports of another system in bulk, each as a case.report event's data.

    The same file again opens nothing new. Exit code 1 if any line was refused.
    """
    with _client(as_json) as client:
        found = bulk.run(client, file, system, results, quiet=as_json)
        if as_json:
            _print(found)
        else:
            typer.echo("  ".join(f"{name} {count}" for name, count in found.items()))
            if found["rejected"] and results is None:
                typer.echo("add --results FILE to see why", err=True)
        if found["rejected"]:
            raise typer.Exit(Exit.REFUSED)


@system_app.command("add")
def system_add(  # noqa: PLR0917 - typer reads its options from here
    name: SystemName,
    may: Annotated[str, typer.Option(help="What it may send: case.report,case.withdraw")] = "",
    reads: Annotated[
        str, typer.Option(help="What it may subscribe to: case.escalated,case.closed; or case.*")
    ] = "",
    division: Annotated[
        list[str], typer.Option(help="It reports and reads below this; may be given again.")
    ] = [],  # noqa: B006 - typer copies it
    unit: Annotated[
        str | None, typer.Option(help="It acts for this unit: its id, or a name of one's only.")
    ] = None,
    rate: Annotated[int, typer.Option(min=1, help="Events a second.")] = 100,
    open_cases: Annotated[int, typer.Option(min=1, help="Its cases that may be open.")] = 10_000,
    as_json: AsJson = False,
) -> None:
    """Add another county system, or say anew what it may. Its key and password are shown once."""
    with _client(as_json) as client:
        body = {
            "may": _words(may),
            "reads": _words(reads),
            "divisions": division,
            "unit": unit,
            "rate": rate,
            "open_cases": open_cases,
        }
        _made(systems.add(client, name, body), systems.made, as_json=as_json)


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


@system_app.command("rotate")
def system_rotate(
    name: SystemName,
    sole: Annotated[
        bool, typer.Option("--sole", help="The keys before it end at once: one was seen.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """A new key and password. The key before stays valid until the next; the password ends."""
    with _client(as_json) as client:
        _made(systems.rotate(client, name, sole=sole), systems.made, as_json=as_json)


@system_app.command("list")
def system_list(as_json: AsJson = False) -> None:
    """The other systems that may come in."""
    with _client(as_json) as client:
        found = client.systems()
        _listed(
            found,
            lambda: systems.listed(found, _zone()),
            "no other system may come in: huashi system add",
            as_json=as_json,
        )


@system_app.command("show")
def system_show(name: SystemName, as_json: AsJson = False) -> None:
    """All that is known of a system: what it may, what it is sent, what it has lost."""
    with _client(as_json) as client:
        found = next((each for each in client.systems() if each["name"] == name), None)
        if found is None:
            raise Failure(Exit.NOT_FOUND, f"there is no system {name}: huashi system list")
        if as_json:
            _print(found)
        else:
            for line in systems.one(found, _zone()):
                typer.echo(line)


@system_app.command("subscribe")
def system_subscribe(
    name: SystemName,
    kind: Annotated[
        list[str], typer.Option("--type", help="An event: case.escalated; may be given again.")
    ] = [],  # noqa: B006 - typer copies it
    level: Annotated[
        list[str], typer.Option(help="Addressed to this level; may be given again.")
    ] = [],  # noqa: B006
    division: Annotated[
        list[str], typer.Option(help="Addressed to this or below; may be given again.")
    ] = [],  # noqa: B006
    as_json: AsJson = False,
) -> None:
    """Say anew which events a system is sent; what is left out is all that it may read."""
    with _client(as_json) as client:
        body = {"types": kind, "levels": level, "divisions": division}
        found = systems.subscribe(client, name, body)
        if as_json:
            _print(found)
            return
        typer.echo(f"events of these keys wait in {found['amqp']['events']}:")
        for key in found["bindings"]:
            typer.echo(f"  {key}")


@system_app.command("unsubscribe")
def system_unsubscribe(name: SystemName, as_json: AsJson = False) -> None:
    """Send a system no more events. What waits for it is gone."""
    with _client(as_json) as client:
        found = systems.unsubscribe(client, name)
        _print(found) if as_json else typer.echo(f"{name} is sent no events any more")


@system_app.command("replay")
def system_replay(
    name: SystemName,
    since: Annotated[str, typer.Option("--from", help="Received then or later, RFC 3339.")],
    to: Annotated[str, typer.Option(help="Received before then, RFC 3339; now.")] = "",
    as_json: AsJson = False,
) -> None:
    """Put events that a system has lost into its queue again; waits while that is too full."""
    with _client(as_json) as client:
        found = systems.replay(
            client, name, since, to or None, lambda why: typer.echo(why, err=True)
        )
        if as_json:
            _print(found)
        else:
            typer.echo(f"{found['published']} of {found['looked']} events are in its queue again")


@system_app.command("repair")
def system_repair(
    names: Annotated[list[str] | None, typer.Argument(help="Only these; all without.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make at the broker what belongs to the systems, as after it was set up anew.

    A user that is not there gets a new password, which is shown once.
    """
    with _client(as_json) as client:
        found = systems.repair(client, names or [])
        _made(found, lambda each: chain.from_iterable(map(systems.made, each)), as_json=as_json)


@system_app.command("remove")
def system_remove(name: SystemName, as_json: AsJson = False) -> None:
    """Take a system away: its keys, its broker user and its queues end, its cases stay."""
    with _client(as_json) as client:
        found = systems.remove(client, name)
        _print(found) if as_json else typer.echo(f"{name} is removed")
        if found["amqp"] is None:
            said = "its broker user, if it has one, stays: set HUASHI_BROKER and remove it again"
            typer.echo(said, err=True)


@system_app.command("rejected")
def system_rejected(
    name: Annotated[str, typer.Option("--system", help="Only of this system.")] = "",
    limit: Annotated[int, typer.Option(help="At most so many, the latest.", min=1)] = 50,
    as_json: AsJson = False,
) -> None:
    """What other systems sent in vain, and why; not what was in it."""
    with _client(as_json) as client:
        found = client.rejected(limit, **({"system": name} if name else {}))
        _listed(
            found, lambda: systems.refused(found, _zone()), "nothing was refused", as_json=as_json
        )


SubscriptionId = Annotated[str, typer.Argument(help="The subscription's id.")]


@subscription_app.command("add")
def subscription_add(  # noqa: PLR0917 - typer reads its options from here
    sink: Annotated[str, typer.Argument(help="The https URL that events are sent to.")],
    types: Annotated[
        list[str], typer.Option("--type", help="case.escalated; may be given again. None is all.")
    ] = [],  # noqa: B006 - typer copies it
    level: Annotated[str, typer.Option(help="Only while this level holds the case.")] = "",
    division: Annotated[str, typer.Option(help="Only cases of this division and below.")] = "",
    rate: Annotated[int | None, typer.Option(min=1, help="Requests a minute, at most.")] = None,
    as_json: AsJson = False,
) -> None:
    """Have events sent to another system, if its sink agrees. The secret is shown once."""
    with _client(as_json) as client:
        body = {
            "sink": sink,
            "types": types,
            "level": level or None,
            "division": division or None,
            "rate": rate,
        }
        _made(client.add_subscription(body), subscriptions.made, as_json=as_json)


@subscription_app.command("list")
def subscription_list(as_json: AsJson = False) -> None:
    """What is sent where, and how that goes."""
    with _client(as_json) as client:
        found = client.subscriptions()
        _listed(
            found,
            lambda: subscriptions.listed(found, _zone()),
            "there are no subscriptions: huashi subscription add",
            as_json=as_json,
        )


@subscription_app.command("remove")
def subscription_remove(identity: SubscriptionId, as_json: AsJson = False) -> None:
    """Send nothing there any more."""
    _subscription(identity, "remove", as_json=as_json)


@subscription_app.command("resume")
def subscription_resume(identity: SubscriptionId, as_json: AsJson = False) -> None:
    """Go on with one that is paused; what it missed comes first."""
    _subscription(identity, "resume", as_json=as_json)


@subscription_app.command("replay")
def subscription_replay(
    identity: SubscriptionId,
    since: Annotated[str, typer.Option("--from", help="What is known since then, RFC 3339.")],
    as_json: AsJson = False,
) -> None:
    """Send once more what happened from a time on."""
    _subscription(identity, "replay", {"from": since}, as_json=as_json)


def _subscription(
    identity: str, action: str, body: dict[str, Any] | None = None, *, as_json: bool
) -> None:
    with _client(as_json) as client:
        found = client.subscription(identity, action, body or {})
        _print(found) if as_json else typer.echo(f"{identity} is {found['status']}")


@profile_app.command()
def check(
    folder: Annotated[Path, typer.Argument(help="A folder with profile.yaml and its CSV files.")],
    as_json: AsJson = False,
) -> None:
    """Check a profile: every problem with its file and line. Needs no running stack."""
    with _failures(as_json):
        loaded = _load(folder)
        now = ScaledClock().now()
        ahead = [local_date(at, UTC) for at in (now, plus(now, 60 * 86400))]
        warnings = [
            f"the holidays {name} of {year} are not known: its plain weeks count; "
            "add holidays.csv when they are published"
            for name, year in loaded.profile.years_unknown(loaded.holidays, ahead)
        ]
        warnings += deadline_rules.told_once(loaded.profile)
        found = {
            "profile": loaded.profile.name,
            "version": loaded.profile.id,
            "levels": list(loaded.profile.levels),
            "divisions": len(loaded.divisions),
            "units": len(loaded.units),
            "officers": len(loaded.officers),
            "duties": len(loaded.duties),
        }
        if as_json:
            _print({**found, "warnings": warnings})
        else:
            typer.echo("  ".join(f"{name} {value}" for name, value in found.items()))
            for warning in warnings:
                typer.secho(warning, fg="yellow", err=True)


@profile_app.command("preview")
def profile_preview(
    folder: Annotated[Path, typer.Argument(help="A folder with profile.yaml and its CSV files.")],
    report_file: Annotated[
        Path,
        typer.Option("--report", help="A report as for huashi report --from; - is standard input."),
    ],
    at: Annotated[str, typer.Option(help="When it is reported, RFC 3339; now if not given.")] = "",
    in_emergency: Annotated[
        bool, typer.Option("--emergency", help="While the place is in emergency mode.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """The whole ladder that a report would climb if nobody answered, with dates."""
    with _failures(as_json):
        loaded = _load(folder)
        if in_emergency:
            different = loaded.profile.in_emergency
            if different is None:
                raise Failure(Exit.REFUSED, "the profile has no part emergency: add it")
            loaded = dataclasses.replace(loaded, profile=different)
        found = _previewed(loaded, _read_report(report_file), at)
        if as_json:
            _print(dataclasses.asdict(found))
            return
        _console().print(render.preview(found, ZoneInfo(loaded.profile.timezone)))
        for warning in found.warnings:
            typer.secho(warning, fg="yellow", err=True)


_WHATIF_HELP = """Recorded cases under a proposed profile: how many would have climbed, and where.

Each number stands beside what is recorded, or with --against beside what the present profile
would have done with the same cases. Needs no running stack; huashi export cases writes the file.

What the numbers rest on:

""" + "\n\n".join(f"- {line}." for line in ASSUMPTIONS)


@profile_app.command("whatif", help=_WHATIF_HELP)
def profile_whatif(
    folder: Annotated[Path, typer.Argument(help="The proposed profile's folder.")],
    cases: Annotated[Path, typer.Option(help="Recorded cases, one a line; - is standard input.")],
    against: Annotated[
        Path | None, typer.Option(help="The present profile's folder, replayed as well.")
    ] = None,
    worst_case: Annotated[
        bool,
        typer.Option(
            "--worst-case",
            help="Levels that the record tells nothing of let their time pass.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Recorded cases under a proposed profile; its help is _WHATIF_HELP."""
    with _failures(as_json):
        loaded = _load(folder)
        present = _load(against) if against is not None else None
        found = whatif.compare(cases, loaded, present, worst_case=worst_case, quiet=as_json)
        if as_json:
            _print(found)
        else:
            _console().print(whatif.shown(found, ZoneInfo(loaded.profile.timezone)))
            rate = f"{found['cases']} cases, {found['cases_per_second']} a second"
            typer.secho(rate, dim=True, err=True)
        for warning in whatif.warnings(found):
            typer.secho(warning, fg="yellow", err=True)


@export_app.command("cases")
def export_cases(  # noqa: PLR0917 - typer reads its options from here
    out: Annotated[Path, typer.Option(help="The file to write; - is standard output.")],
    reported_from: Annotated[str, typer.Option(help="Reported then or later, RFC 3339.")] = "",
    reported_to: Annotated[str, typer.Option(help="Reported before then, RFC 3339.")] = "",
    division: Annotated[str, typer.Option(help="Only this division and below.")] = "",
    category: Annotated[str, typer.Option(help="Only this category.")] = "",
    as_json: AsJson = False,
) -> None:
    """Write recorded cases, one a line, for huashi profile whatif.

    A line has who held the case from when on and what they did when: no title, no text, nothing
    of who reported it.
    """
    with _client(as_json) as client:
        filters = {
            "reported_from": reported_from,
            "reported_to": reported_to,
            "division": division,
            "category": category,
        }
        kept = {name: value for name, value in filters.items() if value}
        told = export.cases(client, out, kept, quiet=as_json)
        if as_json:
            typer.echo(json.dumps(told), err=str(out) == "-")
        else:
            typer.echo(f"{told['cases']} cases in {told['lines']} lines", err=True)


def _load(folder: Path) -> profiles.Loaded:
    try:
        return profiles.load_folder(folder)
    except (profiles.ProfileError, DivisionError, OSError) as error:
        listed = error.problems if isinstance(error, profiles.ProfileError) else ()
        document = {
            "title": "profile",
            "detail": str(error),
            "problems": [dataclasses.asdict(problem) for problem in listed],
        }
        raise Failure(Exit.REFUSED, str(error), document) from error


def _previewed(loaded: profiles.Loaded, reported: dict[str, Any], at: str) -> Preview:
    profile = loaded.profile
    for name, known in (
        ("category", profile.categories),
        ("urgency", profile.urgencies),
        ("source", profile.sources),
    ):
        if reported.get(name) not in tuple(known):
            said = not_among(reported.get(name), tuple(known))
            raise Failure(Exit.REFUSED, f"{name}: {said}")
    try:
        when = parse(at) if at else ScaledClock().now()
    except ValueError as error:
        raise Failure(Exit.USAGE, f"--at: {error}") from error
    facts = {**reported, "reported_at": when}
    try:
        if reported.get("respond_by") is not None:
            # What another system promises with its report.
            facts["respond_by"] = parse(str(reported["respond_by"]))
    except ValueError as error:
        raise Failure(Exit.REFUSED, f"respond_by: {error}") from error
    try:
        place = (
            reported.get("division")
            or loaded.directory.locate(
                str(reported.get("address") or ""), profile.region
            ).division.code
        )
        return preview(loaded, facts, str(place), when)
    except DivisionError as error:
        raise Failure(Exit.REFUSED, f"division: {error}") from error
    except OverflowError as error:
        raise Failure(Exit.USAGE, f"--at: {at} lies too far ahead") from error


@app.command()
def audit(  # noqa: PLR0917 - typer reads its options from here
    who: Annotated[str, typer.Option(help="Only of this subject (sub of a token).")] = "",
    case: Annotated[str, typer.Option(help="Only about this case.")] = "",
    since: Annotated[str, typer.Option("--from", help="Then or later, RFC 3339.")] = "",
    to: Annotated[str, typer.Option(help="Before then, RFC 3339.")] = "",
    limit: Annotated[int, typer.Option(help="At most so many, the latest.", min=1)] = 100,
    as_json: AsJson = False,
) -> None:
    """Who did what, when and from where, and what was refused: of all services."""
    with _client(as_json) as client:
        filters = {"who": who, "case": case, "from": since, "to": to}
        kept = {name: value for name, value in filters.items() if value}
        found = client.audit(limit, **kept)
        _listed(
            found,
            lambda: render.trail(found, _zone()),
            "nothing of this is in the audit trails",
            as_json=as_json,
        )


@stack_app.command("status")
def stack_status(as_json: AsJson = False) -> None:
    """Which services are ready, and what the others wait for."""
    with _client(as_json) as client:
        found = {name: client.ready(url) for name, url in client.stack.services().items()}
        if as_json:
            _print(found)
        else:
            table = Table("service", "", "waits for", box=None, header_style="bold")
            for name, state in found.items():
                word = Text("ready", "green") if state["ready"] else Text("not ready", "red")
                away = [check for check, fine in state["checks"].items() if not fine]
                table.add_row(name, word, state.get("error") or ", ".join(away))
            _console().print(table)
        if not all(state["ready"] for state in found.values()):
            raise typer.Exit(Exit.UNREACHABLE)


@app.command()
def demo(
    reports: Annotated[Path, typer.Option(help="The reports to play, JSON lines.")] = Path(
        "profiles/qionghai/cases.jsonl"
    ),
    as_json: AsJson = False,
) -> None:
    """Play twenty reports from Qionghai: some are settled, some climb to the township.

    Needs a stack whose time runs fast (TIME_SCALE=600); `make demo` starts one.
    """
    with _failures(as_json):
        client = Client(find_stack(os.environ, Path.cwd()), patience=0.0, seconds=5.0)
        try:
            summary = demonstration.play(
                client, reports, Console(stderr=as_json, markup=False), quiet=as_json
            )
        finally:
            client.close()
        if as_json:
            _print(summary)
        if summary["wrong"]:
            raise typer.Exit(Exit.REFUSED)


if __name__ == "__main__":
    app()
