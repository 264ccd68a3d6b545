"""What whoever sends rubbish is told: short enough that the broker takes it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import product
from types import SimpleNamespace
from typing import Any, cast

import pytest
from marshmallow import ValidationError

from services.bus.errors import Reject
from services.bus.fold import Decision, Outcome, Work
from services.bus.problems import of_validation
from services.grid.clock import FrozenClock
from services.grid.events.bindings import STRUCTURED, Incoming, of_amqp
from services.intake.door import FrontDoor, Result, _refusal
from services.intake.inbound import TYPES, Task

NOW = FrozenClock().now()
REPORT = TYPES["huashi.case.report.v1"]
NAMES = ["".join(letters) for letters in product("abcdefghijklmnopqrstuvwxyz", repeat=3)][:7000]


@pytest.mark.parametrize("data", [{"attachments": [{}] * 20_000}, dict.fromkeys(NAMES, 0)])
def test_an_event_full_of_errors_gets_a_short_answer(data: dict[str, Any]) -> None:
    sent = {"specversion": "1.0", "id": "1", "source": "mad", "type": REPORT.full_name}
    event = of_amqp(
        STRUCTURED, {}, json.dumps({**sent, "data": data}, separators=(",", ":")).encode()
    )
    assert isinstance(event, Incoming), event
    with pytest.raises(ValidationError) as raised:
        REPORT.loader.load(event.data)
    refusal = _refusal(of_validation(raised.value, REPORT.loader))
    _, answer = Result(event, refusal=refusal).reply("mad", NOW)
    assert len(answer.body()) < 64 * 1024
    assert len(refusal.errors) == 101
    assert "more errors" in refusal.errors["more"]


class OddFold:
    """A fold whose database takes nothing of a step in which one document can't be kept."""

    def run(self, works: Sequence[Work]) -> list[Outcome]:
        if any(work.key == "odd" for work in works):
            raise Reject("unstorable", "MongoDB can't keep this document")
        return [Outcome(document={"case": work.key}) for work in works]


def test_what_the_database_can_not_keep_takes_no_other_along() -> None:
    door = FrontDoor(cast("Any", SimpleNamespace(fold=OddFold())))
    cases = ("a", "odd", "b")
    tasks = {
        (0, at): Task(key, Work(key, lambda _: Decision(None))) for at, key in enumerate(cases)
    }
    found = door._run(tasks)
    assert [outcome.document for outcome in found.values()] == [{"case": "a"}, None, {"case": "b"}]
    assert isinstance(found[0, 1].error, Reject)
