"""What the catalogue says about one type of event."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from marshmallow import Schema


@dataclass(frozen=True)
class EventType:
    """One type of event: its contract, and who sends and who reads it.

    ``custody`` marks the types that say who holds a case now: their confirm time protects
    the new holder from deadlines that passed while nobody could hear of them.
    """

    name: str
    meaning: str
    producers: tuple[str, ...]
    consumers: tuple[str, ...]
    schema: type[Schema]
    version: int = 1
    custody: bool = False

    @property
    def full_name(self) -> str:
        """As CloudEvents carry it: ``huashi.<name>.v<version>``."""
        return f"huashi.{self.name}.v{self.version}"

    @cached_property
    def loader(self) -> Schema:
        """One instance of the schema, made once: marshmallow's set-up is dear."""
        return self.schema()
