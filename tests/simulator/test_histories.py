"""Random histories with reordering, duplicates, crashes at every seam and dead desks."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.simulator import invariants
from tests.simulator.county import LEVELS, atlas
from tests.simulator.world import World

ATLAS = atlas()
SKIPPING = atlas(unstaffed="skip")


def history(world: World, random: Random, steps: int, dead: tuple[str, ...] = ()) -> None:
    """Anything may happen, in any order."""
    cases = 0
    alive = [node for name, node in world.nodes.items() if name not in dead]
    for _ in range(steps):
        what = random.randrange(10)
        if what == 0 and cases < 4:
            cases += 1
            world.report(f"case-{cases}", random.choice(["ordinary", "urgent"]))
        elif what <= 4:
            world.deliver(random.choice(alive))
        elif what == 5:
            world.clock.advance(random.choice([1, 60, 3600, 7200, 4 * 3600, 3 * 86400]))
        elif what == 6:
            world.fire()
        elif what == 7:
            world.sweep(random.choice(alive))
        else:
            level = random.choice([name for name in LEVELS if name not in dead] or LEVELS)
            entries = world.entries(level)
            if entries:
                world.act(level, random.choice(entries), random.choice(["acknowledge", "resolve"]))
    if not cases:
        world.report("case-1")


SEEDS = st.integers(0, 2**32)


@settings(max_examples=2000, deadline=None)
@given(seed=SEEDS, steps=st.integers(5, 100), skip=st.booleans())
def test_services_agree_once_the_bus_is_quiet(seed: int, steps: int, skip: bool) -> None:
    random = Random(seed)
    world = World(
        random,
        SKIPPING if skip else ATLAS,
        crashes=random.choice([0.0, 0.05, 0.3]),
        rivals=random.choice([0.0, 0.3]),
    )
    history(world, random, steps)
    world.settle()
    invariants.all_hold(world)


@settings(max_examples=300, deadline=None)
@given(seed=SEEDS)
def test_dead_desks_hold_nothing_up(seed: int) -> None:
    random = Random(seed)
    world = World(random, ATLAS, crashes=0.1)
    history(world, random, steps=30, dead=LEVELS)
    world.seams.probability = 0.0
    for _ in range(20):
        world.settle(dead=LEVELS)
        world.clock.advance(6 * 3600)
        world.fire()
    world.settle(dead=LEVELS)
    for case in world.nodes["intake"].store.documents():
        invariants.supervised(world, case)
    invariants.all_hold(world, dead=LEVELS)


@settings(max_examples=300, deadline=None)
@given(seed=SEEDS)
def test_a_desk_that_comes_back_ends_its_stale_entries(seed: int) -> None:
    random = Random(seed)
    dead = (random.choice(LEVELS),)
    world = World(random, ATLAS, crashes=0.1)
    history(world, random, steps=60, dead=dead)
    world.settle(dead=dead)
    world.settle()
    invariants.all_hold(world)


@pytest.mark.parametrize("level", LEVELS)
def test_resolving_at_a_level_ends_the_case_there(level: str) -> None:
    world = World(Random(1), ATLAS)
    world.report("case-1")
    world.settle()
    for below in LEVELS[: LEVELS.index(level)]:
        assert world.entries(below)
        world.clock.advance(4 * 3600)
        world.fire()
        world.settle()
    assert world.act(level, world.entries(level)[0], "resolve")
    world.clock.advance(30 * 86400)
    world.fire()
    world.settle()
    invariants.all_hold(world)
    assert world.nodes["intake"].store.documents()["case-1"]["state"]["address"]["level"] == level
