"""Scopes: which part of a county somebody acts for and reads."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from services.grid.atlas import Atlas
from services.grid.tokens import Address

RULE = (
    "one acts for and reads what is addressed to one's division or below it, at one's level or "
    "below it, and with a unit only what is addressed to that unit"
)


@dataclass(frozen=True, slots=True)
class Scope:
    """A part of a county (管辖范围); what is None limits nothing.

    ``division`` is the root of a subtree, ``level`` the highest level, ``unit`` the only unit.
    Without a unit all units of the subtree are in it: a village's lead stands in for its teams.
    """

    division: str | None = None
    level: str | None = None
    unit: str | None = None

    def covers(self, address: Address, atlas: Atlas) -> bool:
        """Whether this address is in it; what the directory does not know is in none."""
        return (
            self.covers_division(address.division, atlas)
            and self.covers_level(address.level, atlas)
            and self.unit in (None, address.unit)
        )

    def covers_division(self, code: str, atlas: Atlas) -> bool:
        """Whether this division is the scope's or below it."""
        return self.division is None or atlas.directory.within(code, self.division)

    def covers_level(self, level: str, atlas: Atlas) -> bool:
        """Whether this level is the scope's or below it."""
        return self.level is None or level in atlas.levels_up_to(self.level)

    def as_dict(self) -> dict[str, str | None]:
        """Its form in answers and in the audit trail."""
        return asdict(self)

    def __str__(self) -> str:
        parts = {"division": self.division, "level": self.level, "unit": self.unit}
        said = ", ".join(f"{name} {value}" for name, value in parts.items() if value is not None)
        return said or "the whole county"


WHOLE = Scope()
"""Everything there is."""
