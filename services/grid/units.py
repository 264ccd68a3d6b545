"""Units (单位) in a profile's rules: by name there, by id in a county."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from services.grid.conditions import FACTS, UNIT, Condition, unreachable
from services.grid.deadlines import DeadlineRule
from services.grid.directory import Directory
from services.grid.problems import Problem, not_among
from services.grid.profile_rules import FILE, Rules
from services.grid.profile_source import Place, Source, field_name

Lines = Mapping[str, tuple[DeadlineRule, ...]]


def resolved(lines: Lines, directory: Directory) -> Lines:
    """Deadlines whose conditions have the ids of the units that they name besides."""
    if not any(UNIT in line.when.values for found in lines.values() for line in found):
        return lines

    def known(line: DeadlineRule) -> DeadlineRule:
        named = line.when.values.get(UNIT)
        if named is None:
            return line
        there = directory.units.values()
        ids = {unit.id for unit in there if unit.level == line.level and unit.name in named}
        return replace(line, when=Condition({**line.when.values, UNIT: named | ids}))

    return {level: tuple(map(known, found)) for level, found in lines.items()}


def check(source: Source, rules: Rules, directory: Directory) -> list[Problem]:
    """Units that rules name and no division has; lines that never apply to any unit.

    :param rules: with :func:`resolved` deadlines.
    """
    checker = _Checker(source, directory)
    checker.part((), source.rules, rules)
    if rules.emergency is not None:
        checker.part(("emergency",), source.rules["emergency"], rules.emergency.rules)
    for index, rule in enumerate(rules.whistle):
        words = rule.when.values.get(UNIT, ())
        checker.named(words, rules.levels, ("whistle", index, "when", "unit"))
    return checker.problems


class _Checker:
    def __init__(self, source: Source, directory: Directory) -> None:
        self.source = source
        self.directory = directory
        self.problems: list[Problem] = []

    def part(self, under: Place, said: Mapping[str, list[object]], rules: Rules) -> None:
        """The routes and deadlines that this part of the file says itself."""
        for name in said.get("ladders", ()):
            for index, step in enumerate(rules.ladders[str(name)]):
                if step.unit is not None:
                    where: Place = (*under, "ladders", str(name), index, "unit")
                    self.named([step.unit], [step.level], where)
        for index, route in enumerate(rules.routing[: len(said.get("routing", ()))]):
            if route.unit is not None and route.enter is not None:
                steps = [step.level for step in rules.ladders[route.ladder]]
                above = steps[steps.index(route.enter) :]
                self.named([route.unit], above, (*under, "routing", index, "enter", "unit"))
        by_name = {line.name: line for lines in rules.deadlines.values() for line in lines}
        own: dict[str, list[tuple[Place, DeadlineRule]]] = {}
        for index in range(len(said.get("deadlines", ()))):
            place: Place = (*under, "deadlines", index)
            line = by_name[f"{FILE} {field_name(place)}"]
            units = line.when.values.get(UNIT, ())
            self.named(units, [line.level], (*place, "when", "unit"))
            own.setdefault(line.level, []).append((place, line))
        if not self.problems:
            for lines in own.values():
                self.reach(lines, rules)

    def named(self, words: Iterable[str], levels: Collection[str], place: Place) -> None:
        """That each word is the name or id of a unit of one of these levels."""
        there = [unit for unit in self.directory.units.values() if unit.level in levels]
        known = {word for unit in there for word in (unit.name, unit.id)}
        names = sorted({unit.name for unit in there})
        for word in sorted(words):
            if word not in known:
                self.note(not_among(word, names), place)

    def reach(self, lines: Sequence[tuple[Place, DeadlineRule]], rules: Rules) -> None:
        """That no line's units are all named, by name or id, in lines before it."""
        conditions = [line.when for _place, line in lines]
        alike: dict[tuple[int, ...], str] = {}
        for unit in self.directory.units:
            # Units that the same lines name behave alike: one stands for them.
            naming = [i for i, item in enumerate(conditions) if unit in item.values.get(UNIT, ())]
            alike.setdefault(tuple(naming), unit)
        known = {
            **dict(zip(FACTS, (rules.urgencies, rules.categories, rules.sources), strict=True)),
            UNIT: (*alike.values(), ""),
        }
        values = {name: tuple(known[name]) for name in known}
        for index, covering in unreachable(conditions, values).items():
            by = " and ".join(self.shown(lines[other][0]) for other in covering)
            said = f"never applies: what it matches goes to {by} before; move it up or remove it"
            self.note(said, lines[index][0])

    def shown(self, place: Place) -> str:
        line = self.source.line(place)
        return f"{field_name(place)} (line {line})" if line else field_name(place)

    def note(self, wrong: str, place: Place) -> None:
        line = self.source.line(place)
        self.problems.append(Problem(self.source.file, line, field_name(place), wrong))
