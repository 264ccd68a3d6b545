"""Opening a case, whatever door the report came through: place, profile, and what is kept of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from services.bus import problems
from services.bus.errors import Collision
from services.bus.fold import Decision, Document, Record, Work
from services.bus.problems import Problem
from services.grid.atlas import Atlas
from services.grid.clock import Instant, plus, seconds_between
from services.grid.directory import Division, DivisionError
from services.grid.profile import Profile, profile_for
from services.intake import model
from services.intake.shell import IntakeShell

_CLOCK_TOLERANCE_SECONDS = 300
_LONGEST_PROMISE_SECONDS = 3660 * 86400
_CODE_ATTEMPTS = 10

Opening = Callable[[int], Work]
"""The work of a report, with the number of the tracking code to try."""


def opening(
    intake: IntakeShell,
    case: str,
    body: dict[str, Any],
    by: str,
    digest: str,
    *,
    within: Callable[[Division, Atlas], None] = lambda _place, _atlas: None,
) -> Opening:
    """What opens ``case``; the reporter's own data is sealed here.

    :param body: a loaded report; ``respond_by`` and ``inbound`` are of other systems.
    :param within: raises what says that this reporter may not report for a place.
    :raises Problem: a 422 of what is wrong in this county.
    """
    now, atlas = intake.now, intake.county.atlas()
    place, certain = place_of(atlas, body)
    within(place, atlas)
    profile = _profile(atlas, place)
    if wrong := {**_unknown_words(profile, body), **_impossible_times(body, now)}:
        raise problems.invalid(wrong)
    reporter = body["reporter"]
    sealed = intake.reporters.seal(reporter, case) if reporter else None
    kept = {**body, "digest": digest, "reporter": sealed, "by": by}

    def attempted(attempt: int) -> Work:
        def change(record: Record) -> Decision:
            return model.open_case(
                record.document,
                case,
                kept,
                place,
                certain=certain,
                profile=profile,
                atlas=atlas,
                now=now,
                attempt=attempt,
            )

        return Work(case, change)

    return attempted


def opened(run: Callable[[Work], Document], opens: Opening) -> Document:
    """Runs it, with another tracking code where one is taken.

    :raises Collision: something else is taken.
    """
    for attempt in range(_CODE_ATTEMPTS):
        try:
            return run(opens(attempt))
        except Collision as error:
            if error.field != "tracking":
                raise
    raise Problem(503, "no free tracking code was found: send the report again")


def known_division(atlas: Atlas, code: str) -> Division:
    """The division of a code.

    :raises Problem: a 422; the directory has none.
    """
    try:
        return atlas.directory.known(code)
    except DivisionError as error:
        raise problems.invalid({"division": str(error)}) from error


def place_of(atlas: Atlas, body: dict[str, Any]) -> tuple[Division, bool]:
    """The lowest division that is certain, and whether that is as low as was meant."""
    code, address = body["division"], body["address"]
    given = known_division(atlas, code) if code is not None else None
    if address is None:
        assert given is not None  # noqa: S101 - the schema wants one of the two
        return given, True
    try:
        located = atlas.directory.locate(address, within=code)
    except DivisionError as error:
        raise problems.invalid({"address": str(error)}) from error
    if given is None:
        return located.division, located.certain
    # A code is certain by itself; an address beside it may only say more.
    below = atlas.directory.within(located.division.code, given.code)
    return (located.division if located.certain and below else given), True


def _profile(atlas: Atlas, place: Division) -> Profile:
    """The profile for a place.

    :raises Problem: a 422; there is none.
    """
    profile = profile_for(atlas.current, place.code, atlas.directory)
    if profile is None:
        regions = ", ".join(sorted({each.region for each in atlas.current}))
        raise problems.invalid(
            {"division": f"{place.code} is in no profile's region: report below {regions}"}
        )
    return profile


def _unknown_words(profile: Profile, body: dict[str, Any]) -> dict[str, str]:
    """The fields of a report whose words the rules do not know, each with those that they do."""
    return {
        field: f"{body[field]!r} is not in profile {profile.name}: write {', '.join(allowed)}"
        for field, allowed in (
            ("category", profile.categories),
            ("urgency", profile.urgencies),
            ("source", profile.sources),
        )
        if body[field] not in allowed
    }


def _impossible_times(body: dict[str, Any], now: Instant) -> dict[str, str]:
    wrong: dict[str, str] = {}
    seen, promised = body["occurred_at"], body.get("respond_by")
    if seen and seen > plus(now, _CLOCK_TOLERANCE_SECONDS):
        wrong["occurred_at"] = f"lies in the future (it is {now}): write when it was seen"
    if promised and not 0 < seconds_between(now, promised) <= _LONGEST_PROMISE_SECONDS:
        wrong["respond_by"] = "lies in the past, or more than ten years ahead: leave it out"
    return wrong
