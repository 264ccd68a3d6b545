"""What would become of a report that nobody answers: the whole ladder, with dates.

For people who write a profile: the same functions that decide in production, on a profile
folder alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from services.grid import deadlines, whistles
from services.grid.climbing import Turn, turn
from services.grid.clock import Instant, plus
from services.grid.profile import Loaded
from services.grid.tokens import Address

_REPEATS = 3


@dataclass(frozen=True)
class Step:
    """One level of the ladder.

    ``officers`` are the ids of who is on duty; ``deputy`` who stands in where nobody is.
    ``arrives`` is when its clock starts, ``leaves`` when the case climbs, or at the last level
    is supervised; ``deadlines`` as events carry them. ``calls`` are those of a unit that it calls
    (吹哨) as soon as the case arrives, where the profile lets units be called.
    """

    address: Address
    title: str
    place: str
    officers: tuple[str, ...]
    deputy: str | None
    arrives: Instant
    leaves: Instant
    deadlines: tuple[dict[str, Any], ...]
    calls: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class Preview:
    """The ladder that a report would climb.

    ``supervised`` are the first times at which the last level is told upwards (督办), ``tell``
    whom; ``warnings`` are for whoever wrote the profile.
    """

    rule: str
    ladder: str
    triage: bool
    also_tell: tuple[str, ...]
    steps: tuple[Step, ...]
    supervised: tuple[Instant, ...]
    tell: tuple[str, ...]
    warnings: tuple[str, ...]


def preview(loaded: Loaded, facts: Mapping[str, Any], division: str, reported: Instant) -> Preview:
    """The ladder of a report at ``division``, if every level lets its time pass.

    :param facts: category, urgency and source.
    :raises DivisionError: the division is unknown.
    """
    profile, directory = loaded.profile, loaded.directory
    entry = profile.enter(facts, division, directory)
    steps: list[Step] = []
    warnings: dict[str, None] = {}
    address: Address | None = entry.address
    arrives = reported
    while address is not None:
        at = turn(loaded, facts, address, arrives, reported)
        step = replace(
            _step(loaded, at, entry.ladder), calls=_calls(loaded, facts, address.level, arrives)
        )
        steps.append(step)
        warnings.update(dict.fromkeys(_warnings(loaded, step, entry.ladder)))
        arrives = step.leaves
        address = profile.next_address(entry.ladder, address, directory)
    then = deadlines.then(profile, facts, steps[-1].address)
    every = then.supervise_every if then is not None else None
    return Preview(
        rule=entry.rule,
        ladder=entry.ladder,
        triage=entry.triage,
        also_tell=entry.also_tell,
        steps=tuple(steps),
        supervised=(
            (arrives,)
            if every is None
            else tuple(plus(arrives, every * count) for count in range(_REPEATS))
        ),
        tell=then.tell if then is not None else (),
        warnings=tuple(warnings),
    )


def _step(loaded: Loaded, at: Turn, ladder: str) -> Step:
    profile, directory, address = loaded.profile, loaded.directory, at.address
    officers, deputy = tuple(officer.id for officer in at.officers), None
    if at.why == "deputy":
        officers, deputy = (), ", ".join(officers)
    unit = directory.units.get(address.unit) if address.unit is not None else None
    passing = at.passing(lambda _deadline: False)
    return Step(
        address=address,
        title=profile.title_of(ladder, address, directory),
        place=directory.name(address.division) + (unit.name if unit is not None else ""),
        officers=officers,
        deputy=deputy,
        arrives=at.arrives,
        leaves=at.arrives if passing is None or at.skipped else at.passes_at(passing),
        deadlines=tuple(at.deadlines),
    )


def _calls(
    loaded: Loaded, facts: Mapping[str, Any], level: str, at: Instant
) -> tuple[dict[str, Any], ...]:
    """The deadlines of a unit that no rule names, if this level may call one and does it then."""
    rule = whistles.rule_for(loaded.profile, facts, level, None)
    if rule is None:
        return ()
    return tuple(whistles.due(loaded.profile, rule, at, loaded.holidays).values())


def _warnings(loaded: Loaded, step: Step, ladder: str) -> list[str]:
    missing = loaded.profile.units_missing(ladder, step.address, loaded.directory)
    found = [f"there is no {name} at {step.place}: its desk has that step" for name in missing]
    if not step.officers:
        follows = {
            "deputy": f"{step.deputy} stands in" if step.deputy else "it waits until it climbs",
            "skip": "it climbs at once",
            "hold": "it waits until it climbs",
        }[loaded.profile.unstaffed]
        found.append(f"nobody is on duty at {step.address.level} {step.place}: {follows}")
    found += [
        counted
        for item in step.deadlines
        for counted in item["counted"]
        if counted.endswith("the plain week counts")
    ]
    return found
