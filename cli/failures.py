"""What ends a command, with the exit code that scripts see."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Any


class Exit(IntEnum):
    """Exit codes of ``huashi``."""

    OK = 0
    REFUSED = 1
    USAGE = 2
    UNREACHABLE = 3
    NOT_FOUND = 4


class Failure(Exception):
    """A command can't go on.

    :param problem: the problem document (RFC 9457) if a service answered one.
    """

    def __init__(self, code: Exit, message: str, problem: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.problem = dict(problem or {})
        self.status: int | None = None
        """The HTTP status, if a service answered, with its ``headers`` (in lower case)."""
        self.headers: Mapping[str, str] = {}

    def document(self) -> dict[str, Any]:
        """As a problem document, for ``--json``."""
        return self.problem or {"title": self.code.name.lower(), "detail": str(self)}

    def lines(self) -> list[str]:
        """For people: what is wrong, each field with its cure."""
        errors = self.problem.get("errors")
        if errors:
            return [f"{error['field']}: {error['detail']}" for error in errors]
        held = self.problem.get("held_by")
        lines = [str(self)]
        if held:
            lines.append(f"held by {held['level']} {held['division']} {held.get('unit') or ''}")
        if "instance" in self.problem:
            lines.append(f"instance {self.problem['instance']}")
        return [line.strip() for line in lines]
