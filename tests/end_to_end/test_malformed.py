"""Malformed inputs over both doors; ``make malformed`` sends a million."""

from __future__ import annotations

import re
from pathlib import Path
from random import Random

import pytest
from rich.console import Console
from rich.progress import Progress

from cli.client import Client
from cli.stack import find_stack
from tests.end_to_end.county import County
from tests.malformed.__main__ import send
from tests.malformed.doors import Services, Unanswered
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
