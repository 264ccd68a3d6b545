"""Other systems on the broker: made by the command line, and able to do nothing but come in."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import amqp
import pytest
from kombu.connection import Connection

from services.bus import systems
from services.bus.topology import EVENTS, INBOUND, REPLIES
from tests.end_to_end.county import County, eventually

ROOT = Path(__file__).parents[2]


def huashi(county: County, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs the command on the county's stack."""
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "cli.main", "system", *arguments],
        cwd=ROOT,
        env={**os.environ, "RUN_DIR": str(county.stack.folder), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def told(county: County, *arguments: str) -> Any:
    done = huashi(county, *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


Uri = Callable[[str], str]


@pytest.fixture(scope="module")
def county(own_county: County) -> County:
    """It ends with this module, and what was imported with it."""
    return own_county


@pytest.fixture(scope="module")
def uri(county: County) -> Uri:
    """How a system of this name connects; it is made with all that belongs to it."""
    made: dict[str, str] = {}
    host = county.about["amqp"].rpartition("@")[2]

    def connects(name: str) -> str:
        if name not in made:
            account = told(county, "add", name, "--may", "case.report")["amqp"]
            made[name] = f"amqp://{account['user']}:{account['password']}@{host}"
        return made[name]

    return connects


def refused(uri: str, act: Callable[[Any], Any]) -> str:
    """Why the broker ends the channel or connection of who does this; empty if it does not."""
    with Connection(uri) as connection:
        try:
            channel: Any = connection.default_channel
            channel.confirm_select()
            act(channel)
        except amqp.exceptions.AMQPError as error:
            return str(error)
    return ""


def publish(key: str, exchange: str = INBOUND, **properties: Any) -> Callable[[Any], Any]:
    message = amqp.Message(b"{}", **properties)
    return lambda channel: channel.basic_publish_confirm(message, exchange, key)


def test_a_system_writes_under_its_own_name_and_reads_its_own_answers(uri: Uri) -> None:
    river, flood = uri("river"), uri("flood")
    assert not refused(river, publish("river.case.report"))
    assert not refused(river, lambda channel: channel.basic_get("system.river.replies"))
    assert not refused(river, publish("river.case.report", user_id="system.river"))
    assert not refused(flood, publish("flood.case.report"))


@pytest.mark.parametrize(
    "act",
    [
        pytest.param(publish("flood.case.report"), id="another's name"),
        pytest.param(publish("riverside.case.report"), id="a name that begins like its own"),
        pytest.param(publish("river"), id="no type"),
        pytest.param(publish("river.case.report", EVENTS), id="our events"),
        pytest.param(publish("case.reported.village.46", EVENTS), id="an event of intake's"),
        pytest.param(publish("river.accepted", REPLIES), id="an answer"),
        pytest.param(publish("parked.intake.events", "huashi.dead"), id="a dead letter"),
        pytest.param(publish("intake.inbound.river", ""), id="straight into a queue"),
        pytest.param(lambda channel: channel.queue_declare("mine"), id="a queue of its own"),
        pytest.param(
            lambda channel: channel.queue_declare("system.river.more"), id="a queue of its name"
        ),
        pytest.param(lambda channel: channel.exchange_declare("mine", "topic"), id="an exchange"),
        pytest.param(
            lambda channel: channel.queue_bind("system.river.replies", REPLIES, "#"),
            id="the answers to others",
        ),
        pytest.param(
            lambda channel: channel.queue_bind("system.river.replies", EVENTS, "#"),
            id="all our events",
        ),
        pytest.param(
            lambda channel: channel.queue_delete("system.river.replies"), id="to delete its queue"
        ),
        pytest.param(
            lambda channel: channel.basic_get("system.flood.replies"), id="another's answers"
        ),
        pytest.param(
            lambda channel: channel.basic_get("intake.inbound.river"), id="what it sent itself"
        ),
        pytest.param(lambda channel: channel.basic_get("intake.events"), id="a service's queue"),
    ],
)
def test_a_system_is_refused(uri: Uri, act: Callable[[Any], Any]) -> None:
    uri("flood")
    assert "ACCESS_REFUSED" in refused(uri("river"), act)


def test_who_it_is_can_not_be_forged(uri: Uri) -> None:
    why = refused(uri("river"), publish("river.case.report", user_id="system.flood"))
    assert "PRECONDITION_FAILED" in why
    assert "user_id" in why


def test_it_has_so_many_connections_and_channels(uri: Uri) -> None:
    open_ = []
    try:
        with pytest.raises((amqp.exceptions.AMQPError, OSError)):
            for _ in range(systems.MAX_CONNECTIONS + 1):
                open_.append(Connection(uri("river"), connect_timeout=5))
                open_[-1].connect()
        assert len(open_) == systems.MAX_CONNECTIONS + 1
    finally:
        for connection in open_:
            connection.release()

    def many(channel: Any) -> None:
        for _ in range(systems.MAX_CHANNELS + 1):
            channel.connection.channel()

    # The broker counts a connection as gone a moment after it is.
    eventually("the limit of channels", lambda: "channel" in _why(uri("flood"), many))


def _why(uri: str, act: Callable[[Any], Any]) -> str:
    try:
        return refused(uri, act)
    except OSError as error:
        return str(error)


def test_its_queue_takes_so_much_and_no_more(county: County, uri: Uri) -> None:
    uri("river")
    for queue in systems.queues("river"):
        assert queue.arguments["x-max-length"] == systems.WAITING
    with Connection(county.about["amqp"]) as connection:
        # Declared again with the same arguments, or the broker would refuse it.
        for queue in systems.queues("river"):
            connection.default_channel.queue_declare(
                queue.name, durable=True, auto_delete=False, arguments=queue.arguments
            )


def test_it_is_listed_rotated_and_removed(county: County) -> None:
    host = county.about["amqp"].rpartition("@")[2]
    first = told(county, "add", "patrol", "--may", "case.report,case.withdraw", "--division",
                 "469002104", "--rate", "5")  # fmt: skip
    assert first["key"].startswith("hk_patrol_")
    # Again: nothing is shown that was shown already, and what it has still works.
    again = told(county, "add", "patrol", "--may", "case.report")
    assert (again["key"], again["amqp"]["password"]) == (None, None)
    listed = {each["name"]: each for each in told(county, "list")}
    assert listed["patrol"]["may"] == ["case.report"]
    assert first["key"] not in json.dumps(listed)

    def connects(found: dict[str, Any]) -> bool:
        account = found["amqp"]
        uri = f"amqp://{account['user']}:{account['password']}@{host}"
        try:
            return not refused(uri, publish("patrol.case.report"))
        except OSError:
            return False

    assert connects(first)
    second = told(county, "rotate", "patrol")
    assert second["key"] != first["key"]
    assert connects(second)
    assert not connects(first)
    assert told(county, "remove", "patrol")["removed"] is True
    assert not connects(second)
    with Connection(county.about["amqp"]) as connection:
        for queue in systems.queues("patrol"):
            with pytest.raises(amqp.exceptions.NotFound):
                connection.channel().queue_declare(queue.name, passive=True)
    assert huashi(county, "remove", "patrol").returncode == 4
    assert huashi(county, "add", "No-Word", "--may", "case.report").returncode == 1
    unlisted = huashi(county, "add", "patrol", "--may", "case.reported")
    assert unlisted.returncode == 1
    assert "case.report" in unlisted.stderr


def test_reports_are_imported_in_bulk_and_again(county: County, tmp_path: Path) -> None:
    key = told(county, "add", "old_system", "--may", "case.report", "--rate", "80")["key"]
    lines = [
        {
            "reference": f"OLD-{number}",
            "division": "46900210421403007",
            "title": f"旧系统第 {number} 件",
            "category": "facility",
            "urgency": "ordinary",
            "source": "app",
        }
        for number in range(250)
    ]
    lines[7]["category"] = "magic"
    texts = [json.dumps(line, ensure_ascii=False) for line in lines]
    texts[9:9] = ["{not json", "", json.dumps({**lines[0], "description": "x" * 70_000})]
    file, results = tmp_path / "old.ndjson", tmp_path / "results.ndjson"
    file.write_text("\n".join(texts) + "\n", encoding="utf-8")

    def run(key: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*(sys.executable, "-W", "ignore", "-m", "cli.main", "import", str(file)),
             *("--system", "old_system", "--results", str(results), "--json")],
            cwd=ROOT,
            env={
                **os.environ,
                "RUN_DIR": str(county.stack.folder),
                "PYTHONPATH": str(ROOT),
                "HUASHI_API_KEY": key,
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )  # fmt: skip

    first = run(key)
    assert first.returncode == 1, first.stderr
    assert json.loads(first.stdout) == {"lines": 252, "accepted": 249, "rejected": 3}
    said = [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()]
    assert [each["line"] for each in said if "why" in each] == [8, 10, 12]
    assert len({each["case"] for each in said if "case" in each}) == 249
    assert run(key).stdout == first.stdout
    assert [json.loads(line) for line in results.read_text().splitlines()] == said
    wrong = run("hk_old_system_" + "0" * 64)
    assert wrong.returncode == 1
    assert "not known" in wrong.stderr
