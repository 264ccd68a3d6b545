"""What is wrong in a profile folder, all of it at once, each with its place and its cure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake: ``line`` counts from 1 and is 0 where there are no lines."""

    file: str
    line: int
    field: str
    text: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.field}: {self.text}" if self.field else f"{place}: {self.text}"


class ProfileError(ValueError):
    """A profile folder can't be used; ``problems`` lists everything that was found."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(
            sorted(problems, key=lambda problem: (problem.file, problem.line, problem.field))
        )
        super().__init__("\n".join(str(problem) for problem in self.problems))


def not_among(word: object, allowed: Sequence[str]) -> str:
    """``'vilage' is not known: write village (allowed: ...)``."""
    if not allowed:
        return f"{word!r} is not known: there are none here yet"
    close = get_close_matches(str(word), allowed, n=1)
    listed = ", ".join(allowed)
    if close:
        return f"{word!r} is not known: did you mean {close[0]}? Allowed: {listed}"
    return f"{word!r} is not known: write one of {listed}"
