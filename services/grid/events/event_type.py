"""What the catalogue says about one type of event."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from marshmallow import Schema, fields

from services.grid.events.parts import OF_THE_DOOR
from services.grid.events.shape import Check, exact


@dataclass(frozen=True)
class EventType:
    """One type of event: its contract, and who sends and who reads it.

    ``custody`` marks the types that say who holds a case now: their confirm time protects
    the new holder from deadlines that passed while nobody could hear of them. ``crosses``
    marks those that one level's desk addresses to another's; ``addressed`` is false for those
    whose routing key is the name alone, because no division is addressed. ``about`` names what of
    the state an event says: there it is not left out, and not null.
    """

    name: str
    meaning: str
    producers: tuple[str, ...]
    consumers: tuple[str, ...]
    schema: type[Schema]
    version: int = 1
    custody: bool = False
    crosses: bool = False
    addressed: bool = True
    about: tuple[str, ...] = ()

    @property
    def full_name(self) -> str:
        """As CloudEvents carry it: ``huashi.<name>.v<version>``."""
        return f"huashi.{self.name}.v{self.version}"

    @property
    def channel(self) -> str:
        """What the catalogue calls all its versions."""
        return self.name

    @property
    def label(self) -> str:
        """What the catalogue calls it."""
        return f"huashi.{self.channel}.v{self.version}"

    @property
    def key(self) -> str:
        """The routing key, with ``{level}`` and ``{path}`` of the division addressed."""
        return f"{self.name}.{{level}}.{{path}}" if self.addressed else self.name

    @cached_property
    def loader(self) -> Schema:
        """One instance of the schema, made once: marshmallow's set-up is dear.

        Without the checks of texts that whoever let them in has made: those may become stricter,
        and what is on its way or in a case that is open must be read all the same.
        """
        return _tolerant(self.schema())

    @cached_property
    def exact(self) -> Check:
        """Whether data already is what the schema would make of it; see ``shape``."""
        return exact(self.loader)

    def load(self, data: dict[str, Any]) -> dict[str, Any]:
        """The event's data, validated and completed; fields that are not known are kept.

        :raises marshmallow.ValidationError: with every field that is wrong.
        """
        if self.exact(data):
            return data
        loaded: dict[str, Any] = self.loader.load(data)
        return loaded


def _tolerant(schema: Schema) -> Schema:
    for each in schema.fields.values():
        _forgive(each)
    return schema


def _forgive(field: fields.Field[Any]) -> None:
    field.validators = [each for each in field.validators if each not in OF_THE_DOOR]
    if isinstance(field, fields.Nested):
        _tolerant(field.schema)
    elif isinstance(field, fields.List):
        _forgive(field.inner)
