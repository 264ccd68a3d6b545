"""Closing what nobody answered (销号), on MongoDB and RabbitMQ: several processes, and a batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from cryptography.fernet import Fernet

from services.bus import topology
from services.bus.config import Config
from services.bus.consumer import Batch
from services.bus.fold import Work
from services.grid.clock import FrozenClock, Instant, ScaledClock, plus
from services.grid.events import Event
from services.intake import closing
from services.intake import shell as intake_shell
from services.intake.feedback import give
from services.intake.model import open_case
from services.intake.shell import IntakeShell

QUICK = Path(__file__).parents[1] / "end_to_end" / "quick"
GRID = "46900210421403007"
LEVELS = ("household", "group", "village", "township")
DAY = 86400.0
REPORT = {
    "title": "路灯不亮",
    "category": "facility",
    "urgency": "ordinary",
    "source": "app",
    "digest": "d",
    "reporter": None,
}


@pytest.fixture
def make(
    database: Any, mongo: Any, vhost_uri: str, clock: FrozenClock
) -> Iterator[Callable[[], IntakeShell]]:
    """Processes of intake on one database, in a time that stands still."""
    topology.declare(vhost_uri, LEVELS)
    made: list[IntakeShell] = []

    def one() -> IntakeShell:
        environment = {
            "AMQP_URI": vhost_uri,
            "MONGODB_URI": mongo.uri(database.name),
            "HTTP_BIND": "127.0.0.1:8000",
            "TOKEN_KEY": "k" * 64,
            "SEAL_KEY": Fernet.generate_key().decode(),
            "PROFILES": str(QUICK),
        }
        config = Config.from_environment("intake", environment)
        made.append(IntakeShell(replace(config, clock=cast(ScaledClock, clock))))
        made[-1].until_prepared()
        return made[-1]

    yield one
    for shell in made:
        shell.close()


def resolved(intake: IntakeShell, count: int) -> list[str]:
    """Cases that were reported and resolved, as the register hears of it."""
    atlas, now = intake.county.atlas(), intake.now
    place = atlas.directory.known(GRID)
    cases = [f"case-{number}" for number in range(count)]

    def opens(case: str) -> Work:
        return Work(
            case,
            lambda record: open_case(
                record.document,
                case,
                REPORT,
                place,
                certain=True,
                profile=atlas.current[0],
                atlas=atlas,
                now=now,
            ),
        )

    documents = [outcome.result() for outcome in intake.fold.run([opens(case) for case in cases])]
    events = [resolution(document, now) for document in documents]
    intake.absorb(Batch(events, lambda _outcomes: None, lambda: False))
    return cases


def resolution(document: dict[str, Any], now: Instant) -> Event:
    said = {"outcome": "settled", "note": "", "by": "h-1", "at": now}
    token = {**document["state"]["token"], "stage": "resolved", "seq": 1}
    state = {**document["state"], "token": token, "deadlines": [], "resolution": said}
    return Event(
        id=f"resolution of {document['case']}",
        type="case.resolved",
        subject=document["case"],
        time=now,
        source="huashi/dispatch/household",
        data={"case": document["facts"], "state": state},
    )


def statuses(intake: IntakeShell, cases: list[str]) -> set[str]:
    return {
        record.document["status"] for record in intake.store.read(cases).values() if record.document
    }


def unpublished(database: Any, kind: str) -> list[str]:
    """Cases whose event of a type is not confirmed yet."""
    return [raw["_id"] for raw in database["register"].find({"unpublished.event.type": kind})]


def test_two_processes_close_what_is_due_once_and_nothing_else(
    make: Callable[[], IntakeShell],
    database: Any,
    clock: FrozenClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(intake_shell, "BATCH", 20)
    one, two = make(), make()
    cases = resolved(one, 50)
    assert one.store.next_due() == plus(clock.now(), 10 * DAY)
    answered, reopened = cases[0], cases[1]
    for case, satisfied in ((answered, True), (reopened, False)):
        said = {"satisfied": satisfied, "score": None, "comment": ""}

        def change(record: Any, said: dict[str, Any] = said) -> Any:
            return give(record.document, said, "lead", atlas=one.county.atlas(), now=one.now)

        one.fold.run([Work(case, change)])[0].result()
    clock.advance(10 * DAY - 1)
    assert 0 < one.close_unanswered() <= 1
    assert statuses(one, cases[2:]) == {"resolved"}
    clock.advance(1)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda shell: [shell.close_unanswered() for _ in range(6)], [one, two]))
    assert statuses(one, cases[2:]) == {"closed"}
    assert statuses(one, [answered]) == {"closed"}
    assert statuses(one, [reopened]) == {"acknowledged"}
    assert two.store.next_due() is None
    # Each was written once for it: reported, resolved, closed.
    revisions = {record.revision for record in one.store.read(cases[2:]).values()}
    assert revisions == {3}
    documents = [record.document or {} for record in one.store.read(cases[2:]).values()]
    assert {document["closed"]["why"] for document in documents} == {"unanswered"}
    # All went out, with confirms.
    one.fold.sweep(-1e9)
    assert unpublished(database, "case.closed") == []


def test_one_that_can_not_be_closed_takes_no_other_along(
    make: Callable[[], IntakeShell], clock: FrozenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    intake = make()
    cases = resolved(intake, 5)
    close = closing.close

    def fails(document: Any, why: str, **more: Any) -> Any:
        if document["case"] == cases[2]:
            raise KeyError("a defect")
        return close(document, why, **more)

    monkeypatch.setattr(closing, "close", fails)
    clock.advance(10 * DAY)
    intake.close_unanswered()
    assert statuses(intake, [case for case in cases if case != cases[2]]) == {"closed"}
    assert intake.store.next_due() == plus(clock.now(), closing.LATER_SECONDS)
    monkeypatch.setattr(closing, "close", close)
    clock.advance(closing.LATER_SECONDS)
    intake.close_unanswered()
    assert statuses(intake, cases) == {"closed"}


def test_what_is_due_is_found_by_an_index(make: Callable[[], IntakeShell], database: Any) -> None:
    intake = make()
    resolved(intake, 3)
    where = {"document.close_due": {"$lte": plus(intake.now, 20 * DAY)}}
    plan = database["register"].find(where).sort("document.close_due").explain()
    assert "IXSCAN" in str(plan["queryPlanner"]["winningPlan"])
    assert "COLLSCAN" not in str(plan["queryPlanner"]["winningPlan"])
    shown = {
        "document.under": {"$eq": GRID[:12], "$nin": []},
        "document.state.resolution.at": {"$gte": "2026"},
    }
    order = [("document.state.resolution.at", -1), ("_id", -1)]
    plan = database["register"].find(shown).sort(order).explain()
    assert "SORT'" not in str(plan["queryPlanner"]["winningPlan"])
    assert "IXSCAN" in str(plan["queryPlanner"]["winningPlan"])
