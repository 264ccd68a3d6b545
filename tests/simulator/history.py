"""A history is a row of bytes: what happens, step by step, and nothing besides is random.

The first ``HEADER`` bytes say what the world is like, then each ``WIDTH`` bytes are one step.
The same bytes come from a seed, when many histories are wanted, and from hypothesis, that
makes a history which goes wrong shorter and simpler: a smaller byte is always the tamer choice.

A new kind of step is a function of :data:`STEPS`; a new action of a desk only needs a line in
:data:`tests.simulator.world.ACTIONS`.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from random import Random
from typing import NamedTuple

from services.grid.events.asks import ACTS as SYSTEM_ACTS
from tests.simulator import invariants
from tests.simulator.county import LEVELS, SHORTER, STEPS, SWITCHED, atlas, with_successor
from tests.simulator.nodes import REPLICAS
from tests.simulator.world import ACTIONS, NODES, Step, World

ATLAS = with_successor(atlas())
SKIPPING = with_successor(atlas(unstaffed="skip", reopening=SHORTER))
# Few cases of a history come up to the township.
STEPPED = with_successor(
    atlas(**{**STEPS, "authority": {"level": "village", "source": "assumption"}})
)

HEADER = 3 + REPLICAS * len(NODES)
WIDTH = 10
LONGEST = 100
"""Steps in a history at the most."""
CASES = 4
"""Cases in a history at the most."""
ENDS = 4
"""A step whose first byte is below this ends the history: they have 50 steps on average."""

_SKEWS = (*[0.0] * 8, 1.0, -1.0, 30.0, -30.0, 90.0, -90.0, 300.0, -300.0)
_APART = (*[0.0] * 8, 1.0, -1.0, 5.0, -5.0, 20.0, -20.0, 30.0, -30.0)
_WAITS = (3600, 7200, 4 * 3600, 12 * 3600, 600, 60, 1, 3 * 86400)
_LIVES = 160
_SEAMS = 16
_LOSES_LAST = 240
_RIVAL = 192
_DEAD_FOR = 6 * 3600


class Choices:
    """Bytes as choices; when they are used up, the first of everything is chosen."""

    def __init__(self, data: bytes) -> None:
        self._data = iter(data)

    def byte(self) -> int:
        """The next byte."""
        return next(self._data, 0)

    def pick(self, count: int) -> int:
        """One of so many, 0 being the tamest."""
        return self.byte() % count


def world_of(header: bytes) -> World:
    """The world before anything happens: its profile, its clocks, which desks are dead."""
    choices = Choices(header)
    profile = (ATLAS, ATLAS, STEPPED, SKIPPING)[choices.pick(4)]
    dead = _dead(choices.byte())
    return World(profile, {name: _clocks(choices) for name in NODES}, dead)


def order_of(header: bytes) -> Callable[[int], int]:
    """In which order messages are read once nothing goes wrong any more."""
    seed = header[-1]
    if seed == 0:
        return lambda _count: 0
    return Random(seed).randrange


def _dead(byte: int) -> tuple[str, ...]:
    if byte < 192:
        return ()
    return LEVELS if byte >= 224 else (LEVELS[byte % len(LEVELS)],)


def _clocks(choices: Choices) -> list[float]:
    machine = _SKEWS[choices.pick(len(_SKEWS))]
    return [machine, machine + _APART[choices.pick(len(_APART))]]


def _report(world: World, choices: Choices, step: Step) -> str | None:
    cases = len(world.nodes["intake"].store.documents())
    if cases >= CASES:
        return None
    urgency = ("ordinary", "urgent")[choices.pick(2)]
    category = ("facility", "facility", "order")[choices.pick(3)]
    promised = (None, None, 6 * 3600.0, 30 * 3600.0)[choices.pick(4)]
    case = f"case-{cases + 1}"
    world.report(case, urgency, step=step, category=category, promised=promised)
    more = f", promised in {promised:.0f} s" if promised else ""
    return f"{case} is reported, {urgency}, {category}{more}"


def _read(world: World, choices: Choices, step: Step) -> str | None:
    waiting = [node for node in world.alive if node.queue and world.reachable(node)]
    if not waiting:
        return None
    node = waiting[choices.pick(len(waiting))]
    again = choices.pick(8) == 7
    most = 1 + choices.pick(3)
    events = world.read(node, choices.pick, most, step, again=again)
    read = ", ".join(f"{event.type} ({event.subject[:6]})" for event in events)
    return f"{node.name} reads {read}" + (", and will once more" if again else "")


def _act(world: World, choices: Choices, step: Step) -> str | None:
    held = {level: entries for level in LEVELS if (entries := world.entries(level))}
    levels = [level for level in held if level not in world.dead]
    if not levels:
        return None
    level = levels[choices.pick(len(levels))]
    entry = held[level][choices.pick(len(held[level]))]
    action = list(ACTIONS)[choices.pick(len(ACTIONS))]
    world.act(level, entry, action, step)
    return f"{level}: {action} {entry}"


def _answer(world: World, choices: Choices, step: Step) -> str | None:
    asked = {level: keys for level in LEVELS if (keys := world.asked(level))}
    levels = [level for level in asked if level not in world.dead]
    if not levels:
        return None
    level = levels[choices.pick(len(levels))]
    key = asked[level][choices.pick(len(asked[level]))]
    granted = choices.pick(4) != 3
    world.answer(level, key, granted=granted, step=step)
    return f"{level} {'grants' if granted else 'refuses'} {key}"


def _answer_call(world: World, choices: Choices, step: Step) -> str | None:
    called = {level: keys for level in LEVELS if (keys := world.calls(level))}
    levels = [level for level in called if level not in world.dead]
    if not levels:
        return None
    level = levels[choices.pick(len(levels))]
    key = called[level][choices.pick(len(called[level]))]
    what = ("check_in", "finish")[choices.pick(2)]
    world.answer_call(level, key, what, step)
    return f"a unit of the {level}: {what} {key}"


def _reopen(world: World, choices: Choices, step: Step) -> str | None:
    documents = world.nodes["intake"].store.documents()
    ended = [case for case, item in documents.items() if item["status"] in ("resolved", "closed")]
    if not ended:
        return None
    case = ended[choices.pick(len(ended))]
    world.reopen(case, step)
    return f"{case} is reopened"


def _feedback(world: World, choices: Choices, step: Step) -> str | None:
    documents = world.nodes["intake"].store.documents()
    ended = [case for case, item in documents.items() if item["status"] in ("resolved", "closed")]
    if not ended:
        return None
    case = ended[choices.pick(len(ended))]
    satisfied = choices.pick(2) == 1
    world.feedback(case, satisfied=satisfied, step=step)
    return f"who reported {case} is {'satisfied' if satisfied else 'not satisfied'}"


def _withdraw(world: World, choices: Choices, step: Step) -> str | None:
    cases = list(world.nodes["intake"].store.documents())
    if not cases:
        return None
    case = cases[choices.pick(len(cases))]
    world.withdraw(case, step)
    return f"{case} is withdrawn"


def _update(world: World, choices: Choices, step: Step) -> str | None:
    cases = list(world.nodes["intake"].store.documents())
    if not cases:
        return None
    case, number = cases[choices.pick(len(cases))], choices.pick(3)
    world.update(case, number, step)
    return f"more is known of {case}, {number}"


def _ask(world: World, choices: Choices, step: Step) -> str | None:
    known = world.of_units()
    if not known:
        return None
    of = known[choices.pick(len(known))]
    act, number = SYSTEM_ACTS[choices.pick(len(SYSTEM_ACTS))], choices.pick(3)
    # Few units are called: then their systems mostly say that they have come.
    if world.is_called(*of) and choices.pick(4) < 3:
        act = "check_in"
    world.ask(of, act, number, step)
    return f"the system of {of[1]}: {act} {of[0]}, {number}"


def _close(world: World, _choices: Choices, step: Step) -> str | None:
    looked = world.close(step)
    return f"intake closes {looked} cases that nobody answered" if looked else None


def _migrate(world: World, choices: Choices, step: Step) -> str | None:
    documents = world.nodes["escalation"].store.documents()
    if not documents:
        return None
    case = list(documents)[choices.pick(len(documents))]
    held = documents[case]["facts"]["profile"]
    (version,) = [name for name in world.atlas.profiles if name != held]
    return f"{case} is brought under {version}" if world.migrate(case, version, step) else None


def _switch(world: World, choices: Choices, _step: Step) -> str:
    division = SWITCHED[choices.pick(len(SWITCHED))]
    return f"emergency mode of {division} is {'on' if world.switch(division) else 'off'}"


def _hear(world: World, choices: Choices, step: Step) -> str | None:
    node = world.alive[choices.pick(len(world.alive))]
    heard = node.replicas[step.replica].county.hear()
    return f"{node.name} hears of the directory" if heard else None


def _follow(world: World, _choices: Choices, step: Step) -> str | None:
    looked = world.follow(step)
    return f"the custodian brings {looked} cases over" if looked else None


def _supervise(world: World, choices: Choices, step: Step) -> str | None:
    documents = world.nodes["escalation"].store.documents()
    if not documents:
        return None
    case = list(documents)[choices.pick(len(documents))]
    world.supervise(case, step)
    return f"the county wants {case} to be supervised"


def _two(cases: Sequence[str], choices: Choices) -> tuple[str, str]:
    """Two of these cases, in either order."""
    first = choices.pick(len(cases))
    second = (first + 1 + choices.pick(len(cases) - 1)) % len(cases)
    return cases[first], cases[second]


def _merge(world: World, choices: Choices, step: Step) -> str | None:
    known = list(world.nodes["escalation"].store.documents())
    if len(known) < 2:
        return None
    one, other = _two(known, choices)
    world.merge((one, other), step)
    return f"{one} is merged with {other}"


def _link(world: World, choices: Choices, step: Step) -> str | None:
    known = list(world.nodes["intake"].store.documents())
    if len(known) < 2:
        return None
    one, other = _two(known, choices)
    on = choices.pick(3) != 2
    world.link((one, other), on=on, step=step)
    return f"{one} is {'linked with' if on else 'no longer linked with'} {other}"


def _watch(world: World, choices: Choices, step: Step) -> str | None:
    known = list(world.nodes["intake"].store.documents())
    if not known:
        return None
    case = known[choices.pick(len(known))]
    watcher, away = f"officer:v-{1 + choices.pick(2)}", choices.pick(3) == 2
    world.watch(case, watcher, away=away, step=step)
    return f"{watcher} {'leaves' if away else 'watches'} {case}"


def _wait(world: World, choices: Choices, _step: Step) -> str:
    seconds = _WAITS[choices.pick(len(_WAITS))]
    return f"{seconds} s pass: it is {world.clock.advance(seconds)}"


def _second(world: World, _choices: Choices, step: Step) -> str:
    world.second(step)
    return "the custodians send markers, one reads the queue to its end, both fire"


def _beat(world: World, _choices: Choices, step: Step) -> str:
    world.beat(step)
    return "the custodian sends a marker"


def _fire(world: World, choices: Choices, step: Step) -> str | None:
    looked = world.fire(step, alone=choices.pick(2) == 1)
    return f"the custodian fires what is due of {looked} cases" if looked else None


def _sweep(world: World, choices: Choices, step: Step) -> str | None:
    node = world.alive[choices.pick(len(world.alive))]
    count = world.sweep(node, step)
    return f"{node.name} sweeps: {count} published" if count or step.failed else None


def _cut(world: World, choices: Choices, _step: Step) -> str:
    node = world.nodes[NODES[choices.pick(len(NODES))]]
    node.cut = True
    return f"{node.name} is cut off from the broker"


def _database(world: World, choices: Choices, _step: Step) -> str:
    node = world.nodes[NODES[choices.pick(len(NODES))]]
    node.store.away = True
    return f"the database of {node.name} is away"


def _broker(world: World, _choices: Choices, _step: Step) -> str:
    world.broker_away = True
    return "the broker is away"


def _repair(world: World, _choices: Choices, _step: Step) -> str | None:
    return "all that was away is back" if world.repair() else None


class Kind(NamedTuple):
    """A kind of step: how often it comes, and what it does; it says so, or that it can't."""

    weight: int
    run: Callable[[World, Choices, Step], str | None]


STEPS: dict[str, Kind] = {
    "report": Kind(12, _report),
    "read": Kind(54, _read),
    "act": Kind(41, _act),
    "ask": Kind(3, _ask),
    "answer": Kind(8, _answer),
    "answer_call": Kind(7, _answer_call),
    "reopen": Kind(4, _reopen),
    "feedback": Kind(10, _feedback),
    "withdraw": Kind(1, _withdraw),
    "update": Kind(2, _update),
    "close": Kind(4, _close),
    "migrate": Kind(4, _migrate),
    "supervise": Kind(4, _supervise),
    "merge": Kind(6, _merge),
    "link": Kind(1, _link),
    "watch": Kind(1, _watch),
    "switch": Kind(5, _switch),
    "hear": Kind(8, _hear),
    "follow": Kind(4, _follow),
    "wait": Kind(22, _wait),
    "second": Kind(16, _second),
    "beat": Kind(3, _beat),
    "fire": Kind(9, _fire),
    "sweep": Kind(9, _sweep),
    "cut": Kind(3, _cut),
    "database": Kind(3, _database),
    "broker": Kind(2, _broker),
    "repair": Kind(6, _repair),
}
_WHEEL = [kind for kind in STEPS.values() for _ in range(kind.weight)]
if len(_WHEEL) > 256 - ENDS:
    raise ValueError(f"the weights are {len(_WHEEL)} in all: make some less, for a byte picks one")


class History:
    """One history as it goes; ``words`` tell it."""

    def __init__(self, header: bytes) -> None:
        self.world = world_of(header)
        self._order = order_of(header)
        self.words: list[str] = []
        self._tell_world()

    def step(self, record: bytes) -> None:
        """What the bytes of one step say happens."""
        self.take(_WHEEL[(record[0] - ENDS) % len(_WHEEL)], record[1:])

    def take(self, kind: Kind, choices: bytes) -> None:
        """A step of this kind; the bytes say how it goes."""
        rest = Choices(choices)
        replica, fate, rival = rest.pick(REPLICAS), rest.byte(), rest.byte() >= _RIVAL
        step = Step(replica=replica, rival=rival)
        if fate >= _LOSES_LAST:
            step.loses_last = True
        elif fate >= _LIVES:
            step.seam = 1 + (fate - _LIVES) % _SEAMS
        said = kind.run(self.world, rest, step)
        if said is not None:
            second = " [second process]" if replica else ""
            self.words.append("; ".join([said + second, *dict.fromkeys(step.said)]))

    @property
    def cases(self) -> int:
        """How many cases were reported in it."""
        return len(self.world.nodes["intake"].store.documents())

    def end(self) -> None:
        """What must hold of it once the bus is quiet, with the dead desks dead and alive."""
        world = self.world
        world.repair()
        if not self.cases:
            world.report("case-1")
            self.words.append("case-1 is reported, ordinary")
        self.words.append("all is repaired, swept and read, until the bus is quiet")
        world.settle(self._order)
        invariants.all_hold(world)
        if set(LEVELS) <= set(world.dead):
            self._wait_in_vain()
        if world.dead:
            world.dead = ()
            self.words.append("the dead desks are back")
            world.settle(self._order)
            invariants.all_hold(world)

    def _wait_in_vain(self) -> None:
        """No desk lives: with time every case is at the last level and told upwards."""
        self.words.append("days pass, and no desk lives")
        for _ in range(2 * len(LEVELS)):
            self.world.clock.advance(_DEAD_FOR)
            self.world.second()
            self.world.settle(self._order)
        invariants.supervised(self.world)
        invariants.all_hold(self.world)

    def _tell_world(self) -> None:
        clocks = {
            name: [replica.ahead for replica in node.replicas]
            for name, node in self.world.nodes.items()
        }
        skewed = [f"{name} {ahead}" for name, ahead in clocks.items() if any(ahead)]
        if skewed:
            self.words.append(f"clocks ahead by seconds: {', '.join(skewed)}")
        if self.world.dead:
            self.words.append(f"dead desks: {', '.join(self.world.dead)}")
        if self.world.atlas is STEPPED:
            self.words.append("units have steps of the ladder, and procedures bind")
        if self.world.atlas is SKIPPING:
            self.words.append("who has nobody on duty is skipped, and who reopens has less time")


def records(data: bytes) -> list[bytes]:
    """The steps of a history: up to one that ends it, or to the end of the bytes."""
    found = []
    for at in range(HEADER, min(len(data), HEADER + LONGEST * WIDTH), WIDTH):
        record = data[at : at + WIDTH]
        if record[0] < ENDS:
            break
        found.append(record)
    return found


def of_seed(seed: int) -> bytes:
    """The bytes of the history that a seed stands for."""
    return Random(seed).randbytes(HEADER + (LONGEST + 1) * WIDTH)


def play(data: bytes) -> History:
    """A history from its first step to what must hold at its end.

    :raises Broken: something does not hold.
    """
    history = History(data[:HEADER])
    try:
        for record in records(data):
            history.step(record)
        history.end()
    except Exception as error:
        raise Broken(history.words, error) from error
    return history


class Broken(AssertionError):
    """A history goes wrong; its message tells what does not hold, and the steps, a line each."""

    def __init__(self, words: list[str], why: Exception) -> None:
        lines = [f"{number:3}. {line}" for number, line in enumerate(words, 1)]
        super().__init__("\n".join([f"this history goes wrong, {_where(why)}: {why!r}", *lines]))
        self.words = words


def _where(error: Exception) -> str:
    """The invariant that does not hold, or the function that fails."""
    frames = traceback.extract_tb(error.__traceback__)
    broken = [frame for frame in frames if frame.filename == invariants.__file__]
    return f"{(broken or frames)[-1].name}, line {(broken or frames)[-1].lineno}"
