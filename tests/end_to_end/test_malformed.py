"""Malformed inputs over both doors; ``make malformed`` sends a million."""

from __future__ import annotations

import re
from pathlib import Path
from random import Random

import httpx
import pytest
from rich.console import Console
from rich.progress import Progress

from cli.client import Client
from cli.stack import find_stack
from tests.end_to_end.county import County
from tests.malformed.__main__ import send, through
from tests.malformed.doors import OverHttp, Pot, Services, Unanswered
from tests.malformed.making import Input, malformed


def test_every_input_is_answered_and_no_good_report_is_lost(own_county: County) -> None:
    folder = own_county.stack.folder
    client = Client(find_stack({"RUN_DIR": str(folder)}, Path(folder)))
    with Progress(console=Console(quiet=True)) as bars:
        said = send(own_county.about, client, 3000, 4711, bars)
    found = re.findall(r"(\w+): (\d+) inputs, (\d+) good reports accepted, .*'rejected'", said)
    http, amqp = ({"inputs": int(sent), "good": int(good)} for _, sent, good in found)
    assert http["inputs"] + amqp["inputs"] == 3000, said
    assert http["inputs"] >= 300 <= amqp["inputs"], said
    assert http["good"] >= http["inputs"] // 109, said
    assert amqp["good"] >= amqp["inputs"] // 50, said


@pytest.mark.parametrize("inputs", [0, 1, 9, 10, 11, 1000])
def test_each_door_has_its_own_tenth_and_no_input_is_lost(inputs: int) -> None:
    pot = Pot(inputs)
    while pot.take("HTTP", 7):
        pass
    while pot.take("AMQP", 7):
        pass
    assert sum(pot.taken.values()) == inputs
    assert pot.taken["AMQP"] == inputs // 10


def test_when_one_door_goes_wrong_the_other_ends() -> None:
    pot = Pot(1000)
    # Nobody listens there.
    door = OverHttp({"intake": "http://127.0.0.1:1"}, "poster", "key", "46900210421403007")
    with pytest.raises(httpx.ConnectError):
        through(door, pot, 1, lambda _done: None)
    assert pot.taken["HTTP"] > 0 == pot.take("AMQP", 50)


def test_a_seed_makes_the_same_inputs_again() -> None:
    def made(seed: int) -> list[Input]:
        random = Random(seed)
        return [malformed(random, "hotline") for _ in range(100)]

    assert made(1) == made(1) != made(2)


def test_a_service_that_was_started_anew_is_noticed(own_county: County) -> None:
    services = Services(own_county.about)
    services.must_be_well()
    services._before = {**services._before, "intake": ["process_start_time_seconds 1.0"]}
    with pytest.raises(Unanswered, match="before"):
        services.must_be_well()
