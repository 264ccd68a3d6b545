"""Tokens: which of two states of a case is the later one, whatever order they arrive in.

Merging keeps the greatest of ``(round, stage, hop, seq)``. Each number has one writer:
intake opens and ends rounds, the custodian alone writes ``hop``, the desk that holds the
case alone writes ``seq``.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Any, NamedTuple


class Stage(IntEnum):
    """How far a round has come; a later stage beats every hop of an earlier one."""

    HELD = 0
    WITHDRAWN = 1
    RESOLVED = 2
    CLOSED = 3

    @property
    def word(self) -> str:
        """The stage as events and documents write it."""
        return STAGES[self]


STAGES = tuple(stage.name.lower() for stage in Stage)
_BY_WORD = {stage.word: stage for stage in Stage}


class Token(NamedTuple):
    """The place of a state in the order of all states of its case. Tokens compare as tuples."""

    round: int
    stage: Stage
    hop: int
    seq: int

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Token:
        """From its form in events and documents, ``{round, stage, hop, seq}``."""
        return cls(data["round"], _BY_WORD[data["stage"]], data["hop"], data["seq"])

    def as_dict(self) -> dict[str, Any]:
        """Its form in events and documents."""
        return {"round": self.round, "stage": self.stage.word, "hop": self.hop, "seq": self.seq}

    def act(self, stage: Stage | None = None) -> Token:
        """The holder's next act in this hop, reaching ``stage`` if one is given."""
        return self._replace(seq=self.seq + 1, stage=self.stage if stage is None else stage)

    def moved(self) -> Token:
        """The next change of custody in this round."""
        return self._replace(hop=self.hop + 1, seq=0)

    def __str__(self) -> str:
        return f"{self.round}.{self.stage.word}.{self.hop}.{self.seq}"


class Address(NamedTuple):
    """Where a case is (责任主体): a level, a division, and a unit or none."""

    level: str
    division: str
    unit: str | None = None

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Address:
        """From its form in events and documents, ``{level, division, unit}``."""
        return cls(data["level"], data["division"], data.get("unit"))

    def where(self, division: str) -> tuple[Address, Address]:
        """Who may read a case: where it is, and the same where it happened."""
        return self, self._replace(division=division)

    def as_dict(self) -> dict[str, Any]:
        """Its form in events and documents."""
        return {"level": self.level, "division": self.division, "unit": self.unit}
