"""Where a case may go when its holder asks for it: whom it can be delegated or transferred to.

The desk asks with this, so that a wrong place is named at once, and the custodian grants with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from services.grid.directory import Directory, Division, Unit
from services.grid.problems import not_among
from services.grid.profile import Profile
from services.grid.tokens import Address


class WrongPlace(ValueError):
    """A case can't go there; ``errors`` maps each field (``to.division``) to why and the cure."""

    def __init__(self, errors: Mapping[str, str]) -> None:
        super().__init__("; ".join(f"{name}: {why}" for name, why in errors.items()))
        self.errors = dict(errors)


def target(
    action: str,
    to: Mapping[str, Any],
    here: Address,
    *,
    profile: Profile,
    ladder: str,
    directory: Directory,
) -> Address:
    """The address that is meant by ``{level, division, unit}``, of which each may be none.

    A unit says its division and level by itself, and a division its level. A unit is known by its
    id; or by its name, in the division that is said, else at the holder's.

    :param action: ``delegate``: below the holder, or to a unit of its own; ``transfer``: another
        division or unit of its level.
    :raises WrongPlace: what is wrong with it, field by field.
    """
    unit = _unit(to, here, directory)
    code = to.get("division") or (unit.division if unit is not None else None)
    if code is None:
        raise WrongPlace({"to.division": "say where to: a division code, or a unit"})
    place = directory.division(code)
    if place is None:
        raise WrongPlace({"to.division": str(directory.check_code(code))})
    if not profile.reaches(code, directory):
        said = f"{code} is outside of {profile.region}, the region of the case's profile"
        raise WrongPlace({"to.division": said})
    level = to.get("level") or (unit.level if unit is not None else place.level)
    _check_level(level, place, unit, profile.steps(ladder))
    found = Address(level, code, unit.id if unit is not None else None)
    if found == here:
        raise WrongPlace({"to": "holds the case already: name another division or unit"})
    (_check_below if action == "delegate" else _check_beside)(found, here, profile, directory)
    return found


def no_authority(here: Address, facts: Mapping[str, Any], profile: Profile) -> str | None:
    """Why who holds a case may not give others its authority to settle it (授权); None: it may."""
    rule = profile.authority
    if rule is None:
        return "the profile lets no level do that: leave it out"
    if here.level != rule.level:
        return f"only the {rule.level} may: leave it out"
    if not rule.when.matches(facts):
        return f"not for such a case ({rule.source}): leave it out"
    return None


def unit_of(to: Mapping[str, Any], here: Address, directory: Directory) -> Unit | None:
    """The unit that is meant by ``{level, division, unit}``, by its id or name; None: none."""
    named = to.get("unit")
    if named is None or named in directory.units:
        return directory.units.get(named or "")
    place = directory.division(to.get("division") or here.division)
    if place is None:
        return None
    return directory.unit(named, to.get("level") or place.level, place.code)


def _unit(to: Mapping[str, Any], here: Address, directory: Directory) -> Unit | None:
    identity = to.get("unit")
    if identity is None:
        return None
    unit = unit_of(to, here, directory)
    if unit is None:
        there = to.get("division") or here.division
        near = [item.id for item in directory.units.values() if item.division == there]
        raise WrongPlace({"to.unit": not_among(identity, sorted(near or directory.units)[:20])})
    return unit


def _check_level(level: str, place: Division, unit: Unit | None, steps: list[str]) -> None:
    if level not in steps:
        raise WrongPlace({"to.level": f"not on the case's ladder: {not_among(level, steps)}"})
    if unit is not None:
        if (unit.level, unit.division) != (level, place.code):
            said = f"{unit.id} is at the {unit.level} {unit.division}: write these, or leave them"
            raise WrongPlace({"to.unit": said})
    elif place.level != level:
        said = f"{place.code} {place.name} is a {place.level}, not a {level}"
        raise WrongPlace({"to.level": f"{said}: write its level, or leave it out"})


def _check_below(to: Address, here: Address, profile: Profile, directory: Directory) -> None:
    levels = profile.levels
    own_unit = to.level == here.level and to.division == here.division and here.unit is None
    if not own_unit and levels.index(to.level) >= levels.index(here.level):
        said = f"{to.level} is not below {here.level}: sideways is transfer, upwards escalate"
        raise WrongPlace({"to.level": said})
    if not directory.within(to.division, here.division):
        said = f"{to.division} is not below {here.division} {directory.name(here.division)}"
        raise WrongPlace({"to.division": f"{said}: name one that is"})


def _check_beside(to: Address, here: Address, _profile: Profile, _directory: Directory) -> None:
    if to.level != here.level:
        said = f"a transfer stays at the level {here.level}"
        raise WrongPlace({"to.level": f"{said}: downwards is delegate, upwards escalate"})
