"""Histories with all that can go wrong: drawn by hypothesis, which makes a failure short.

``make simulate`` plays many more, from seeds.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from tests.simulator import invariants
from tests.simulator.county import LEVELS
from tests.simulator.history import (
    ATLAS,
    HEADER,
    STEPS,
    WIDTH,
    Broken,
    History,
    Kind,
    of_seed,
    records,
)
from tests.simulator.shrinking import HEADERS, histories, holds
from tests.simulator.world import Step, World

HISTORIES = 10_000


@settings(max_examples=HISTORIES, deadline=None, suppress_health_check=list(HealthCheck))
@given(histories())
def test_every_history_holds(history: bytes) -> None:
    holds(history)


class _Machine(RuleBasedStateMachine):
    """The same steps as rules: hypothesis leaves whole kinds of steps out of some histories."""

    def __init__(self) -> None:
        super().__init__()
        self.history = History(bytes(HEADER))
        self._failed: Exception | None = None

    @initialize(header=HEADERS)
    def begin(self, header: bytes) -> None:
        self.history = History(header)

    def take(self, kind: Kind, choices: bytes) -> None:
        try:
            self.history.take(kind, choices)
        except Exception as error:
            self._failed = error
            raise

    def teardown(self) -> None:
        try:
            if self._failed is not None:
                raise self._failed
            self.history.end()
        except Exception as error:
            raise Broken(self.history.words, error) from error


def _rule(kind: Kind) -> Any:
    @rule(choices=st.binary(min_size=WIDTH - 1, max_size=WIDTH - 1))
    def step(self: _Machine, choices: bytes) -> None:
        self.take(kind, choices)

    return step


Machine = type("Machine", (_Machine,), {name: _rule(kind) for name, kind in STEPS.items()})
TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=200, stateful_step_count=50, deadline=None)


@pytest.mark.parametrize("seed", range(20))
def test_hypothesis_reads_the_bytes_of_a_seed_as_the_same_history(seed: int) -> None:
    read = []

    @given(histories())
    def reads(history: bytes) -> None:
        read.append(history)

    reads.hypothesis.fuzz_one_input(of_seed(seed))
    assert (read[0][:HEADER], records(read[0])) == (of_seed(seed)[:HEADER], records(of_seed(seed)))


@pytest.mark.parametrize("level", LEVELS)
def test_resolving_at_a_level_ends_the_case_there(level: str) -> None:
    world = World(ATLAS)
    world.report("case-1")
    world.settle()
    for below in LEVELS[: LEVELS.index(level)]:
        assert world.entries(below)
        world.clock.advance(4 * 3600)
        world.second()
        world.settle()
    assert world.act(level, world.entries(level)[0], "resolve")
    world.clock.advance(30 * 86400)
    world.second()
    world.settle()
    invariants.all_hold(world)
    assert world.nodes["intake"].store.documents()["case-1"]["state"]["address"]["level"] == level


@pytest.mark.parametrize("reader", [0, 1])
def test_custodians_whose_clocks_differ_both_fire_their_share(reader: int) -> None:
    """The slower one goes by its own markers, whoever reads them."""
    world = World(ATLAS, {"escalation": [300.0, 270.0]}, dead=LEVELS)
    for number in range(8):
        world.report(f"case-{number}")
    for _ in range(2 * len(LEVELS)):
        world.settle()
        world.clock.advance(6 * 3600)
        world.second(Step(replica=reader))
    world.settle()
    invariants.supervised(world)
    invariants.all_hold(world)
