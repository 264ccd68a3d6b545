"""The web side over real HTTP, on a tiny service in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from deploy.local.processes import free_ports
from services.bus import auth
from services.grid.clock import ScaledClock, monotonic
from services.grid.scope import WHOLE, Scope

KEY = "k" * 40
HERE = Path(__file__).parent


def until(condition: Callable[[], Any], seconds: float = 15.0) -> Any:
    """What ``condition`` comes to say, within a limit."""
    limit = monotonic() + seconds
    while monotonic() < limit:
        try:
            value = condition()
        except httpx.TransportError:
            value = None
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError("it did not come to pass in time")


@dataclass
class Tiny:
    """The service's process, its port, and where its log goes."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    @property
    def url(self) -> str:
        """Its base URL."""
        return f"http://127.0.0.1:{self.port}"

    def raw(self, request: bytes) -> bytes:
        """Everything that comes back for these bytes, until the connection is closed."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as connection:
            connection.sendall(request)
            connection.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: connection.recv(65536), b""))


def environment(port: int) -> dict[str, str]:
    """What the tiny service needs; the servers are not there, and it does not ask for them."""
    return {
        **os.environ,
        "AMQP_URI": "amqp://nobody@127.0.0.1:1/",
        "MONGODB_URI": "mongodb://127.0.0.1:1/huashi",
        "HTTP_BIND": f"127.0.0.1:{port}",
        "TOKEN_KEY": KEY,
        "LOG_LEVEL": "debug",
        "PYTHONPATH": str(HERE.parent.parent),
    }


def start(folder: Path, **more: str) -> Tiny:
    """A tiny service that answers; ``more`` goes into its environment."""
    port, log = free_ports(1)[0], folder / "tiny.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, str(HERE / "tiny_web.py")],
            env=environment(port) | more,
            stdout=stream,
            stderr=stream,
        )
    tiny = Tiny(process, port, log)
    until(lambda: httpx.get(f"{tiny.url}/healthz").status_code == 200)
    return tiny


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tiny]:
    """One tiny service for all tests of this module."""
    running = start(tmp_path_factory.mktemp("tiny"))
    yield running
    running.process.terminate()
    assert running.process.wait(20) == 0


def bearer(role: str = "operator", lifetime: float = 600, scope: Scope = WHOLE) -> dict[str, str]:
    """The header of a valid token."""
    token = auth.issue(KEY, "someone", role, ScaledClock().real(), lifetime, scope=scope)
    return {"Authorization": f"Bearer {token}"}


def trail(tiny: Tiny, **wanted: Any) -> list[dict[str, Any]]:
    """The entries of the audit trail with these members, the latest first."""
    entries = httpx.get(f"{tiny.url}/v1/audit?limit=200", headers=bearer("auditor")).json()
    return [
        entry
        for entry in entries["entries"]
        if all(entry[name] == value for name, value in wanted.items())
    ]


def problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    """The problem document of an answer, checked for what all of them have."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"
    document: dict[str, Any] = answer.json()
    assert document["status"] == status
    assert {"type", "title", "detail"} <= document.keys()
    assert "Traceback" not in answer.text
    return document


def test_a_request_that_is_right_reaches_the_handler(tiny: Tiny) -> None:
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    answer = httpx.post(
        f"{tiny.url}/v1/things",
        json={"title": "路灯不亮", "reporter": {"name": "王"}},
        headers={**bearer(), "Idempotency-Key": '"abc-1"', "traceparent": trace},
    )
    assert answer.status_code == 201
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["location"] == "/v1/things/1"
    assert answer.json() == {
        "body": {"title": "路灯不亮", "reporter": {"name": "王"}},
        "key": "abc-1",
        "trace": trace,
        "by": "someone",
    }
    assert "路灯不亮".encode() in answer.content


def test_a_public_route_needs_no_token(tiny: Tiny) -> None:
    answer = httpx.get(f"{tiny.url}/v1/tracking/七号")
    assert answer.json() == {"code": "七号", "anonymous": True}


def test_every_wrong_field_is_named(tiny: Tiny) -> None:
    body = {"titel": "x", "reporter": {"fone": "1", "name": ""}, "tags": ["long-tag", "ok"]}
    document = problem(httpx.post(f"{tiny.url}/v1/things", json=body, headers=bearer()), 422)
    errors = {error["field"]: error["detail"] for error in document["errors"]}
    assert errors.keys() == {"title", "titel", "reporter.fone", "reporter.name", "tags.0"}
    assert "did you mean title?" in errors["titel"]
    assert "did you mean phone? the fields are name, phone" in errors["reporter.fone"]
    assert document["type"] == "urn:huashi:problem:invalid"


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=500", "limit"),
        ("limit=x", "limit"),
        ("page=2", "page"),
        ("limit=1&limit=2", "limit"),
    ],
)
def test_query_parameters_are_checked_too(tiny: Tiny, query: str, field: str) -> None:
    document = problem(httpx.get(f"{tiny.url}/v1/things?{query}", headers=bearer()), 422)
    assert [error["field"] for error in document["errors"]] == [field]


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (b"{", "application/json", 400),
        (b'{"title": NaN}', "application/json", 400),
        (b"\xff\xfe", "application/json", 400),
        (b'"\\ud800"', "application/json", 400),
        (b"[" * 60_000, "application/json", 400),
        (b"[]", "application/json", 422),
        (b"", "application/json", 422),
        (b"title=x", "application/x-www-form-urlencoded", 415),
        (b"<a/>", "text/xml", 415),
    ],
)
def test_a_body_that_is_not_right(tiny: Tiny, body: bytes, content_type: str, status: int) -> None:
    headers = {**bearer(), "Content-Type": content_type}
    problem(httpx.post(f"{tiny.url}/v1/things", content=body, headers=headers), status)


def test_a_body_that_is_too_large_is_refused_and_its_sender_hears_why(tiny: Tiny) -> None:
    headers = {**bearer(), "Content-Type": "application/json"}
    large = b'{"title":"' + b"x" * 3_000_000 + b'"}'
    document = problem(httpx.post(f"{tiny.url}/v1/things", content=large, headers=headers), 413)
    assert "65536 bytes" in document["detail"]
    chunks = iter([large[i : i + 50_000] for i in range(0, len(large), 50_000)])
    problem(httpx.post(f"{tiny.url}/v1/things", content=chunks, headers=headers), 413)
    chunks = iter([b'{"title":', b'"small"}'])
    assert httpx.post(f"{tiny.url}/v1/things", content=chunks, headers=headers).status_code == 201


@pytest.mark.parametrize("key", ["", '"', "a b", "é".encode().decode("latin-1"), "k" * 201])
def test_an_idempotency_key_must_be_one(tiny: Tiny, key: str) -> None:
    headers = {**bearer(), "Idempotency-Key": key.encode("latin-1")}
    answer = httpx.post(f"{tiny.url}/v1/things", json={"title": "x"}, headers=headers)
    assert problem(answer, 400)["type"] == "urn:huashi:problem:idempotency_key"


def test_who_may_not_is_told_why(tiny: Tiny) -> None:
    url = f"{tiny.url}/v1/things"
    answer = httpx.get(url)
    problem(answer, 401)
    assert answer.headers["www-authenticate"] == 'Bearer realm="huashi"'
    for header in ("Basic dTpw", "Bearer", "Bearer x.y.z", bearer(lifetime=-60)["Authorization"]):
        answer = httpx.get(url, headers={"Authorization": header})
        problem(answer, 401)
        assert 'error="invalid_token"' in answer.headers["www-authenticate"]
    document = problem(httpx.get(url, headers=bearer("reporter")), 403)
    assert (document["role"], document["may"]) == ("reporter", ["operator"])


SHAMEI = Scope("469002104214", "village")


def test_a_token_reaches_its_own_part_and_is_told_the_rule_elsewhere(tiny: Tiny) -> None:
    officer = bearer("officer", scope=SHAMEI)
    assert httpx.post(f"{tiny.url}/v1/places/46900210421403", headers=officer).status_code == 200
    document = problem(httpx.post(f"{tiny.url}/v1/places/469002104205", headers=officer), 403)
    assert document["type"] == "urn:huashi:problem:forbidden"
    assert "one's division or below it" in document["rule"]
    assert document["rule"] in document["detail"]
    assert document["scope"] == {"division": "469002104214", "level": "village", "unit": None}
    part = bearer("operator", scope=Scope("469002104214"))
    document = problem(httpx.get(f"{tiny.url}/v1/things", headers=part), 403)
    assert "whole county" in document["rule"]


def test_an_answer_is_withheld_if_nobody_asked_how_far_the_token_reaches(tiny: Tiny) -> None:
    answer = httpx.get(f"{tiny.url}/v1/forgetful", headers=bearer())
    problem(answer, 500)
    assert "another village" not in answer.text


def test_what_is_done_and_refused_is_in_the_audit_trail(tiny: Tiny) -> None:
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-02"
    headers = {**bearer(), "Idempotency-Key": "audited", "traceparent": trace}
    body = {"title": "SECRET-TITLE"}
    assert httpx.post(f"{tiny.url}/v1/things", json=body, headers=headers).status_code == 201
    (made,) = trail(tiny, traceparent=trace)
    assert made["action"] == "POST /v1/things"
    assert (made["who"], made["role"], made["status"]) == ("someone", "operator", 201)
    assert (made["from"], made["idempotency_key"]) == ("127.0.0.1", "audited")
    assert (made["cases"], made["said"], made["why"]) == (["case-1"], {"thing": "made"}, None)
    assert "SECRET" not in json.dumps(made)
    # Refused for the scope, for the role, and for want of a token.
    place, officer = f"{tiny.url}/v1/places/469002104205", bearer("officer", scope=SHAMEI)
    httpx.post(place, headers=officer)
    (refused, *_) = trail(tiny, status=403, role="officer")
    assert "one's division" in refused["why"]
    assert refused["target"] == {"code": "469002104205"}
    assert refused["scope"] == SHAMEI.as_dict()
    httpx.post(place, headers=bearer("reporter"))
    (refused, *_) = trail(tiny, status=403, role="reporter")
    assert "officer or lead" in refused["why"]
    httpx.post(f"{tiny.url}/v1/places/13812345678")
    (refused, *_) = trail(tiny, status=401)
    assert (refused["who"], refused["role"]) == (None, "anonymous")
    assert refused["target"] == {"code": "(a number)"}
    # Who only reads is not in it, and neither is what was never tried.
    httpx.get(f"{tiny.url}/v1/things", headers=bearer())
    httpx.post(f"{tiny.url}/v1/things", json={}, headers=bearer())
    assert not trail(tiny, action="GET /v1/things")
    assert not trail(tiny, status=422)


def test_what_was_changed_before_it_failed_is_in_the_audit_trail(tiny: Tiny) -> None:
    assert httpx.post(f"{tiny.url}/v1/fail/half").status_code == 409
    (kept,) = trail(tiny, status=409)
    assert (kept["cases"], kept["why"]) == (["case-1"], "nobody is followed any more")
    assert kept["changes"][0]["after"]["address"] == {"level": "village"}
    assert httpx.post(f"{tiny.url}/v1/fail/refused").status_code == 409
    assert len(trail(tiny, status=409)) == 1


def test_the_trail_is_for_auditors_and_operators(tiny: Tiny) -> None:
    url = f"{tiny.url}/v1/audit"
    assert httpx.get(url, headers=bearer("operator")).status_code == 200
    problem(httpx.get(url, headers=bearer("officer", scope=SHAMEI)), 403)
    problem(httpx.get(url, headers=bearer("auditor", scope=Scope("469002104214"))), 403)
    document = problem(httpx.get(f"{url}?from=monday", headers=bearer("auditor")), 422)
    assert [error["field"] for error in document["errors"]] == ["from"]


def test_requests_without_a_token_do_not_fill_the_trail(tiny: Tiny) -> None:
    before = len(trail(tiny, status=401))
    one = b"POST /v1/places/1 HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"
    assert tiny.raw(one * 120).count(b"HTTP/1.1 401 ") == 120
    kept = len(trail(tiny, status=401)) - before
    # Twenty a second: fewer if a test before has used some of this one, more if it took two.
    assert 0 < kept < 120
    said = httpx.get(f"{tiny.url}/metrics").text
    assert f'huashi_audit_entries_total{{outcome="omitted"}} {120 - kept}.0' in said


def test_what_can_not_be_audited_is_put_off_and_what_is_refused_stays_refused(
    tmp_path: Path,
) -> None:
    away = tmp_path / "away"
    tiny = start(tmp_path, AWAY_FILE=str(away))
    try:
        away.touch()
        thing = {"json": {"title": "x"}, "headers": bearer()}
        problem(httpx.post(f"{tiny.url}/v1/things", **thing), 503)
        officer = bearer("officer", scope=SHAMEI)
        problem(httpx.post(f"{tiny.url}/v1/places/469002104205", headers=officer), 403)
        assert "an audit entry could not be kept" in tiny.log.read_text()
        assert "127.0.0.1" not in tiny.log.read_text().split("could not be kept")[1]
        away.unlink()
        assert httpx.post(f"{tiny.url}/v1/things", **thing).status_code == 201
        assert len(trail(tiny)) == 1
    finally:
        tiny.process.terminate()
        assert tiny.process.wait(20) == 0


def test_an_address_is_believed_of_a_trusted_proxy_only(tiny: Tiny, tmp_path: Path) -> None:
    said = {"X-Forwarded-For": "198.51.100.7, 203.0.113.9"}
    behind = start(tmp_path, TRUSTED_PROXIES="127.0.0.0/8, 203.0.113.0/24")
    try:
        for service, address in ((tiny, "127.0.0.1"), (behind, "198.51.100.7")):
            httpx.post(
                f"{service.url}/v1/things", json={"title": "x"}, headers={**bearer(), **said}
            )
            assert trail(service)[0]["from"] == address
    finally:
        behind.process.terminate()
        assert behind.process.wait(20) == 0


def test_paths_and_methods(tiny: Tiny) -> None:
    problem(httpx.get(f"{tiny.url}/v1/nothing"), 404)
    problem(httpx.get(f"{tiny.url}/v1/things/"), 404)
    answer = httpx.put(f"{tiny.url}/v1/things")
    problem(answer, 405)
    assert answer.headers["allow"] == "GET, HEAD, OPTIONS, POST"
    answer = httpx.options(f"{tiny.url}/v1/things")
    assert (answer.status_code, answer.headers["allow"]) == (204, "GET, HEAD, OPTIONS, POST")
    head = httpx.head(f"{tiny.url}/healthz")
    assert (head.status_code, head.content) == (200, b"")


@pytest.mark.parametrize(
    ("how", "status", "kind"),
    [
        ("refused", 409, "urn:huashi:problem:refused"),
        ("away", 503, "urn:huashi:problem:away"),
        ("reject", 422, "urn:huashi:problem:unstorable"),
        ("missing", 404, "about:blank"),
        ("surprise", 500, "about:blank"),
    ],
)
def test_what_a_handler_raises_becomes_a_problem(
    tiny: Tiny, how: str, status: int, kind: str
) -> None:
    answer = httpx.post(f"{tiny.url}/v1/fail/{how}")
    document = problem(answer, status)
    assert document["type"] == kind
    assert "secret" not in answer.text
    if how == "refused":
        assert document["held_by"] == {"level": "village"}
    if how == "away":
        assert answer.headers["retry-after"] == "2"


def test_a_surprise_can_be_found_in_the_log(tiny: Tiny) -> None:
    instance = httpx.post(f"{tiny.url}/v1/fail/surprise").json()["instance"]
    lines = tiny.log.read_text().splitlines()
    line = next(json.loads(line) for line in lines if instance in line)
    assert "RuntimeError" in line["exception"]
    assert (line["service"], line["route"]) == ("tiny", "/v1/fail/<code>")


def test_no_tracking_code_and_no_body_reaches_the_log(tiny: Tiny) -> None:
    httpx.get(f"{tiny.url}/v1/tracking/SECRET-CODE?x=SECRET-QUERY")
    httpx.post(f"{tiny.url}/v1/things", json={"title": "SECRET-TITLE"}, headers=bearer())
    tiny.raw(b"GET /SECRET-PATH HTTP/9.9\r\n\r\n")
    log = tiny.log.read_text()
    assert "/v1/tracking/<code>" in log
    assert "SECRET" not in log


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GARBAGE\r\n\r\n", 400),
        (b"GET / HTTP/9.9\r\n\r\n", 505),
        (b"GET /healthz HTTP/1.1\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 9000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 300 + b"\r\n", 431),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1_0\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n",
            400,
        ),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
        (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        *(
            (b"POST / HTTP/1.1\r\nHost: a\r\n" + odd + b"\r\n\r\nGET /healthz HTTP/1.1\r\n", 400)
            for odd in (
                b"no header at all\r\nContent-Length: 3",
                b"Content-Length : 3",
                b"X: a\rContent-Length: 3",
                b"X: a\r\n folded: b",
            )
        ),
    ],
)
def test_a_request_that_can_be_read_in_two_ways_or_not_at_all(
    tiny: Tiny, request_bytes: bytes, status: int
) -> None:
    head, _, body = tiny.raw(request_bytes).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status), head
    assert b"application/problem+json" in head
    assert b"Connection: close" in head
    # One answer: what came after the refused request was not read as another one.
    assert json.loads(body)["status"] == status


def _chunked(chunks: bytes) -> bytes:
    token = bearer()["Authorization"].encode()
    return (
        b"POST /v1/things HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
        b"Authorization: " + token + b"\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks
    )


@pytest.mark.parametrize(
    "chunks",
    [
        b"zz\r\nGET /healthz HTTP/1.1\r\nHost: a\r\n\r\n",
        b"0x2\r\n{}\r\n0\r\n\r\n",
        b"+2\r\n{}\r\n0\r\n\r\n",
        b"0_2\r\n{}\r\n0\r\n\r\n",
        b"-5\r\n{}\r\n0\r\n\r\n",
        b"5\r\nab",
        b"5;" + b"x" * 20_000 + b"\r\nabcde\r\n0\r\n\r\n",
    ],
)
def test_broken_chunks_end_the_connection(tiny: Tiny, chunks: bytes) -> None:
    head, _, body = tiny.raw(_chunked(chunks)).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert json.loads(body)["detail"].startswith("the body broke off")


def test_a_short_body_and_a_client_that_leaves(tiny: Tiny) -> None:
    token = bearer()["Authorization"].encode()
    head = (
        b"POST /v1/things HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
        b"Authorization: " + token + b"\r\nContent-Length: 50\r\n\r\n{"
    )
    assert tiny.raw(head).startswith(b"HTTP/1.1 400 ")
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", tiny.port)) as gone:
            gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
            gone.sendall(head)
    assert httpx.get(f"{tiny.url}/healthz").status_code == 200
    assert tiny.process.poll() is None


def test_two_requests_on_one_connection(tiny: Tiny) -> None:
    one = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"
    assert tiny.raw(one + one).count(b"HTTP/1.1 200 OK") == 2


def test_what_happened_is_counted_by_route(tiny: Tiny) -> None:
    httpx.get(f"{tiny.url}/v1/tracking/a")
    page = httpx.get(f"{tiny.url}/metrics")
    assert page.headers["content-type"].startswith("text/plain; version=")
    counted = 'huashi_http_requests_total{method="GET",route="/v1/tracking/<code>",status="200"}'
    assert counted in page.text
    assert "/v1/tracking/a" not in page.text
    assert 'huashi_process_info{level="",service="escalation"} 1.0' in page.text


def test_it_listens_on_nothing_but_its_address(tiny: Tiny) -> None:
    inodes = {link.readlink().name for link in Path(f"/proc/{tiny.process.pid}/fd").iterdir()}
    listening = []
    for table in ("tcp", "tcp6"):
        for row in Path("/proc/net", table).read_text().splitlines()[1:]:
            fields = row.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in inodes:
                listening.append(fields[1])
    assert listening == [f"0100007F:{tiny.port:04X}"]


def test_a_second_process_cannot_share_the_port(tiny: Tiny) -> None:
    second = subprocess.run(
        [sys.executable, str(HERE / "tiny_web.py")],
        env=environment(tiny.port),
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert second.returncode == 1
    assert b"Address already in use" in second.stdout


def test_a_stop_lets_a_request_finish(tmp_path: Path) -> None:
    tiny = start(tmp_path)
    with socket.create_connection(("127.0.0.1", tiny.port), timeout=10) as connection:
        connection.sendall(b"POST /v1/fail/late HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
        until(lambda: "a late answer begins" in tiny.log.read_text())
        tiny.process.send_signal(signal.SIGTERM)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"Connection: close" in answer
    assert tiny.process.wait(20) == 0


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tiny]:
    """A tiny service whose limits of time are one second each."""
    folder = tmp_path_factory.mktemp("impatient")
    (folder / "ready").write_text("yes")
    running = start(folder, SHORT_LIMITS="1", STOP_SECONDS="2", READY_FILE=str(folder / "ready"))
    yield running
    running.process.terminate()
    # Its handlers never end; the process does, and says that it was not gently.
    assert running.process.wait(20) == 1
    assert "did not stop in time" in running.log.read_text()


def _trickled(tiny: Tiny, begin: bytes) -> bytes:
    """What comes back for a request that is sent a byte at a time, for ever."""
    with socket.create_connection(("127.0.0.1", tiny.port), timeout=0.1) as connection:
        connection.sendall(begin)
        limit, found = monotonic() + 10, b""
        while monotonic() < limit:
            try:
                connection.sendall(b"x")
                data = connection.recv(65536)
            except TimeoutError:
                continue
            except OSError:
                return found
            if not data:
                return found
            found += data
    raise AssertionError("the connection was kept for ever")


@pytest.mark.parametrize("begin", [b"", b"GET /healthz HTTP/1.1\r\nHost: a\r\nX: "])
def test_a_head_that_never_ends_is_cut_off(impatient: Tiny, begin: bytes) -> None:
    assert _trickled(impatient, begin) == b""


def test_a_body_that_never_ends_is_cut_off(impatient: Tiny) -> None:
    token = bearer()["Authorization"].encode()
    begin = (
        b"POST /v1/things HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
        b"Authorization: " + token + b"\r\nContent-Length: 60000\r\n\r\n{"
    )
    assert _trickled(impatient, begin).startswith(b"HTTP/1.1 408 ")


def test_a_handler_that_never_answers_is_not_waited_for(impatient: Tiny) -> None:
    document = problem(httpx.post(f"{impatient.url}/v1/fail/never"), 503)
    assert document["detail"].startswith("the answer takes too long")


def test_operations_answer_when_every_worker_is_busy(impatient: Tiny) -> None:
    for _ in range(120):
        with socket.create_connection(("127.0.0.1", impatient.port)) as connection:
            connection.sendall(
                b"POST /v1/fail/never HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"
            )
    assert httpx.get(f"{impatient.url}/healthz", timeout=2).status_code == 200
    problem(httpx.get(f"{impatient.url}/v1/tracking/a", timeout=5), 503)


@pytest.mark.parametrize("said", ["no", "raises", "hangs"])
def test_what_is_not_ready_is_named(impatient: Tiny, said: str) -> None:
    ready = impatient.log.parent / "ready"
    ready.write_text("yes")
    until(lambda: httpx.get(f"{impatient.url}/readyz").status_code == 200)
    ready.write_text(said)
    answer = httpx.get(f"{impatient.url}/readyz", timeout=5)
    document = problem(answer, 503)
    assert document["checks"] == {"thing": False, "another": True}
    assert document["detail"] == "not ready: thing is away"
    assert "secret" not in answer.text


def test_a_wrong_configuration_is_said_in_sentences() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "services.bus.run", "intake"],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(HERE.parent.parent)},
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert result.returncode == 2
    assert b"HTTP_BIND is not set: write host:port" in result.stderr
    assert b"Traceback" not in result.stderr
