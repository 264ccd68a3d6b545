"""What whoever sends rubbish is told: short enough that the broker takes it."""

from __future__ import annotations

import json
from itertools import product
from typing import Any

import pytest
from marshmallow import ValidationError

from services.bus.problems import of_validation
from services.grid.clock import FrozenClock
from services.grid.events.bindings import STRUCTURED, Incoming, of_amqp
from services.intake.door import Result, _refusal
from services.intake.inbound import TYPES

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
