"""What would become of a report that nobody answers."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from services.grid.clock import Instant
from services.grid.directory import DivisionError
from services.grid.preview import preview
from services.grid.profile import Profile, load_folder

QIONGHAI = load_folder(Path(__file__).parents[2] / "profiles" / "qionghai")
GRID = "46900210421403007"
THURSDAY = Instant("2026-11-26T01:00:00.000Z")
ORDINARY = {"category": "facility", "urgency": "ordinary", "source": "app"}


def with_rules(**changes: Any) -> Any:
    return replace(QIONGHAI, profile=Profile.parse({**QIONGHAI.profile.rules, **changes}))


def test_it_climbs_every_level_and_is_supervised() -> None:
    found = preview(QIONGHAI, ORDINARY, GRID, THURSDAY)
    assert [(step.address.level, step.arrives, step.leaves) for step in found.steps] == [
        ("household", THURSDAY, "2026-11-26T03:00:00.000Z"),
        ("group", "2026-11-26T03:00:00.000Z", "2026-11-26T05:00:00.000Z"),
        ("village", "2026-11-26T05:00:00.000Z", "2026-11-26T09:00:00.000Z"),
        ("township", "2026-11-26T09:00:00.000Z", "2026-11-26T13:00:00.000Z"),
    ]
    assert found.supervised[:2] == ("2026-11-26T13:00:00.000Z", "2026-11-27T13:00:00.000Z")
    assert found.tell == ("469002",)
    assert found.warnings == ()
    assert all(before.leaves == after.arrives for before, after in pairwise(found.steps))


def test_it_warns_of_a_level_where_nobody_is_on_duty() -> None:
    found = preview(QIONGHAI, ORDINARY, "46900210420307009", THURSDAY)
    assert found.steps[0].officers == ()
    assert found.steps[0].deputy is not None
    assert found.warnings[0] == (
        "nobody is on duty at household 琼海市博鳌镇珠联村委会7组9户: "
        f"{found.steps[0].deputy} stands in"
    )


def test_without_deputies_it_waits_or_climbs_at_once() -> None:
    held = preview(with_rules(unstaffed="hold"), ORDINARY, "46900210420307009", THURSDAY)
    assert held.warnings[0].endswith(": it waits until it climbs")
    assert held.steps[0].leaves == "2026-11-26T03:00:00.000Z"
    skipped = preview(with_rules(unstaffed="skip"), ORDINARY, "46900210420307009", THURSDAY)
    assert skipped.warnings[0].endswith(": it climbs at once")
    assert skipped.steps[0].leaves == THURSDAY
    assert skipped.steps[1].arrives == THURSDAY


def test_who_is_on_duty_is_asked_for_when_the_case_arrives() -> None:
    urgent = {**ORDINARY, "category": "emergency", "urgency": "urgent"}
    night = Instant("2026-11-26T14:00:00.000Z")
    (team, *_above), (by_day, *_) = (
        preview(QIONGHAI, urgent, GRID, at).steps for at in (night, THURSDAY)
    )
    assert team.address.unit == "469002104214-security"
    assert team.place == "琼海市博鳌镇沙美村委会治安联防队"
    assert team.officers == ("unit-469002104214-security-night",)
    assert by_day.officers == ("unit-469002104214-security",)
    # The desk of the village by turns, a week each, and during a leave.
    for at, officer in (
        ("2026-11-26T05:00:00.000Z", "desk1"),
        ("2026-11-19T05:00:00.000Z", "desk2"),
        ("2026-10-01T05:00:00.000Z", "desk2"),
    ):
        steps = preview(QIONGHAI, ORDINARY, GRID[:12], Instant(at)).steps
        assert steps[0].officers == (f"village-469002104214-{officer}",)


def test_an_emergency_enters_at_the_township() -> None:
    found = preview(QIONGHAI, {**ORDINARY, "urgency": "emergency"}, GRID, THURSDAY)
    assert [step.address.level for step in found.steps] == ["township"]
    assert found.also_tell == ("village",)


def test_it_warns_of_a_year_whose_holidays_are_not_known() -> None:
    found = preview(QIONGHAI, ORDINARY, GRID, Instant("2031-01-06T01:00:00.000Z"))
    assert found.warnings == ("2031: the holidays are not known, the plain week counts",)


def test_an_unknown_division_is_refused() -> None:
    with pytest.raises(DivisionError, match="999999 is not in the directory"):
        preview(QIONGHAI, ORDINARY, "999999", THURSDAY)
