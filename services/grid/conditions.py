"""Conditions of rules (``when``), and which rule of a list can ever be the first to match."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

FACTS = ("urgency", "category", "source")
"""What a condition can ask about a case."""

UNIT = "unit"
"""What a deadline's can ask besides: which unit holds it, by its name or id; "" is none."""

FIELDS = (*FACTS, UNIT)

_OTHER = ""


@dataclass(frozen=True)
class Condition:
    """For each field the values that match; a field that is absent matches every value."""

    values: Mapping[str, frozenset[str]]

    def matches(self, facts: Mapping[str, object]) -> bool:
        """Whether a case with these facts meets the condition."""
        return all(facts.get(name) in allowed for name, allowed in self.values.items())


ALWAYS = Condition({})


def unreachable(
    conditions: Sequence[Condition], known: Mapping[str, Sequence[str]]
) -> dict[int, list[int]]:
    """The conditions that are never the first to match, each with those that cover it.

    :param known: the values that each field can have.
    """
    first: set[int] = set()
    covered: dict[int, set[int]] = {index: set() for index in range(len(conditions))}
    for facts in _cases(conditions, known):
        matching = [index for index, item in enumerate(conditions) if item.matches(facts)]
        first.update(matching[:1])
        for index in matching[1:]:
            covered[index].add(matching[0])
    return {index: sorted(by) for index, by in covered.items() if index not in first}


def uncovered(
    conditions: Sequence[Condition], known: Mapping[str, Sequence[str]]
) -> dict[str, str] | None:
    """Facts that no condition matches, or None; a field that doesn't matter is left out."""
    for facts in _cases(conditions, known):
        if not any(condition.matches(facts) for condition in conditions):
            return {name: value for name, value in facts.items() if value != _OTHER}
    return None


def _cases(
    conditions: Sequence[Condition], known: Mapping[str, Sequence[str]]
) -> Iterator[dict[str, str]]:
    """One case for each combination of values that the conditions tell apart."""
    choices = []
    for name in FIELDS:
        named = {value for item in conditions for value in item.values.get(name, ())}
        told_apart = [value for value in known[name] if value in named]
        # All values that no condition names behave alike: one stands for them.
        rest = [_OTHER] if len(told_apart) < len(known[name]) else []
        choices.append(told_apart + rest)
    for values in product(*choices):
        yield dict(zip(FIELDS, values, strict=True))
