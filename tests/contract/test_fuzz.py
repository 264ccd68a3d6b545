"""Schemathesis against the real services: no 5xx, and no answer that the documents don't tell."""

from __future__ import annotations

import copy
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from deploy.local.stack import Stack
from services.bus.web import routes
from tests.contract import documented, fuzz_checks
from tests.end_to_end.county import GRID, QUICK, County, eventually
from tests.end_to_end.sink import Sink, sinks
from tests.integration.test_systems import told

_EXAMPLES = 20
_SECONDS = 300
# Whether what the schema accepts is accepted: our rules know more than a schema can say.
_NOT_CHECKED = "positive_data_acceptance,not_a_server_error"

FRONT_DOOR, OPEN311 = "front door", "open311"
"""Intake once more, with the key of another system."""

# A body that is wrong may be too large besides, and an action meet another version.
_CONFIG = """\
[checks.negative_data_rejection]
expected-statuses = [400, 401, 403, 404, 405, 406, 409, 412, 413, 415, 422, 428, 429, "5xx"]
"""

_EVENTS = "/v1/events"
_PARTS = {FRONT_DOOR: f"^{_EVENTS}$", OPEN311: "^/open311/"}

VILLAGE = "469002104205"
GROUP = "46900210420503"
ELSEWHERE = "469002104214"

Known = dict[str, list[Any]]


@pytest.fixture(scope="module")
def own(make_stack: Callable[..., Stack]) -> County:
    """A county of its own, for what happens here is good for nobody else; in real time."""
    return County(make_stack(PROFILES=QUICK, WEBHOOK_ALLOW="127.0.0.1", WEBHOOK_PAUSE_SECONDS="1"))


@pytest.fixture(scope="module")
def sink() -> Iterator[Sink]:
    """It takes nothing, so that what is sent to it is paused."""
    with sinks("127.0.0.1") as (made,):
        made.answer = lambda _got: (500, {})
        yield made


_NEVER = "case.deadline_passed"
"""What does not happen in the minutes of this module: nothing of it can pause a subscription."""


def subscribed(own: County, sink: Sink) -> list[str]:
    """Four subscriptions, of which the first is paused."""
    url = f"{own.about['notify']}/v1/subscriptions"
    bodies = [{"sink": sink.url, "types": [name]} for name in ("case.noted", *[_NEVER] * 3)]
    found = [own.ask("POST", url, json=body).json()["id"] for body in bodies]
    case = own.report(VILLAGE)
    own.arrived("village", case)
    assert own.act("village", case, "note", note="已到现场").status_code == 200

    def paused() -> bool:
        return bool(own.ask("GET", f"{url}/{found[0]}").json()["status"] == "paused")

    eventually("a pause", paused)
    return found


@pytest.fixture(scope="module")
def known(own: County, sink: Sink) -> Known:
    """What there is to be asked for, for each action something that it can be done to."""
    person = {"name": "林某", "phone": "0898 6282 1234"}
    actions = (
        *("acknowledge", "resolve", "extend", "suspend", "resume", "reopen"),
        *("note", "escalate", "delegate", "transfer", "whistle", "release"),
        *("feedback", "feedback_by_code", "withdraw", "merge", "merge_with"),
    )
    ended = ("reopen", "feedback", "feedback_by_code")
    cases = {name: own.report(VILLAGE, reporter=person) for name in actions}
    for case in cases.values():
        own.arrived("village", case)
    assert own.act("village", cases["resume"], "suspend", reason="waiting").status_code == 200
    for name in ended:
        assert own.act("village", cases[name], "resolve", outcome="settled").status_code == 200
    cases["send_back"] = sent_to_the_village(own)
    called = [call_of_the_team(own) for _ in range(2)]
    body = {"units": [{"unit": "centre"}], "reason": "联合处置"}
    assert own.act("village", cases["release"], "whistle", **body).status_code == 200
    asked = [asked_of_the_village(own) for _ in range(2)]
    eventually("all know them", lambda: all(map(own.custody, cases.values())))
    for name in ended:
        eventually("the end", lambda name=name: own.case(cases[name])["status"] == "resolved")  # type: ignore[misc]
    shown = own.case(cases["resolve"])
    street_app = f"{own.about['intake']}/v1/systems/street_app"
    key = own.ask("PUT", street_app, json={"may": ["case.report", "case.update"]}).json()["key"]
    form = {"api_key": key, "service_code": "facility", "address_id": VILLAGE}
    made = httpx.post(f"{own.about['intake']}/open311/v2/requests.json", data=form).json()
    nowhere = "00000000-0000-0000-0000-000000000000"
    resumed, seen, replayed, removed = subscribed(own, sink)
    for name in ("hotline", "rotated", "removed"):
        own.ask("PUT", f"{own.about['intake']}/v1/systems/{name}", json={"may": ["case.report"]})
    for name in ("reader", "leaver"):
        told(own, "add", name, "--reads", "case.*")
        told(own, "subscribe", name)
    return {
        "add_system.name": ["fuzzed"],
        "subscribe.name": ["reader", "unheard_of"],
        "unsubscribe.name": ["leaver", "unheard_of"],
        "replay.name": ["reader"],
        "ReplayBody.from": ["2026-01-01T08:00:00+08:00"],
        "rotate_key.name": ["rotated", "unheard_of"],
        "remove_system.name": ["removed", "unheard_of"],
        "SystemBody.divisions": [[VILLAGE], []],
        "case": [*cases.values(), nowhere],
        **{f"{name}.case": [case] for name, case in cases.items()},
        **{f"{name}.case": [cases["merge"]] for name in ("link", "unlink")},
        "MergeBody.with": [cases["merge_with"]],
        "LinkBody.case": [cases["merge_with"]],
        "identity": [*asked, nowhere],
        "grant.identity": asked[:1],
        "refuse.identity": asked[1:],
        "subscription.identity": [seen, nowhere],
        "unsubscribe.identity": [removed, nowhere],
        "resume_subscription.identity": [resumed, seen],
        "replay_subscription.identity": [replayed, nowhere],
        "SubscriptionBody.sink": [sink.url],
        "one_call.identity": [*called, nowhere],
        "check_in.identity": called[:1],
        "finish.identity": called[1:],
        "WhistleBody.units": [[{"unit": "centre"}], [{"unit": "team"}, {"unit": "centre"}]],
        "lead": ["centre"],
        "check_in": ["1h", "30m"],
        "finish": ["1d"],
        "ReleaseBody.unit": ["centre"],
        "ReleaseBody.score": [4],
        "code": [shown["tracking"]],
        "feedback_by_code.code": [own.case(cases["feedback_by_code"])["tracking"]],
        "level": ["village"],
        "recipient": ["desk:village:469002104214", "officer:甲", "division:469002"],
        "division": [GRID, VILLAGE, "469002104"],
        "begin_emergency.division": [ELSEWHERE],
        "end_emergency.division": [ELSEWHERE],
        "category": ["facility"],
        "urgency": ["ordinary", "urgent"],
        "source": ["app"],
        "outcome": ["settled", "explained"],
        "SuspendBody.reason": ["waiting"],
        "MigrationBody.to": [shown["profile"]],
        "MoveBody.to": [{"division": GROUP}, {"division": ELSEWHERE}],
        "DelegateBody.to": [{"division": GROUP}],
        "authorise": [False],
        "officer": ["v-205"],
        OPEN311: [key],
        "RequestBody.api_key": [key],
        "UpdateBody.api_key": [key],
        "service_code": ["facility", "order"],
        "service_request_id": [made[0]["service_request_id"]],
        "token": [shown["tracking"]],
        "jurisdiction_id": ["469002"],
        "address_id": [VILLAGE],
        "address_string": ["沙美村3组"],
        "attribute[urgency]": ["calm"],
        "attribute[source]": ["app"],
        "attribute[title]": ["路灯不亮"],
        "attribute[occurred_at]": ["2026-03-02T19:40:00+08:00"],
        "RequestBody.phone": ["0898 6282 1234"],
        "email": ["lin@example.cn"],
        "RequestBody.description": ["东侧第三盏"],
        "UpdateBody.description": ["西侧第一盏也不亮"],
        "by": ["2h", "3d"],
        "longest": ["5d"],
    }


def sent_to_the_village(county: County) -> str:
    """A case that a group has sent up."""
    case = county.report(GROUP)
    county.arrived("group", case)
    assert county.act("group", case, "escalate", reason="超出职权").status_code == 200
    county.arrived("village", case)
    return case


def asked_of_the_village(county: County) -> str:
    """More time that a group asks the village for."""
    case = county.report(GROUP)
    county.arrived("group", case)
    answer = county.act("group", case, "extend", by="1h", reason="等配件")
    extension = answer.json()["extension"]["id"]
    url = f"{county.about['desks']['village']}/v1/desks/village/extensions"

    def there() -> bool:
        found = county.ask("GET", url, params={"limit": 200}).json()["extensions"]
        return extension in {item["id"] for item in found}

    eventually("the extension at the village desk", there)
    return str(extension)


def call_of_the_team(county: County) -> str:
    """A call of a unit of the village desk."""
    case = county.report(VILLAGE)
    county.arrived("village", case)
    body = {"units": [{"unit": "team"}], "reason": "联合处置"}
    assert county.act("village", case, "whistle", **body).status_code == 200
    url = f"{county.about['desks']['village']}/v1/desks/village/calls"

    def there() -> str | None:
        found = county.ask("GET", url, params={"limit": 200}).json()["calls"]
        return next((str(item["id"]) for item in found if item["case"] == case), None)

    return str(eventually("the call at the village desk", there))


@pytest.mark.parametrize(
    "service", ["intake", "dispatch", "escalation", "notify", FRONT_DOOR, OPEN311]
)
def test_no_request_gets_an_answer_that_is_not_documented(
    service: str, own: County, known: Known, tmp_path: Path
) -> None:
    credential, config = own.about["tokens"]["operator"], _CONFIG
    part, pattern = ["--exclude-path-regex", "|".join(_PARTS.values())], _PARTS.get(service)
    if pattern is not None:
        part = ["--include-path-regex", pattern]
    if service == OPEN311:
        service, credential = "intake", known[OPEN311][0]
    if service == FRONT_DOOR:
        service = "intake"
        system = f"{own.about['intake']}/v1/systems/hotline/rotate"
        credential = own.ask("POST", system, json={}).json()["key"]
        # Of a batch, what became of each event is said.
        config = config.replace("[400", "[202, 400")
    url = own.about["desks"]["village"] if service == "dispatch" else own.about[service]
    path = tmp_path / "openapi.json"
    path.write_text(json.dumps(of_this_county(documented.document(service), known)))
    (tmp_path / "schemathesis.toml").write_text(config)
    command = [
        *(sys.executable, "-W", "ignore", "-m", "schemathesis.cli", "run", str(path)),
        *("--url", url, "--header", f"Authorization: Bearer {credential}"),
        *part,
        *("--checks", "all", "--exclude-checks", _NOT_CHECKED),
        *("--phases", "examples,coverage,fuzzing", "--max-examples", str(_EXAMPLES)),
        *("--generation-deterministic", "--continue-on-failure"),
    ]
    root = str(Path(__file__).parents[2])
    environment = {
        **os.environ,
        "SCHEMATHESIS_HOOKS": fuzz_checks.__name__,
        "PYTHONPATH": root,
        "NO_COLOR": "1",
    }
    before = good_answers(service, url)
    run = subprocess.run(
        command,
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
    if run.returncode != 0:
        pytest.fail(run.stdout + run.stderr, pytrace=False)
    # Else it would have knocked at the door only.
    after = good_answers(service, url)
    parts = [pattern] if pattern is not None else _PARTS.values()
    tried = {
        name
        for name in after
        if any(re.search(each, name.partition(" ")[2]) for each in parts) == (pattern is not None)
    }
    assert [name for name in tried if after[name] <= before[name]] == []


def good_answers(service: str, url: str) -> dict[str, float]:
    """How often each route has given the answer that it is there for."""
    counted = {
        (sample.labels["method"], sample.labels["route"], sample.labels["status"]): sample.value
        for family in text_string_to_metric_families(httpx.get(f"{url}/metrics").text)
        for sample in family.samples
        if sample.name == "huashi_http_requests_total"
    }
    return {
        f"{found.method} {found.path}": counted.get(
            (found.method, found.path, str(found.status)), 0
        )
        for found, _ in routes(documented.service_class(service))
    }


def of_this_county(document: dict[str, Any], known: Known) -> dict[str, Any]:
    """The document, with what there is in this county as the values that there are."""
    document = copy.deepcopy(document)
    for methods in document["paths"].values():
        for operation in methods.values():
            for parameter in operation.get("parameters", []):
                name = parameter["name"]
                values = known.get(f"{operation['operationId']}.{name}", known.get(name))
                if values is not None:
                    parameter["example"] = values[0]
                if values is not None and parameter["in"] == "path":
                    parameter["schema"] = {"enum": values}
    for kind, schema in document["components"]["schemas"].items():
        if kind.endswith("Body"):
            for name, field in schema["properties"].items():
                values = known.get(f"{kind}.{name}", known.get(name))
                if values is not None:
                    nothing = [None] if "null" in field.get("type", "") else []
                    schema["properties"][name] = {"enum": values + nothing}
    return document
