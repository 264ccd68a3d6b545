"""What a service knows of the county: the directory's tree and every profile version.

Built from the entries that ``directory.*`` events carry. Merging an entry keeps the greatest
version, so that a republished directory changes nothing, in whatever order it comes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from itertools import pairwise
from typing import Any

from services.grid.calendars import Holidays
from services.grid.directory import (
    Directory,
    Division,
    Emergency,
    HolidayYear,
    Officer,
    Unit,
)
from services.grid.duty import Duty
from services.grid.events import Event
from services.grid.problems import not_among
from services.grid.profile import Profile, ProfileError, holidays_of

_IDENTITY = {
    "division": "code",
    "unit": "id",
    "officer": "id",
    "duty": "officer",
    "holidays": "id",
    "emergency": "division",
    "profile": "id",
}

# What follows from a token must fit into the schema, which takes ten times as much.
_MOST = 100_000

Entry = dict[str, Any]
"""``{kind, version, retired, entry}``, ``entry`` being what the event's data holds."""


class UnknownProfile(LookupError):
    """A profile version (or an emergency) that has not arrived yet, or is for a newer service."""


def kind_of(event: Event) -> str:
    """``division`` of ``directory.division``."""
    return event.type.partition(".")[2]


def entry_key(kind: str, entry: Mapping[str, Any]) -> str:
    """The key of an entry: ``division:469002104214``."""
    return f"{kind}:{entry[_IDENTITY[kind]]}"


def entry_of(event: Event) -> tuple[str, Entry]:
    """The key and the entry that a ``directory.*`` event carries."""
    kind = kind_of(event)
    data = event.data
    entry = {
        "kind": kind,
        "version": data["version"],
        "retired": data["retired"],
        "entry": data[kind],
    }
    return entry_key(kind, data[kind]), entry


def merge(document: Entry | None, entry: Entry) -> Entry:
    """The entry with the greater version."""
    if document is not None and document["version"] >= entry["version"]:
        return document
    return entry


def in_emergency(facts: Mapping[str, Any], emergency: str | None) -> dict[str, Any]:
    """The facts of a case that is under this emergency, or under none."""
    others = {name: value for name, value in facts.items() if name != "emergency"}
    return others if emergency is None else {**others, "emergency": emergency}


class Atlas:
    """The directory and the profiles at one moment; immutable.

    ``profiles`` holds every version by its id, also those that no new case gets any more;
    ``current`` only those that new cases may get, ``unreadable`` why others can't be used.
    """

    def __init__(
        self,
        directory: Directory,
        profiles: Mapping[str, Profile],
        current: Iterable[str],
        unreadable: Mapping[str, str] | None = None,
        *,
        holidays: Holidays | None = None,
        emergencies: Iterable[Emergency] = (),
    ) -> None:
        self.directory = directory
        self.holidays = holidays or Holidays()
        self.profiles = {name: item.in_county(directory) for name, item in profiles.items()}
        self.unreadable = dict(unreadable or {})
        self.current = tuple(self.profiles[name] for name in current)
        self.emergencies = {emergency.division: emergency for emergency in emergencies}

    @classmethod
    def of(cls, entries: Iterable[Entry]) -> Atlas:
        """The atlas of all entries; retired places and officers are left out."""
        kept: dict[str, list[dict[str, Any]]] = {kind: [] for kind in _IDENTITY}
        profiles: dict[str, Profile] = {}
        current: list[str] = []
        unreadable: dict[str, str] = {}
        for item in entries:
            if item["kind"] == "profile":
                version = item["entry"]["id"]
                try:
                    profiles[version] = Profile.parse(item["entry"]["rules"])
                except ProfileError as error:
                    # During an upgrade its cases wait for a service that can read it.
                    unreadable[version] = str(error)
                    continue
                if not item["retired"]:
                    current.append(version)
            elif not item["retired"]:
                kept[item["kind"]].append(item["entry"])
        directory = Directory(
            divisions=[Division.of(entry) for entry in kept["division"]],
            units=[_made(Unit, entry) for entry in kept["unit"]],
            officers=[_made(Officer, entry) for entry in kept["officer"]],
            duties=[_made(Duty, entry) for entry in kept["duty"]],
        )
        years = [_made(HolidayYear, entry) for entry in kept["holidays"]]
        return cls(
            directory,
            profiles,
            sorted(current),
            unreadable,
            holidays=holidays_of(years),
            emergencies=[_made(Emergency, entry) for entry in kept["emergency"]],
        )

    def switched(self, division: str, *, on: bool) -> Atlas:
        """The atlas as it would be with a division switched to emergency mode, or back."""
        known = self.emergencies.get(division, Emergency(division, 0, on=False))
        number = known.number + 1 if on and not known.on else known.number
        emergencies = {**self.emergencies, division: Emergency(division, number, on=on)}
        return Atlas(
            self.directory,
            self.profiles,
            [profile.id for profile in self.current],
            self.unreadable,
            holidays=self.holidays,
            emergencies=emergencies.values(),
        )

    def levels_up_to(self, level: str) -> frozenset[str]:
        """A level with all below it, as the profiles' ladders and the directory have them."""
        found, below = {level}, [level]
        while below:
            lower = self._lower.get(below.pop(), set()) - found
            found |= lower
            below += lower
        return frozenset(found)

    @cached_property
    def _lower(self) -> dict[str, set[str]]:
        """The levels right below each level."""
        steps = [
            pair
            for profile in self.profiles.values()
            for ladder in profile.ladders
            for pair in pairwise(profile.steps(ladder))
        ]
        lower: dict[str, set[str]] = {}
        for below, above in (*steps, *self.directory.level_pairs):
            lower.setdefault(above, set()).add(below)
        return lower

    def contradiction(self, data: Mapping[str, Any]) -> str | None:
        """What an event's case and state say that their profile does not bear out, if anything.

        :raises UnknownProfile: the profile can't be used yet.
        """
        profile = self.rules_for(data["case"])
        ladder, level = data["case"]["ladder"], data["state"]["address"]["level"]
        if ladder not in profile.ladders:
            return f"ladder {not_among(ladder, tuple(profile.ladders))} ({profile.id})"
        if level not in profile.levels:
            return f"level {not_among(level, profile.levels)} ({profile.id})"
        token = data["state"]["token"]
        for name in ("round", "hop", "seq"):
            if token[name] > _MOST:
                return f"token.{name} {token[name]}: no case gets that far, at most {_MOST}"
        return None

    def rules_for(self, facts: Mapping[str, Any]) -> Profile:
        """The rules that a case is under: of its profile version, and of the emergency it names.

        :raises UnknownProfile: the one or the other has not arrived yet.
        """
        profile, named = self.profile(facts["profile"]), facts.get("emergency")
        if named is None:
            return profile
        division, _, number = named.partition(".")
        known = self.emergencies.get(division)
        if known is None or known.number < int(number):
            raise UnknownProfile(f"emergency {named}: it has not arrived yet")
        return profile.in_emergency or profile

    def knows(self, facts: Mapping[str, Any]) -> bool:
        """Whether the rules that a case is under have arrived."""
        try:
            self.rules_for(facts)
        except UnknownProfile:
            return False
        return True

    def emergency_at(self, profile: Profile, division: str) -> str | None:
        """The emergency that a new case at a place comes under: the nearest at or above it."""
        if profile.emergency is None or not self.emergencies:
            return None
        for place in self.directory.ancestors(division):
            known = self.emergencies.get(place.code)
            if known is not None and known.on:
                return known.name
        return None

    def emergency_of(self, facts: Mapping[str, Any]) -> str | None:
        """The emergency that a case in flight should be under.

        Its present one, where the profile lets a case keep the rules it was reported under, and
        while its division, or one between it and the region, is not in the directory.

        :raises UnknownProfile: its profile has not arrived yet.
        """
        profile, present = self.profile(facts["profile"]), facts.get("emergency")
        part = profile.emergency
        if part is None:
            return None
        above = [place.code for place in self.directory.ancestors(facts["division"])]
        follows = part.in_flight is not None and part.in_flight.matches(facts)
        if not follows or profile.region not in above:
            return None if present is None else str(present)
        return self.emergency_at(profile, facts["division"])

    def profile(self, version: str) -> Profile:
        """The profile of this version.

        :raises UnknownProfile: it can't be used yet; whatever needs it must wait.
        """
        try:
            return self.profiles[version]
        except KeyError:
            why = self.unreadable.get(version, "it has not arrived yet")
            raise UnknownProfile(f"profile {version}: {why}") from None


def _made(kind: type[Any], entry: Mapping[str, Any]) -> Any:
    """A directory entry without the fields that a newer publisher may have added."""
    return kind(**{name: entry[name] for name in kind.__dataclass_fields__})
