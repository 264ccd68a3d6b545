"""The command line: how it finds the services, what it says when something is wrong."""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from cli import demo_plan, render
from cli.client import Client
from cli.demo_plan import LADDER, PLAN, Play, Seen, play_of
from cli.failures import Exit, Failure
from cli.main import app
from cli.stack import find_stack
from services.grid.clock import Instant

QIONGHAI = Path(__file__).parents[2] / "profiles" / "qionghai"

REPORTS = Path(__file__).parents[2] / "profiles" / "qionghai" / "cases.jsonl"
AT = "2026-01-05T00:00:00.000Z"


# -- a stand-in for the services: what they answer is said by each test --------------------


@dataclass
class Services:
    """Answers of the services, by ``METHOD /path``; each is (status, body)."""

    url: str = ""
    answers: dict[str, list[tuple[int, Any]]] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, str], Any]] = field(default_factory=list)

    def say(self, line: str, *answers: tuple[int, Any]) -> None:
        """What ``line`` is answered, one after the other; the last one stays."""
        self.answers[line] = list(answers)


@pytest.fixture(autouse=True)
def _no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever starts the tests may say how wide theirs is."""
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.fixture
def services(monkeypatch: pytest.MonkeyPatch) -> Iterator[Services]:
    """Services on a free port, named by the environment."""
    said = Services()

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            body = json.loads(self.rfile.read(length) or b"null")
            line = f"{self.command} {self.path}"
            said.asked.append((line, dict(self.headers), body))
            listed = said.answers.get(line) or said.answers.get(line.partition("?")[0])
            missing = (404, {"status": 404, "title": "Not Found", "detail": "nothing here"})
            status, answer = (
                (listed.pop(0) if len(listed) > 1 else listed[0]) if listed else missing
            )
            raw = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        do_GET = do_POST = _answer

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    said.url = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.delenv("RUN_DIR", raising=False)
    monkeypatch.setenv("HUASHI_INTAKE", said.url)
    monkeypatch.setenv("HUASHI_DESKS", f"household={said.url},group={said.url}")
    monkeypatch.setenv("HUASHI_ESCALATION", said.url)
    monkeypatch.setenv("HUASHI_TOKEN", "the-token")
    yield said
    server.shutdown()
    server.server_close()
    thread.join()


def run(*arguments: str, text: str | None = None) -> Result:
    """``huashi`` with these arguments."""
    return CliRunner().invoke(app, list(arguments), input=text)


def problem(status: int, detail: str, **facts: Any) -> tuple[int, dict[str, Any]]:
    """A problem document, as a service sends it."""
    return status, {"type": "about:blank", "status": status, "detail": detail, **facts}


CASE = {
    "id": "c-1",
    "tracking": "K7QX2M9A4T",
    "status": "reported",
    "title": "路灯不亮",
    "category": "facility",
    "urgency": "ordinary",
    "division": {"code": "46900210421403007", "name": "沙美村3组7户"},
    "triage": False,
    "address": {
        "level": "household",
        "division": "46900210421403007",
        "unit": None,
        "name": "沙美村3组7户",
    },
    "token": {"round": 1, "stage": "held", "hop": 0, "seq": 0},
    "acknowledged": None,
    "clocks": {"level": {"started_at": AT}, "case": {"started_at": AT}},
    "deadlines": [
        {
            "kind": "acknowledge",
            "due": "2026-01-05T02:00:00.000Z",
            "rule": "profile.yaml deadlines[1]",
            "source": "assumption",
        }
    ],
    "resolution": None,
    "supervised": None,
    "late_custody": False,
    "reported_at": AT,
}


# -- commands ------------------------------------------------------------------------------


def test_a_report_is_sent_with_its_key_and_token(services: Services) -> None:
    services.say("POST /v1/cases", (201, {"id": "c-1", "tracking": "K7QX2M9A4T", "triage": True}))
    result = run("report", "路灯不亮", "--division", "469002104214", "--category", "facility")
    assert result.exit_code == 0
    assert result.stdout == "K7QX2M9A4T  c-1, to be placed (分拨)\n"
    ((_, headers, body),) = services.asked
    assert headers["Authorization"] == "Bearer the-token"
    assert len(headers["Idempotency-Key"]) == 36
    assert body == {
        "title": "路灯不亮",
        "division": "469002104214",
        "category": "facility",
        "urgency": "ordinary",
        "source": "app",
    }


def test_a_whole_report_comes_from_standard_input(services: Services) -> None:
    services.say("POST /v1/cases", (201, {"id": "c-1", "tracking": "K7QX2M9A4T"}))
    sent = {"title": "x", "reporter": {"name": "王"}}
    result = run("report", "--from", "-", "--key", "k-1", "--json", text=json.dumps(sent))
    assert json.loads(result.stdout)["id"] == "c-1"
    assert services.asked[0][2] == sent
    assert services.asked[0][1]["Idempotency-Key"] == "k-1"


def test_a_refused_report_names_each_field(services: Services) -> None:
    errors = [{"field": "category", "detail": "'x' is not known: write facility, other"}]
    services.say("POST /v1/cases", problem(422, "…", errors=errors))
    result = run("report", "x", "--category", "x")
    assert result.exit_code == Exit.REFUSED
    assert result.stderr == "category: 'x' is not known: write facility, other\n"
    result = run("report", "x", "--category", "x", "--json")
    assert json.loads(result.stderr)["errors"] == errors
    assert result.stdout == ""


def test_what_is_away_for_a_moment_is_tried_again(services: Services) -> None:
    services.say("GET /v1/cases/c-1", problem(503, "away"), (200, CASE))
    assert run("show", "c-1").exit_code == 0
    assert len(services.asked) == 2


def test_a_case_is_shown_with_its_clock(services: Services) -> None:
    services.say("GET /v1/cases/c-1", (200, CASE))
    result = run("show", "c-1")
    for word in (
        "路灯不亮",
        "K7QX2M9A4T",
        "household 沙美村3组7户",
        "01-05 08:00:00",
        "assumption",
    ):
        assert word in result.stdout, result.stdout
    assert json.loads(run("show", "c-1", "--json").stdout) == CASE


def test_a_case_is_shown_with_its_deadlines_and_timeline(services: Services) -> None:
    row = CASE["deadlines"][0] | {  # type: ignore[index]
        "level": "household",
        "status": "fired",
        "fired_at": "2026-01-05T02:00:30.000Z",
        "lateness_seconds": 0.05,
    }
    state = {"token": CASE["token"], "address": CASE["address"]}
    event = {"id": "e", "type": "case.reported", "time": AT, "data": {"state": state}}
    told = {"id": "n", "type": "notification.delivered", "time": AT, "data": {}}
    services.say("GET /v1/cases/c-1", (200, CASE))
    services.say("GET /v1/cases/c-1/deadlines", (200, {"deadlines": [row]}))
    services.say("GET /v1/cases/c-1/timeline", (200, {"events": [event, told], "next": None}))
    result = run("show", "c-1", "--deadlines", "--timeline")
    assert "fired 0.05 s late" in result.stdout
    assert "1.held.0.0" in result.stdout
    assert "notification.delivered" in result.stdout


def test_a_tracking_code_shows_what_is_public(services: Services) -> None:
    public = {"tracking": "K7QX2M9A4T", "status": "reported", "level_title": "户联系"}
    services.say("GET /v1/tracking/K7QX2M9A4T", (200, public))
    result = run("show", "K7QX2M9A4T")
    assert result.exit_code == 0
    assert "户联系" in result.stdout
    assert "Authorization" not in services.asked[-1][1]


def test_a_case_that_is_not_there(services: Services) -> None:
    services.say("GET /v1/tracking/nonsense", problem(422, "no such code"))
    result = run("show", "nonsense")
    assert result.exit_code == Exit.NOT_FOUND
    assert result.stderr == "there is no case nonsense: write its id or its tracking code\n"


def test_watching_ends_with_the_case(services: Services) -> None:
    resolution = {"outcome": "settled", "note": "", "by": "officer:1", "at": AT}
    ended = {**CASE, "status": "resolved", "resolution": resolution, "deadlines": []}
    services.say("GET /v1/cases/c-1", (200, CASE), (200, CASE), (200, ended))
    result = run("watch", "c-1")
    assert result.exit_code == 0
    assert [line.split(maxsplit=2)[1] for line in result.stdout.splitlines()] == [
        "reported",
        "resolved",
    ]


def test_a_desk_lists_accepts_and_settles(services: Services) -> None:
    entry = {**CASE, "status": "live"}
    pages = [(200, {"cases": [entry], "next": "more"}), (200, {"cases": [entry], "next": None})]
    services.say("GET /v1/desks/household/cases", *pages)
    result = run("desk", "household", "list", "--json")
    assert json.loads(result.stdout) == [entry, entry]
    assert "status=live" in services.asked[0][0]
    assert "cursor=more" in services.asked[1][0]
    assert "路灯不亮" in run("desk", "household", "list", "--status", "all").stdout
    services.say("POST /v1/desks/household/cases/c-1/acknowledge", (200, entry))
    assert run("desk", "household", "acknowledge", "c-1").stdout == "K7QX2M9A4T  live\n"
    services.say("POST /v1/desks/household/cases/c-1/resolve", (200, {**entry, "status": "ended"}))
    result = run("desk", "household", "resolve", "c-1", "--outcome", "explained", "--note", "n")
    assert result.stdout == "K7QX2M9A4T  ended\n"
    assert services.asked[-1][2] == {"outcome": "explained", "note": "n"}


def test_a_desk_notes_and_asks_for_changes(services: Services) -> None:
    held = {"level": "group", "division": "46900210421403", "unit": None}
    noted = {**CASE, "status": "live"}
    services.say("POST /v1/desks/household/cases/c-1/note", (200, noted))
    assert run("desk", "household", "note", "c-1", "已到现场").stdout == "K7QX2M9A4T  live\n"
    _line, headers, body = services.asked[-1]
    assert body == {"note": "已到现场"}
    assert headers["Idempotency-Key"]
    granted = {
        **CASE,
        "status": "ended",
        "held_by": held,
        "request": {"action": "escalate", "answer": "granted"},
    }
    services.say("POST /v1/desks/household/cases/c-1/escalate", (200, granted))
    result = run("desk", "household", "escalate", "c-1", "--reason", "需要电工")
    assert result.stdout == "K7QX2M9A4T  ended  granted  held by group 46900210421403\n"
    waits = {
        **CASE,
        "status": "live",
        "held_by": None,
        "request": {"action": "transfer", "answer": None},
    }
    services.say("POST /v1/desks/household/cases/c-1/transfer", (202, waits))
    result = run(
        *("desk", "household", "transfer", "c-1", "--reason", "不属本户"),
        *("--to", "46900210421403008"),
    )
    assert result.stdout == "K7QX2M9A4T  live  asked  held by household 46900210421403007\n"
    assert services.asked[-1][2] == {"reason": "不属本户", "to": {"division": "46900210421403008"}}
    services.say("POST /v1/desks/household/cases/c-1/delegate", (200, granted))
    run("desk", "household", "delegate", "c-1", "--reason", "r", "--unit", "centre")
    assert services.asked[-1][2] == {"reason": "r", "to": {"unit": "centre"}}
    refusal = problem(409, "the custodian refused it: nobody sent it here", held_by=held)
    services.say("POST /v1/desks/household/cases/c-1/return", refusal)
    result = run("desk", "household", "return", "c-1", "--reason", "办不了")
    assert result.exit_code == Exit.REFUSED
    assert "nobody sent it here" in result.stderr


CALL = {
    "id": "b-1",
    "tracking": CASE["tracking"],
    "title": CASE["title"],
    "address": {"level": "group", "division": "46900210421403", "unit": "team"},
    "lead": True,
    "status": "called",
    "check_in": {"due": AT},
    "finish": {"due": AT},
}


def test_units_are_called_and_released(services: Services) -> None:
    services.say("POST /v1/desks/household/cases/c-1/whistle", (200, {**CASE, "status": "live"}))
    result = run(
        *("desk", "household", "whistle", "c-1", "--unit", "team", "--unit", "centre"),
        *("--reason", "联合处置", "--lead", "centre", "--check-in", "30m"),
    )
    assert result.stdout == "K7QX2M9A4T  live\n", result.output
    assert services.asked[-1][2] == {
        "units": [{"unit": "team"}, {"unit": "centre"}],
        "reason": "联合处置",
        "lead": "centre",
        "check_in": "30m",
    }
    services.say("POST /v1/desks/household/cases/c-1/release", (200, {**CASE, "status": "live"}))
    run("desk", "household", "release", "c-1", "--unit", "team", "--score", "4", "--note", "快")
    assert services.asked[-1][2] == {"unit": "team", "score": 4, "note": "快"}
    assert run("desk", "household", "release", "c-1", "--unit", "team", "--score", "6").exit_code


def test_a_unit_sees_its_calls_and_answers(services: Services) -> None:
    line = "GET /v1/desks/group/calls"
    services.say(line, (200, {"calls": [CALL], "next": None}), (200, {"calls": [], "next": None}))
    result = run("desk", "group", "calls", "--unit", "team", "--status", "called")
    assert result.exit_code == 0, result.output
    row = result.stdout.splitlines()[1].split()
    assert row[:4] == ["b-1", "team", "(lead", "牵头)"]
    assert services.asked[-1][0].endswith("?unit=team&status=called&limit=200")
    nothing = run("desk", "group", "calls")
    assert nothing.stdout == "no unit of the group desk is called to anything\n"
    for command, status in (("check-in", "checked_in"), ("finish", "finished")):
        answer = (200, {**CALL, "status": status})
        services.say(f"POST /v1/desks/group/calls/b-1/{command}", answer)
        result = run("desk", "group", command, "b-1", "--note", "到了")
        assert result.stdout == f"K7QX2M9A4T  team  {status}\n"
        assert services.asked[-1][2] == {"note": "到了"}


def test_a_case_is_supervised_and_watched(services: Services) -> None:
    custody = {"address": CASE["address"], "token": CASE["token"]}
    told = {"case": "c-1", "custody": custody, "supervised": {"times": 2}}
    services.say("POST /v1/desks/group/cases/c-1/supervise", (200, told))
    result = run("desk", "group", "supervise", "c-1", "--reason", "久拖不决")
    assert result.stdout == "supervised 2 times, held by household 46900210421403007\n"
    assert services.asked[-1][2] == {"reason": "久拖不决"}
    services.say(
        "POST /v1/desks/group/cases/c-1/watch", (200, {"id": "c-1", "watchers": ["officer:v-1"]})
    )
    assert run("desk", "group", "watchers", "c-1", "--officer", "v-1").stdout == "officer:v-1\n"
    assert services.asked[-1][2] == {"officer": "v-1"}
    services.say("POST /v1/desks/group/cases/c-1/unwatch", (200, {"id": "c-1", "watchers": []}))
    result = run(
        "desk",
        "group",
        "watchers",
        "c-1",
        "--level",
        "village",
        "--division",
        "469002104214",
        "--remove",
    )
    assert result.stdout == "nobody watches this case\n"
    assert services.asked[-1][2] == {"level": "village", "division": "469002104214"}


def test_a_desk_that_no_longer_has_the_case_says_who_has(services: Services) -> None:
    held = {"level": "group", "division": "46900210421403", "unit": None}
    refusal = problem(409, "the case has moved on", held_by=held)
    services.say("POST /v1/desks/household/cases/c-1/acknowledge", refusal)
    result = run("desk", "household", "acknowledge", "c-1")
    assert result.exit_code == Exit.REFUSED
    assert result.stderr == "the case has moved on\nheld by group 46900210421403\n"


@pytest.mark.usefixtures("services")
def test_a_desk_that_does_not_exist() -> None:
    result = run("desk", "county", "list")
    assert result.exit_code == Exit.USAGE
    assert result.stderr == "there is no desk 'county': the desks are household, group\n"


def test_the_state_of_the_stack(services: Services) -> None:
    services.say("GET /readyz", (200, {"checks": {"broker": True}}))
    result = run("stack", "status")
    assert result.exit_code == 0
    assert "dispatch-household" in result.stdout
    services.say("GET /readyz", problem(503, "not ready", checks={"broker": False}))
    result = run("stack", "status")
    assert result.exit_code == Exit.UNREACHABLE
    assert "broker" in result.stdout


def test_an_answer_that_is_not_ours(services: Services) -> None:
    services.say("GET /v1/cases/c-1", (200, b"<html>"))
    result = run("show", "c-1")
    assert result.exit_code == Exit.UNREACHABLE
    assert "does not answer as Huashi does" in result.stderr


def test_an_end_of_a_ladder_that_is_told_only_once_is_warned_of(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(QIONGHAI, tmp_path / "county"))
    rules = folder / "profile.yaml"
    text = rules.read_text(encoding="utf-8")
    found = json.loads(run("profile", "check", str(folder), "--json").stdout)
    assert not [item for item in found["warnings"] if "told once" in item]
    rules.write_text(
        text.replace(', then: {supervise: 2h, tell: ["469002"]}', ""), encoding="utf-8"
    )
    found = json.loads(run("profile", "check", str(folder), "--json").stdout)
    (warning,) = [item for item in found["warnings"] if "told once" in item]
    assert warning.startswith("profile.yaml deadlines[8]: what township, the end of a ladder, lets")
    # Where a unit has a step before the desk, its line needs none.
    other = json.loads(
        run("profile", "check", str(QIONGHAI.parent / "dachengqiao"), "--json").stdout
    )
    assert not [item for item in other["warnings"] if "told once" in item]


def test_a_profile_is_checked_without_a_stack(tmp_path: Path) -> None:
    result = run("profile", "check", str(REPORTS.parent), "--json")
    assert json.loads(result.stdout)["levels"] == list(LADDER)
    (tmp_path / "profile.yaml").write_text("profile: x\nladder: {}\n")
    result = run("profile", "check", str(tmp_path))
    assert result.exit_code == Exit.REFUSED
    assert "profile.yaml:2: ladder" in result.stderr
    result = run("profile", "check", str(tmp_path), "--json")
    assert {"file", "line", "field", "text"} == json.loads(result.stderr)["problems"][0].keys()


# -- the audit trail -----------------------------------------------------------------------


def audited(name: str, second: int, **more: Any) -> dict[str, Any]:
    at = f"2026-01-05T00:00:{second:02d}.000Z"
    return {
        "id": f"{name}-{second}",
        "at": at,
        "real_at": at,
        "who": "h-007",
        "role": "officer",
        "from": "192.0.2.1",
        "action": f"POST /v1/{name}",
        "cases": ["c-1"],
        "status": 200,
        "why": None,
        **more,
    }


def test_the_trails_of_all_services_are_one_the_latest_first(services: Services) -> None:
    refused = {"who": None, "role": "anonymous", "status": 401, "why": "send a token"}
    services.say(
        "GET /v1/audit",
        (200, {"entries": [audited("intake", 9)], "next": "more"}),
        (200, {"entries": [audited("intake", 2)], "next": None}),
        (200, {"entries": [audited("household", 5, **refused)], "next": None}),
        (200, {"entries": [], "next": None}),
    )
    result = run("audit", "--who", "h-007", "--from", "2026-01-05T00:00:00Z")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()[1:]
    assert [line.split("POST ")[1].split()[0] for line in lines] == [
        "/v1/intake",
        "/v1/household",
        "/v1/intake",
    ]
    assert "unknown (anonymous)" in lines[1]
    assert "send a token" in lines[1]
    asked = services.asked[0][0]
    assert "who=h-007&from=2026-01-05T00%3A00%3A00Z" in asked
    assert "cursor=more" in services.asked[1][0]


def test_the_trails_are_cut_to_the_latest(services: Services) -> None:
    entries = [audited("intake", second) for second in (9, 8, 7)]
    services.say("GET /v1/audit", (200, {"entries": entries, "next": None}))
    found = json.loads(run("audit", "--limit", "2", "--json").stdout)
    assert [entry["id"] for entry in found] == ["intake-9", "intake-9"]
    assert {entry["service"] for entry in found} <= {"intake", "dispatch-household", "escalation"}
    services.say("GET /v1/audit", (200, {"entries": [], "next": None}))
    assert "nothing of this" in run("audit").stdout
    services.say("GET /v1/audit", problem(403, "this is for the role operator or auditor"))
    assert run("audit").exit_code == Exit.REFUSED


# -- finding the stack ---------------------------------------------------------------------

STACK = {
    "profiles": ["qionghai"],
    "intake": "http://127.0.0.1:1",
    "desks": {"household": "http://127.0.0.1:2"},
    "escalation": "http://127.0.0.1:3",
    "notify": "http://127.0.0.1:4",
    "tokens": {"operator": "o", "reporter": "r", "officer": "f"},
    "clock": {"real": "2026-01-05T00:00:00Z", "virtual": "2026-01-06T00:00:00Z", "scale": 600},
}


def test_the_local_stack_is_found_from_below(tmp_path: Path) -> None:
    (tmp_path / ".run").mkdir()
    (tmp_path / ".run" / "stack.json").write_text(json.dumps(STACK))
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    stack = find_stack({}, below)
    assert stack.token("officer", "operator") == "f"
    assert (stack.clock.scale, stack.clock.anchor_virtual - stack.clock.anchor_real) == (600, 86400)
    assert list(stack.services()) == ["intake", "dispatch-household", "escalation", "notify"]
    assert "'o'" not in repr(stack)


def test_another_folder_can_be_named(tmp_path: Path) -> None:
    (tmp_path / "stack.json").write_text(json.dumps(STACK))
    assert find_stack({"RUN_DIR": str(tmp_path)}, Path("/")).intake == "http://127.0.0.1:1"


def test_no_stack_and_a_broken_one(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="no stack is running here: start one with `make up`"):
        find_stack({"RUN_DIR": str(tmp_path)}, tmp_path)
    (tmp_path / "stack.json").write_text("{")
    with pytest.raises(Failure, match=r"stack\.json can't be read") as raised:
        find_stack({"RUN_DIR": str(tmp_path)}, tmp_path)
    assert raised.value.code == Exit.UNREACHABLE


def test_desks_in_the_environment_must_be_pairs() -> None:
    environment = {"HUASHI_INTAKE": "http://x", "HUASHI_DESKS": "household"}
    with pytest.raises(Failure, match="HUASHI_DESKS has 'household'"):
        find_stack(environment, Path("/"))


def test_a_stack_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUASHI_INTAKE", "http://127.0.0.1:1")
    client = Client(find_stack({"HUASHI_INTAKE": "http://127.0.0.1:1"}, Path("/")), patience=0)
    with pytest.raises(Failure, match=r"127\.0\.0\.1:1 does not answer") as raised:
        client.case("c-1")
    assert raised.value.code == Exit.UNREACHABLE


# -- how times look ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (59.6, "1m"), (90, "1m 30s"), (7200, "2h"), (93_600, "1d 2h"), (86_401, "1d")],
)
def test_durations_have_two_units(seconds: float, text: str) -> None:
    assert render.duration(seconds) == text


def test_time_left_and_time_over() -> None:
    now = Instant(AT)
    assert render.left("2026-01-05T02:00:00.000Z", now).plain == "2h left"
    assert render.left("2026-01-04T23:59:00.000Z", now).plain == "1m over"


# -- the demo's plan -----------------------------------------------------------------------


def _reports() -> list[dict[str, Any]]:
    return [json.loads(line) for line in REPORTS.read_text().splitlines()]


def test_the_plan_covers_every_report_and_every_level() -> None:
    assert {report["ref"] for report in _reports()} == PLAN.keys()
    settled = [play.ends for play in PLAN.values() if play.outcome]
    assert set(settled) == set(LADDER)
    assert any(play.outcome is None for play in PLAN.values())


def test_reports_enter_where_the_plan_has_them() -> None:
    for report in _reports():
        unplanned = play_of({**report, "ref": "another"})
        assert unplanned.enters == PLAN[report["ref"]].enters, report["ref"]


def test_only_ordinary_cases_are_answered_below_the_township() -> None:
    for report in _reports():
        if report["urgency"] != "ordinary":
            assert PLAN[report["ref"]].ends == "township", report["ref"]


def test_a_place_continues_as_far_as_it_is_known() -> None:
    report = _reports()[0]
    assert demo_plan.body(report)["division"] == "46900210421403007"
    assert demo_plan.body({**report, "grid": 0})["division"] == "46900210421403"
    assert demo_plan.body({**report, "group": 0, "grid": 0})["division"] == "469002104214"


def test_what_officers_do() -> None:
    play = Play("household", "village", "settled", kept_by="group")
    assert play.action("household", acknowledged=False, supervised=False) is None
    assert play.action("group", acknowledged=False, supervised=False) == "acknowledge"
    assert play.action("group", acknowledged=True, supervised=False) is None
    assert play.action("village", acknowledged=False, supervised=False) == "acknowledge"
    assert play.action("village", acknowledged=True, supervised=False) == "resolve"
    late = Play("township", "township", "settled", after_supervision=True)
    assert late.action("township", acknowledged=False, supervised=False) is None
    assert late.action("township", acknowledged=False, supervised=True) == "acknowledge"
    nobody = Play("township", "township", None)
    assert nobody.action("township", acknowledged=False, supervised=True) is None


def _event(kind: str, level: str, hop: int) -> dict[str, Any]:
    token = {"round": 1, "stage": "held", "hop": hop, "seq": 0}
    state = {"token": token, "address": {"level": level}}
    return {"id": f"{kind}{hop}", "type": kind, "data": {"state": state}}


def _climbed() -> Seen:
    """A case that went from household to group and was settled there, as planned."""
    return Seen(
        Play("household", "group", "settled"),
        {
            "status": "resolved",
            "address": {"level": "group"},
            "resolution": {"outcome": "settled"},
            "supervised": None,
        },
        [
            # A timeline is in the order of time; the path is told by the hops.
            _event("case.escalated", "group", 1),
            _event("case.reported", "household", 0),
            _event("case.resolved", "group", 1),
        ],
        [
            {
                "kind": "acknowledge",
                "level": "household",
                "status": "fired",
                "lateness_seconds": 0.25,
            },
            {"kind": "acknowledge", "level": "group", "status": "met"},
        ],
        [("household", {"status": "ended"}), ("group", {"status": "ended"})],
    )


def test_a_case_that_went_as_planned_is_not_wrong() -> None:
    seen = _climbed()
    assert demo_plan.wrong(seen) == []
    told = demo_plan.summary([("qh-1", seen)])
    assert told["wrong"] == {}
    assert told["settled"] == {"household": 0, "group": 1, "village": 0, "township": 0}
    assert (told["climbs"], told["missing"], told["still_open"]) == (1, 0, 0)
    assert told["late_seconds"] == {"deadlines": 1, "median": 0.25, "most": 0.25}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"register": None}, "missing in the register"),
        ({"play": Play("household", "village", "settled")}, "is at the group, not the village"),
        ({"play": Play("household", "group", "explained")}, "ended as settled, not explained"),
        ({"play": Play("household", "group", None)}, "is resolved, not reported"),
        ({"timeline": []}, "came by , not household > group"),
        ({"timeline": _climbed().timeline[:2]}, "was resolved 0 times"),
        ({"timeline": [*_climbed().timeline, *_climbed().timeline[:1]]}, "in the timeline twice"),
        ({"entries": _climbed().entries[:1]}, "0 entries at the group desk, not 1"),
        ({"entries": [*_climbed().entries] * 2}, "2 entries at the group desk, not 1"),
        (
            {"entries": [("household", {"status": "live"}), ("group", {"status": "ended"})]},
            "the household desk has it live",
        ),
        ({"deadlines": []}, "0 deadlines passed at the household, not 1"),
    ],
)
def test_what_did_not_go_as_planned_is_said(changes: dict[str, Any], said: str) -> None:
    assert any(said in problem for problem in demo_plan.wrong(replace(_climbed(), **changes)))


def test_preview_shows_the_whole_ladder_and_warns(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    report.write_text(
        '{"division": "46900210420307009", "category": "facility", '
        '"urgency": "ordinary", "source": "app"}',
        encoding="utf-8",
    )
    arguments = ["profile", "preview", str(QIONGHAI), "--report", str(report)]
    shown = run(*arguments, "--at", "2026-11-26T09:00:00+08:00")
    assert shown.exit_code == 0
    for text in ("户联系", "组协调", "村处理", "云化解", "to the end of 2026-11-26", "督办"):
        assert text in shown.stdout
    assert "2026-11-27 Fri 09:30  2026-12-01 Tue 17:30  profile.yaml whistle[3]" in shown.stdout
    assert "nobody is on duty at household" in shown.stderr
    found = json.loads(run(*arguments, "--at", "2026-11-26T09:00:00+08:00", "--json").stdout)
    assert [step["leaves"] for step in found["steps"]][:1] == ["2026-11-26T03:00:00.000Z"]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"category": "加急"}, "category: '加急' is not known: write one of facility,"),
        ({"urgency": None}, "urgency: None is not known"),
        ({"category": {"a": 1}}, "category: {'a': 1} is not known"),
        ({"respond_by": "soon"}, "respond_by: not a time"),
        ({"division": "46900210421400"}, "division: 46900210421400 is not in the directory"),
    ],
)
def test_preview_names_what_is_wrong(tmp_path: Path, changed: dict[str, Any], said: str) -> None:
    report = tmp_path / "report.json"
    whole = {"division": "469002104", "category": "other", "urgency": "urgent", "source": "app"}
    report.write_text(json.dumps({**whole, **changed}), encoding="utf-8")
    found = run("profile", "preview", str(QIONGHAI), "--report", str(report))
    assert found.exit_code == 1
    assert said in found.stderr
    wrong = run("profile", "preview", str(QIONGHAI), "--report", str(report), "--at", "yesterday")
    assert wrong.exit_code in (1, 2)


def test_preview_counts_what_another_system_promised_and_can_not_go_beyond_time(
    tmp_path: Path,
) -> None:
    report = tmp_path / "report.json"
    whole = {"division": "469002104", "category": "other", "urgency": "urgent", "source": "app"}
    report.write_text(json.dumps({**whole, "respond_by": "2026-11-26T12:00:00+08:00"}))
    arguments = ["profile", "preview", str(QIONGHAI), "--report", str(report), "--json", "--at"]
    first, *_others = json.loads(run(*arguments, "2026-11-26T09:00:00+08:00").stdout)["steps"]
    (resolve,) = [item for item in first["deadlines"] if item["kind"] == "resolve"]
    assert (resolve["rule"], resolve["due"]) == ("respond_by", "2026-11-26T04:00:00.000Z")
    late = run(*arguments, "9999-12-31T09:00:00+08:00")
    assert (late.exit_code, "lies too far ahead" in late.stderr) == (2, True)


# -- recorded cases ------------------------------------------------------------------------

RECORDED = QIONGHAI / "recorded.jsonl"


@pytest.fixture
def proposed(tmp_path: Path) -> Path:
    """Qionghai, with half an hour for the group to settle what is ordinary."""
    folder = tmp_path / "proposed"
    shutil.copytree(QIONGHAI, folder)
    rules = (folder / "profile.yaml").read_text(encoding="utf-8")
    assert rules.count("resolve: end_of_day") == 1
    changed = rules.replace("resolve: end_of_day", "resolve: 30m")
    (folder / "profile.yaml").write_text(changed, encoding="utf-8")
    return folder


def test_under_the_profile_that_they_ran_under_nothing_changes() -> None:
    result = run("profile", "whatif", str(QIONGHAI), "--cases", str(RECORDED), "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["before"] == "recorded"
    assert found["replayed"]["told"] == found["cases"] == 20
    for side in ("recorded", "replayed"):
        for rule in found[side]["rules"]:
            rule.pop("text")
        found[side].pop("told")
    assert found["recorded"]["levels"] == found["replayed"]["levels"]
    assert found["recorded"]["categories"] == found["replayed"]["categories"]
    by_name = [
        sorted(found[side]["rules"], key=lambda item: (item["rule"], item["kind"]))
        for side in ("recorded", "replayed")
    ]
    assert by_name[0] == by_name[1]


def test_what_would_change_stands_beside_what_is_recorded(proposed: Path) -> None:
    """The group settled three after more than half an hour: nobody knows what comes then."""
    arguments = ["profile", "whatif", str(proposed), "--cases", str(RECORDED)]
    result = run(*arguments)
    assert result.exit_code == 0, result.stderr
    for text in (
        "组协调",
        "8 → 11 (+3)",
        "3 → 0 (-3)",
        "3 of 20: village 3 nothing recorded",
        "小事不过夜",
        "profile.yaml deadlines[2]",
        "nothing is made up",
    ):
        assert text in result.stdout, result.stdout
    assert "20 cases, " in result.stderr
    worst = run(*arguments, "--worst-case").stdout
    assert "village 3" not in worst
    assert "worst case: a level" in worst
    against = run(*arguments, "--against", str(QIONGHAI), "--json")
    assert json.loads(against.stdout)["present"]["climbed"] == 11


def test_whatif_takes_a_file_of_another_system(tmp_path: Path) -> None:
    """With a byte order mark, CRLF, blank lines, words that are not known, a line twice."""
    first = json.loads(RECORDED.read_text(encoding="utf-8").splitlines()[0])
    other = {**first, "id": "事项-1", "category": "noise"}
    lines = [json.dumps(item, ensure_ascii=False) for item in (first, other, first)]
    file = tmp_path / "cases.jsonl"
    file.write_bytes(b"\xef\xbb\xbf" + "\r\n\r\n".join(lines).encode())
    result = run("profile", "whatif", str(QIONGHAI), "--cases", str(file))
    assert result.exit_code == 0, result.stderr
    assert "1 cases are counted nowhere" in result.stderr
    assert "category noise (1)" in result.stderr
    assert "1 lines repeat a case" in result.stderr
    result = CliRunner().invoke(
        app,
        ["profile", "whatif", str(QIONGHAI), "--cases", "-", "--json"],
        input=file.read_bytes(),
    )
    assert json.loads(result.stdout)["cases"] == 3


def test_whatif_shows_nothing_if_a_line_can_not_be_used(tmp_path: Path) -> None:
    good = RECORDED.read_text(encoding="utf-8").splitlines()[0]
    file = tmp_path / "cases.jsonl"
    file.write_text(f'{good}\n\n{{\n{good[:-1]}, "title": "路灯"}}\n', encoding="utf-8")
    result = run("profile", "whatif", str(QIONGHAI), "--cases", str(file), "--json")
    assert result.exit_code == Exit.USAGE
    assert result.stdout == ""
    found = json.loads(result.stderr)["problems"]
    assert [(item["line"], item["field"]) for item in found] == [(3, ""), (4, "title")]
    file.write_text("x\n" * 100, encoding="utf-8")
    result = run("profile", "whatif", str(QIONGHAI), "--cases", str(file))
    assert len(result.stderr.splitlines()) == 21
    assert "reading stopped in line 20: mend these first" in result.stderr
    file.write_text("\n", encoding="utf-8")
    result = run("profile", "whatif", str(QIONGHAI), "--cases", str(file))
    assert result.exit_code == Exit.USAGE
    assert "has no cases: write them with huashi export cases" in result.stderr
    result = run("profile", "whatif", str(QIONGHAI), "--cases", str(tmp_path / "none"))
    assert result.exit_code == Exit.USAGE
    assert "can't be read" in result.stderr


def test_a_line_without_end_is_one_mistake(tmp_path: Path) -> None:
    good = RECORDED.read_text(encoding="utf-8").splitlines()[0]
    file = tmp_path / "cases.jsonl"
    file.write_text(f"{'x' * 3_000_000}\n{good}\nx\n", encoding="utf-8")
    result = run("profile", "whatif", str(QIONGHAI), "--cases", str(file), "--json")
    assert [item["line"] for item in json.loads(result.stderr)["problems"]] == [1, 3]


def _lived(services: Services) -> None:
    """A case that the household let pass and the group settled, as intake tells it."""
    two = "2026-01-05T02:00:00.000Z"
    home = {**CASE, "assigned": None, "resolution": None}
    held = {name: home[name] for name in ("token", "address", "acknowledged", "clocks")}
    first = {**held, "deadlines": CASE["deadlines"], "resolution": None}
    moved = {
        **first,
        "token": {"round": 1, "stage": "held", "hop": 1, "seq": 0},
        "address": {"level": "group", "division": "46900210421403", "unit": None},
        "clocks": {"level": {"started_at": two}, "case": {"started_at": AT}},
        "deadlines": [],
    }
    settled = {
        **moved,
        "token": {"round": 1, "stage": "resolved", "hop": 1, "seq": 1},
        "resolution": {"outcome": "settled", "note": "王师傅修好", "by": "officer:1", "at": two},
    }
    passed = {"kind": "acknowledge", "due": two, "fired_at": two, "count": 1}
    events = [
        {"type": "case.resolved", "time": two, "data": {"state": settled}},
        {
            "type": "case.escalated",
            "time": two,
            "data": {"state": moved, "reason": "deadline_missed"},
        },
        {"type": "case.deadline_passed", "time": two, "data": {"state": first, "passed": passed}},
        {"type": "case.reported", "time": AT, "data": {"state": first}},
        {"type": "notification.delivered", "time": AT, "data": {}},
    ]
    shown = {**home, **settled, "source": "app", "status": "resolved"}
    services.say("GET /v1/cases", (200, {"cases": [shown], "next": None}))
    services.say("GET /v1/cases/c-1/timeline", (200, {"events": events, "next": None}))


def test_recorded_cases_are_exported_without_what_they_say(
    services: Services, tmp_path: Path
) -> None:
    _lived(services)
    out = tmp_path / "cases.jsonl"
    result = run("export", "cases", "--out", str(out), "--reported-from", AT)
    assert result.exit_code == 0, result.stderr
    assert result.stderr == "1 cases in 1 lines\n"
    assert "reported_from=2026" in services.asked[0][0]
    two = "2026-01-05T02:00:00.000Z"
    assert json.loads(out.read_text(encoding="utf-8")) == {
        "id": "c-1",
        "round": 1,
        "division": "46900210421403007",
        "category": "facility",
        "urgency": "ordinary",
        "source": "app",
        "reported_at": AT,
        "stays": [
            {
                "level": "household",
                "arrived_at": AT,
                "left": "passed",
                "passed": [
                    {
                        "kind": "acknowledge",
                        "due": two,
                        "rule": "profile.yaml deadlines[1]",
                        "source": "assumption",
                    }
                ],
            },
            {"level": "group", "arrived_at": two, "resolved_at": two},
        ],
    }
    assert list(tmp_path.iterdir()) == [out]
    assert run("export", "cases", "--out", "-").stdout == out.read_text(encoding="utf-8")
    replayed = run("profile", "whatif", str(QIONGHAI), "--cases", str(out), "--json")
    assert json.loads(replayed.stdout)["replayed"]["told"] == 1


def test_an_export_that_breaks_off_leaves_no_file(services: Services, tmp_path: Path) -> None:
    _lived(services)
    services.say("GET /v1/cases/c-1/timeline", problem(404, "gone"))
    out = tmp_path / "cases.jsonl"
    assert run("export", "cases", "--out", str(out)).exit_code == Exit.NOT_FOUND
    assert list(tmp_path.iterdir()) == []
    result = run("export", "cases", "--out", str(tmp_path / "none" / "cases.jsonl"))
    assert result.exit_code == Exit.USAGE
    assert "can't be written" in result.stderr


# -- emergency mode ------------------------------------------------------------------------


def _placed(level: str, due: str) -> dict[str, Any]:
    place = {"level": level, "division": "469002104", "unit": None}
    return {"address": place, "deadlines": [{"kind": "resolve", "due": due}]}


def test_a_switch_without_yes_shows_what_would_change(services: Services) -> None:
    line = "GET /v1/emergencies/469002104"
    change = {
        "case": "c-1",
        "from": None,
        "to": "469002104.1",
        "before": _placed("household", "2026-01-06T00:00:00.000Z"),
        "after": _placed("township", "2026-01-05T06:00:00.000Z"),
    }
    services.say(
        line,
        (200, {"cases": [change], "refused": [], "next": "c-1"}),
        (200, {"cases": [{**change, "case": "c-2"}], "refused": [], "next": None}),
    )
    result = run("emergency", "begin", "469002104", "--reason", "台风")
    assert result.exit_code == 0, result.output
    counts = next(row for row in result.stdout.splitlines() if "household" in row)
    assert counts.split() == ["household", "township", "2"]
    assert "add --yes" in result.stderr
    asked = [where for where, _headers, _body in services.asked]
    assert asked == [f"{line}?on=true&after=", f"{line}?on=true&after=c-1"]


def test_a_switch_with_yes_is_made(services: Services) -> None:
    entry = {"on": True, "name": "博鳌镇", "division": "469002104"}
    services.say("POST /v1/emergencies/469002104/begin", (200, entry))
    result = run("emergency", "begin", "469002104", "--reason", "台风", "--yes")
    assert (result.exit_code, result.stdout) == (0, "博鳌镇 is in emergency mode\n")
    assert services.asked[-1][2] == {"reason": "台风"}


def test_emergencies_are_listed(services: Services) -> None:
    services.say("GET /v1/emergencies", (200, {"emergencies": []}))
    assert "no division" in run("emergency", "list").stdout
    entry = {
        "on": False,
        "name": "博鳌镇",
        "division": "469002104",
        "since": AT,
        "by": "op",
        "reason": "解除",
    }
    services.say("GET /v1/emergencies", (200, {"emergencies": [entry]}))
    row = run("emergency", "list").stdout.splitlines()[1].split()
    assert row[:3] == ["off", "469002104", "博鳌镇"]


def test_a_preview_in_emergency_mode_shows_its_ladder(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    told = {"division": "46900210421403007", "category": "safety", "urgency": "ordinary"}
    file.write_text(json.dumps({**told, "source": "app"}), encoding="utf-8")
    for extra, levels in ([], 4), (["--emergency"], 1):
        arguments = ("profile", "preview", str(QIONGHAI), "--report", str(file), *extra, "--json")
        result = run(*arguments)
        assert result.exit_code == 0, result.output
        assert len(json.loads(result.stdout)["steps"]) == levels


# -- feedback and withdrawing --------------------------------------------------------------

CASE_ID = "0b1d6c1e-0000-5000-8000-000000000001"


def test_feedback_goes_by_the_id_or_by_the_tracking_code(services: Services) -> None:
    shown = {"tracking": "CQJT83C57M", "status": "closed", "level_title": "户联系"}
    for case, line in (
        (CASE_ID, f"POST /v1/cases/{CASE_ID}/feedback"),
        ("CQJT83C57M", "POST /v1/tracking/CQJT83C57M/feedback"),
    ):
        services.say(line, (200, shown))
        result = run("feedback", case, "--satisfied", "--score", "5", "--comment", "修好了")
        assert (result.exit_code, result.stdout) == (0, "CQJT83C57M  closed  户联系\n")
        where, headers, body = services.asked[-1]
        assert (where, body) == (line, {"satisfied": True, "score": 5, "comment": "修好了"})
        assert ("Authorization" in headers) == (case == CASE_ID)
    result = run("feedback", CASE_ID, "--not-satisfied", "--json")
    assert json.loads(result.stdout) == shown
    assert services.asked[-1][2] == {"satisfied": False, "score": None, "comment": ""}


def test_feedback_says_whether_it_helped(services: Services) -> None:
    assert run("feedback", CASE_ID).exit_code == Exit.USAGE
    assert run("feedback", CASE_ID, "--satisfied", "--score", "6").exit_code == Exit.USAGE
    services.say(f"POST /v1/cases/{CASE_ID}/feedback", problem(409, "the case is not resolved yet"))
    result = run("feedback", CASE_ID, "--satisfied")
    assert (result.exit_code, result.stdout) == (Exit.REFUSED, "")
    assert "not resolved yet" in result.stderr


def test_a_report_is_taken_back(services: Services) -> None:
    services.say(
        f"POST /v1/cases/{CASE_ID}/withdraw",
        (200, {"tracking": "CQJT83C57M", "status": "withdrawn", "level_title": "户联系"}),
    )
    result = run("withdraw", CASE_ID, "--reason", "自己修好了")
    assert (result.exit_code, result.stdout) == (0, "CQJT83C57M  withdrawn  户联系\n")
    assert services.asked[-1][2] == {"reason": "自己修好了"}
    assert run("withdraw", CASE_ID).exit_code == Exit.USAGE


def test_how_a_case_ended_is_shown(services: Services) -> None:
    ended = {
        **CASE,
        "status": "closed",
        "feedback": {"satisfied": False, "score": 2, "comment": "还是坏的", "at": AT, "round": 1},
        "closing": {"due": AT},
        "closed": {"why": "unanswered", "at": AT},
        "withdrawal": {"by": "op", "reason": "重复", "at": AT},
    }
    services.say("GET /v1/cases/c-1", (200, ended))
    shown = run("show", "c-1").stdout
    for words in (
        "not satisfied, 2 of 5, 01-05 08:00:00 还是坏的, round 1",
        "01-05 08:00:00, else it is closed",
        "01-05 08:00:00, unanswered",
        "01-05 08:00:00 by op: 重复",
    ):
        assert words in shown


def test_a_case_waits_goes_on_and_gets_more_time(services: Services) -> None:
    entry = {**CASE, "status": "live"}
    path = "/v1/desks/household/cases/c-1"
    services.say(f"POST {path}/suspend", (200, entry))
    services.say(f"POST {path}/resume", (200, entry))
    asked = {**entry, "extension": {"id": "e-1", "by": "1d"}}
    services.say(f"POST {path}/extend", (202, asked))
    said = ("desk", "household", "suspend", "c-1", "--reason", "waiting", "--longest", "1d")
    assert run(*said).stdout == "K7QX2M9A4T  live\n"
    assert services.asked[-1][2] == {"reason": "waiting", "longest": "1d"}
    assert run("desk", "household", "resume", "c-1", "--note", "补齐了").exit_code == 0
    assert services.asked[-1][2] == {"note": "补齐了"}
    found = run("desk", "household", "extend", "c-1", "--by", "1d", "--reason", "路远")
    assert found.stdout == "K7QX2M9A4T  live  asked for 1d: e-1\n"
    assert services.asked[-1][2] == {"by": "1d", "reason": "路远"}
    assert run("desk", "household", "extend", "c-1", "--by", "1d").exit_code == Exit.USAGE


def test_more_time_is_seen_and_answered_by_the_step_above(services: Services) -> None:
    item = {
        "id": "e-1",
        "tracking": "K7QX2M9A4T",
        "title": "路灯不亮",
        "asked_by": "h-007",
        "by": "1d",
        "due": AT,
        "reason": "路远",
        "status": "asked",
    }
    page, none = {"extensions": [item], "next": None}, {"extensions": [], "next": None}
    services.say("GET /v1/desks/household/extensions", (200, page), (200, none))
    line = run("desk", "household", "extensions").stdout.splitlines()[1]
    for said in ("e-1", "K7QX2M9A4T", "h-007", "1d", "01-05 08:00:00", "路远", "asked"):
        assert said in line
    assert "status=asked" in services.asked[-1][0]
    assert "nobody asks" in run("desk", "household", "extensions", "--status", "all").stdout
    for action, status in (("grant", "granted"), ("refuse", "refused")):
        path = f"POST /v1/desks/household/extensions/e-1/{action}"
        services.say(path, (200, {**item, "status": status}))
        found = run("desk", "household", action, "e-1", "--note", "知道了")
        assert found.stdout == f"K7QX2M9A4T  1d  {status}\n"
        assert services.asked[-1][2] == {"note": "知道了"}


def test_a_case_is_taken_up_again(services: Services) -> None:
    services.say("POST /v1/cases/c-1/reopen", (200, CASE))
    assert run("reopen", "c-1", "--reason", "又漏水").stdout.startswith("K7QX2M9A4T  reported")
    assert services.asked[-1][2] == {"reason": "又漏水"}


def test_what_an_act_shows_is_a_file_that_lies_elsewhere(
    services: Services, tmp_path: Path
) -> None:
    file, url = tmp_path / "路灯=1.jpg", "https://files.example.org/a=b.jpg"
    file.write_bytes(b"lamp")
    digest = hashlib.sha256(b"lamp").hexdigest()
    services.say("POST /v1/desks/household/cases/c-1/resolve", (200, {**CASE, "status": "ended"}))
    attach = ("--attach", f"{file}={url}", "--attach", f"{'0f' * 32}={url}")
    assert run("desk", "household", "resolve", "c-1", *attach).exit_code == 0
    assert services.asked[-1][2]["attachments"] == [
        {"url": url, "sha256": digest, "name": "路灯=1.jpg"},
        {"url": url, "sha256": "0f" * 32},
    ]
    for wrong, why in (
        (str(file), "write FILE=URL"),
        (f"{file}=lamp.jpg", "write FILE=URL"),
        (f"{tmp_path}/none.jpg={url}", "can't be read"),
    ):
        result = run("desk", "household", "resolve", "c-1", "--attach", wrong)
        assert result.exit_code == Exit.USAGE
        assert why in result.stderr


def test_cases_are_merged_and_linked(services: Services) -> None:
    held = {"address": {"level": "village", "division": "469002104214", "unit": None}, "token": {}}
    told = {"kept": {"case": "c-1", **held}, "follower": {"case": "c-2", **held}, "heard": True}
    services.say("POST /v1/desks/group/cases/c-1/merge", (200, told))
    result = run("desk", "group", "merge", "c-1", "--with", "c-2", "--reason", "同一盏灯")
    assert result.stdout == "c-2 follows c-1, held by village 469002104214\n"
    assert services.asked[-1][2] == {"with": "c-2", "reason": "同一盏灯"}
    assert (
        json.loads(
            run("desk", "group", "merge", "c-1", "--with", "c-2", "--reason", "r", "--json").stdout
        )
        == told
    )
    services.say("POST /v1/desks/group/cases/c-1/merge", (202, {**told, "heard": False}))
    assert (
        "has not heard"
        in run("desk", "group", "merge", "c-1", "--with", "c-2", "--reason", "r").stdout
    )
    services.say("POST /v1/desks/group/cases/c-1/link", (200, {"id": "c-1", "linked": ["c-2"]}))
    assert run("desk", "group", "link", "c-1", "--with", "c-2").stdout == "c-2\n"
    assert services.asked[-1][2] == {"case": "c-2"}
    services.say("POST /v1/desks/group/cases/c-1/unlink", (200, {"id": "c-1", "linked": []}))
    assert (
        "no case is linked"
        in run("desk", "group", "link", "c-1", "--with", "c-2", "--remove").stdout
    )
    assert (
        run("desk", "group", "merge", "c-9", "--with", "c-2", "--reason", "r").exit_code
        == Exit.NOT_FOUND
    )


def test_what_may_be_the_same_is_listed(services: Services) -> None:
    found = {
        "id": "c-2",
        "title": "路灯坏了",
        "category": "safety",
        "status": "reported",
        "address": {"level": "village", "division": "469002104214", "unit": None},
        "reported_at": AT,
        "score": 0.71,
        "why": {"words": 0.5, "place": "beside", "hours": 2.5, "same_category": False},
    }
    page = {"case": "c-1", "within_seconds": 259200.0, "duplicates": [found]}
    nothing = {**page, "duplicates": []}
    services.say("GET /v1/cases/c-1/duplicates", (200, page), (200, nothing))
    line = run("duplicates", "c-1").stdout.splitlines()[1]
    for said in ("71%", "c-2", "路灯坏了", "words 50%, place beside, 2.5 h apart, safety"):
        assert said in line
    assert run("duplicates", "c-1").stdout == "nothing alike was reported near it within 3d\n"


def test_a_case_shows_what_it_was_merged_and_linked_with(services: Services) -> None:
    resolution = {"outcome": "settled", "note": "", "by": "v-1", "at": AT, "followed": "c-0"}
    found = {**CASE, "follows": "c-0", "followers": [], "linked": ["c-7", "c-8"]}
    services.say("GET /v1/cases/c-1", (200, {**found, "resolution": resolution}))
    shown = run("show", "c-1").stdout
    assert "c-0, which was resolved" in shown
    assert "c-7, c-8" in shown


# -- a desk's duty and rates ---------------------------------------------------------------


def test_who_is_on_duty_is_shown_with_who_is_next(services: Services) -> None:
    place = {
        "name": "沙美村委会",
        "unit_name": "治安联防队",
        "officers": [{"name": "队员一", "instead_of": "t-2"}],
        "why": "on duty",
        "until": "2026-11-26T22:00:00.000Z",
        "then": [],
    }
    line = "GET /v1/desks/group/duty"
    services.say(
        line,
        (200, {"places": [place], "next": "more"}),
        (200, {"places": [{**place, "until": None}], "next": None}),
    )
    result = run("desk", "group", "duty", "--division", "469002104214")
    assert result.exit_code == 0, result.output
    first, second = result.stdout.splitlines()[1:]
    assert first.split() == [
        *("沙美村委会", "治安联防队", "队员一", "(for", "t-2)"),
        *("on", "duty", "11-27", "06:00:00", "nobody"),
    ]
    assert second.split()[-2:] == ["on", "duty"]


def test_rates_are_shown_with_what_they_count(services: Services) -> None:
    counts = {"arrived": 4, "acknowledged": 3, "completed": 2, "on_time": 1, "due": 3, "overdue": 2}
    ratios = {"response": 0.75, "completion": 0.5, "on_time": 0.3333, "overdue": 0.5}
    names = ("checked_in", "finished")
    of_calls = {f"{name}_{part}": 2 for name in names for part in ("on_time", "due")}
    called = {
        "counts": {"called": 3, "scored": 1, **of_calls, "finished_due": 0},
        "rates": {"check_in": 1.0, "finish": None, "score": 4.0},
    }
    answer = {"counts": counts, "rates": ratios, "from": AT, "to": AT, "calls": called}
    services.say("GET /v1/desks/group/rates", (200, answer))
    result = run("desk", "group", "rates", "--unit", "team", "--from", AT)
    assert result.exit_code == 0, result.output
    rows = [row.split()[1:] for row in result.stdout.splitlines()[2:]]
    assert rows[3] == ["time", "按期办结", "1", "of", "3", "33.3%"]
    assert rows[0] == ["受理", "4"]
    assert rows[5] == ["吹哨", "3"]
    assert rows[6][-4:] == ["2", "of", "2", "100.0%"]
    assert rows[8] == ["评价", "1", "4.0", "of", "5"]
    called["counts"]["called"] = 0
    called["rates"]["score"] = None
    services.say("GET /v1/desks/group/rates", (200, answer))
    assert "吹哨" not in run("desk", "group", "rates").stdout
    assert services.asked[-2][0].endswith(f"?unit=team&from={AT.replace(':', '%3A')}")


# -- the directory -----------------------------------------------------------------------------

_ENTRY = {
    "id": "v-214-2",
    "name": "符网格员",
    "level": "village",
    "division": "469002104214",
    "unit": None,
    "role": "officer",
    "on_duty": True,
}


def _directory(services: Services, **known: list[dict[str, Any]]) -> None:
    for kind in ("unit", "officer", "duty"):
        entries = [{"id": f"{kind}:{item['id']}", "entry": item} for item in known.get(kind, [])]
        page = {"entries": entries, "next": None}
        services.say(f"GET /v1/directory?kind={kind}&limit=200", (200, page))
    change = {"id": "officer:v-214-2", "change": "new"}
    services.say("POST /v1/directory", (200, {"dry_run": True, "entries": [change]}))


def test_directory_apply_sends_what_differs_and_only_with_yes(
    services: Services, tmp_path: Path
) -> None:
    columns = "id,name,level,division,unit,role,on_duty"
    path = tmp_path / "officers.csv"
    row = "{},{},village,469002104214,,officer,yes"
    rows = [row.format("v-214-2", "符网格员"), row.format("v-214-3", "林网格员")]
    path.write_text("\n".join([columns, *rows]) + "\n")
    there = {**_ENTRY, "id": "v-214-3", "name": "林网格员"}
    _directory(services, officer=[there])
    for options, dry_run in (([], True), (["--yes"], False)):
        result = CliRunner().invoke(app, ["directory", "apply", str(path), *options])
        assert result.exit_code == 0, result.output
        assert "officer:v-214-2" in result.output
        assert ("--yes" in result.stderr) == dry_run
        assert services.asked[-1][2] == {"officers": [_ENTRY], "dry_run": dry_run}
    _directory(services, officer=[there, _ENTRY])
    before = len(services.asked)
    result = CliRunner().invoke(app, ["directory", "apply", str(tmp_path), "--yes"])
    assert "already" in result.output
    assert [line.split("?")[0] for line, _, _ in services.asked[before:]] == ["GET /v1/directory"]


def test_directory_apply_takes_yaml_and_names_what_it_can_not_read(
    services: Services, tmp_path: Path
) -> None:
    _directory(services)
    path = tmp_path / "roster.yaml"
    leave = '{first: "2026-12-01", last: "2026-12-03"}'
    path.write_text(f"duties:\n  - officer: v-214\n    leaves: [{leave}]\n")
    result = CliRunner().invoke(app, ["directory", "apply", str(path)])
    assert result.exit_code == 0, result.output
    leaves = [{"first": "2026-12-01", "last": "2026-12-03"}]
    assert services.asked[-1][2]["duties"] == [{"officer": "v-214", "leaves": leaves}]
    for text, said in (
        ("people: []\n", "units, officers, duties"),
        ("- 1\n", "units, officers, duties"),
        ("officers: [1]\n", "units, officers, duties"),
        ("officers: [\n", "not YAML"),
    ):
        path.write_text(text)
        result = CliRunner().invoke(app, ["directory", "apply", str(path)])
        assert (result.exit_code, said in result.stderr) == (Exit.USAGE, True), result.output
    result = CliRunner().invoke(app, ["directory", "apply", str(tmp_path / "no.txt")])
    assert (result.exit_code, "units.csv" in result.stderr) == (Exit.USAGE, True)


def test_directory_retire_and_list(services: Services) -> None:
    _directory(services)
    result = CliRunner().invoke(app, ["directory", "retire", "officer:v-214-2", "--yes"])
    assert result.exit_code == 0, result.output
    assert services.asked[-1][2] == {"retire": ["officer:v-214-2"], "dry_run": False}
    shown = {"version": 1, "changed_at": AT, "origin": "operator", "entry": _ENTRY}
    page = {"entries": [{"id": "officer:v-214-2", **shown}], "next": None}
    services.say("GET /v1/directory", (200, page))
    services.answers.pop("GET /v1/directory?kind=officer&limit=200")
    result = CliRunner().invoke(app, ["directory", "list", "officer", "--division", "469002104"])
    assert result.exit_code == 0, result.output
    assert "符网格员" in result.output
    assert "division=469002104" in services.asked[-1][0]
