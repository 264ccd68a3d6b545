"""Units (单位) in a profile: entered by name, with deadlines of their own, checked when loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from services.grid import deadlines
from services.grid.atlas import Atlas
from services.grid.calendars import Holidays
from services.grid.clock import Instant, plus
from services.grid.deadlines import Start
from services.grid.directory import Directory, Unit
from services.grid.problems import ProfileError
from services.grid.profile import Profile, load_folder
from services.grid.tokens import Address
from tests.simulator.county import DIVISIONS, GRID
from tests.simulator.county import RULES as SAMPLE

TOWNSHIP, VILLAGE = "469002104", "469002104214"
AT = Instant("2026-01-05T00:00:00.000Z")
TEAM = Unit("team", "治安联防队", "village", VILLAGE)
CENTRE = Unit("centre", "综治中心", "township", TOWNSHIP)
TOWN_TEAM = Unit("town-team", "治安联防队", "township", TOWNSHIP)
RULES = {
    **SAMPLE,
    "routing": [],
    "deadlines": [line for line in SAMPLE["deadlines"] if "when" not in line],
}
URGENT = {"urgency": "urgent", "category": "facility", "source": "app"}


def rules(unit: str = "治安联防队", level: str = "village", **when: Any) -> dict[str, Any]:
    route = {"when": {"urgency": "urgent"}, "enter": {"level": level, "unit": unit}}
    line = {
        "level": "village",
        "when": {"unit": unit, **when},
        "acknowledge": "10m",
        "resolve": "1h",
        "source": "assumption",
    }
    return {**RULES, "routing": [route], "deadlines": [line, *RULES["deadlines"]]}


def entered(profile: Profile, *units: Unit) -> Address:
    return profile.enter(URGENT, GRID, Directory(DIVISIONS, units)).address


@pytest.mark.parametrize("named", ["治安联防队", "team"])
def test_a_case_enters_at_a_unit_by_its_name_or_id(named: str) -> None:
    found = entered(Profile.parse(rules(named)), TEAM, CENTRE)
    assert found == Address("village", VILLAGE, "team")


def test_else_at_the_nearest_above_else_at_the_desk() -> None:
    profile = Profile.parse(rules())
    assert entered(profile, TOWN_TEAM) == Address("township", TOWNSHIP, "town-team")
    assert entered(profile, TEAM, TOWN_TEAM) == Address("village", VILLAGE, "team")
    assert entered(profile, CENTRE) == Address("village", VILLAGE)


def test_it_climbs_from_the_division_of_the_unit() -> None:
    profile, directory = Profile.parse(rules()), Directory(DIVISIONS, [TEAM, TOWN_TEAM])
    address = Address("village", VILLAGE, "team")
    assert profile.next_address("default", address, directory) == Address("township", TOWNSHIP)


def acknowledge_due(profile: Profile, address: Address) -> Instant:
    found = deadlines.for_level(profile, URGENT, address, Start(AT, AT), Holidays())
    return Instant(found[0]["due"])


@pytest.mark.parametrize("named", ["治安联防队", "team"])
@pytest.mark.parametrize("emergency", [False, True])
def test_a_unit_has_its_own_deadlines(named: str, emergency: bool) -> None:
    said = rules(named)
    if emergency:
        different = {**RULES["emergency"], "deadlines": said["deadlines"][:1]}
        said = {**RULES, "emergency": different}
    plain = Profile.parse(said)
    atlas = Atlas(Directory(DIVISIONS, [TEAM, CENTRE]), {plain.id: plain}, [plain.id])
    profile = atlas.profile(plain.id)
    if emergency:
        assert profile.in_emergency is not None
        profile = profile.in_emergency
    assert (profile.id, profile.rules) == (plain.id, plain.rules)
    unit = Address("village", VILLAGE, "team")
    assert acknowledge_due(profile, unit) == plus(AT, 600)
    assert acknowledge_due(profile, unit._replace(unit=None)) == plus(AT, 4 * 3600)
    assert acknowledge_due(profile, unit._replace(unit="other")) == plus(AT, 4 * 3600)
    assert deadlines.own_time(profile, URGENT, unit) == 600


def test_a_profile_that_names_no_unit_is_the_same_in_every_county() -> None:
    profile = Profile.parse(RULES)
    assert profile.in_county(Directory(DIVISIONS, [TEAM])) is profile


BASE = """\
profile: sample
title: {zh: 样例, en: Sample}
region: "469002"
timezone: Asia/Shanghai
ladders: {default: [{level: village, title: 村处理}, {level: township, title: 云化解}]}
categories: {dispute: {zh: 纠纷, en: Dispute}}
urgencies: {ordinary: {zh: 缓事, en: Ordinary}, urgent: {zh: 急事, en: Urgent}}
sources: {app: {zh: 手机, en: App}}
outcomes: {settled: {zh: 已化解, en: Settled}}
routing:
  - {when: {urgency: urgent}, enter: {level: village, unit: 治安联防队}}
deadlines:
  - {level: village, when: {unit: 治安联防队}, resolve: 1h, source: assumption}
  - {level: village, when: {unit: team}, resolve: 2h, source: assumption}
  - {level: village, resolve: 3d, source: assumption}
  - {level: township, resolve: 7d, source: assumption}
"""
FILES = {
    "divisions.csv": (
        "code,level,name,parent\n469002,county,琼海市,\n469002104,township,博鳌镇,469002\n"
        "469002104214,village,沙美村委会,469002104\n469002104205,village,朝烈村,469002104\n"
    ),
    "units.csv": (
        "id,name,level,division\nteam,治安联防队,village,469002104214\n"
        "other,治安联防队,village,469002104205\ncentre,综治中心,township,469002104\n"
    ),
}


def wrong(path: Path, old: str, new: str, units: str = "") -> list[str]:
    assert old in BASE
    for name, text in FILES.items():
        (path / name).write_text(text + (units if name == "units.csv" else ""), encoding="utf-8")
    (path / "profile.yaml").write_text(BASE.replace(old, new, 1), encoding="utf-8")
    try:
        load_folder(path)
    except ProfileError as error:
        return [str(problem).removeprefix(f"{path}/") for problem in error.problems]
    return []


OTHER = "when: {unit: team}", "when: {unit: other}"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            *("when: {unit: team}", "when: {unit: team}"),
            "profile.yaml:14: deadlines[1]: never applies: what it matches goes to deadlines[0] "
            "(line 13) before; move it up or remove it",
        ),
        (
            *("unit: 治安联防队}}", "unit: 联防队}}"),
            "profile.yaml:11: routing[0].enter.unit: '联防队' is not known: did you mean "
            "治安联防队? Allowed: 治安联防队, 综治中心",
        ),
        (
            *("when: {unit: team}", "when: {unit: 综治中心}"),
            "profile.yaml:14: deadlines[1].when.unit: '综治中心' is not known: write one of "
            "治安联防队",
        ),
        (
            *("enter: {level: village, unit: 治安联防队}", "enter: {level: village}"),
            "profile.yaml:11: routing[0].enter.unit: is missing: add it",
        ),
        (
            *("when: {urgency: urgent}, enter", "when: {unit: team}, enter"),
            "profile.yaml:11: routing[0].when.unit: 'unit' is not known: write one of urgency, "
            "category, source",
        ),
        (
            *("  - {level: village, resolve: 3d, source: assumption}\n", ""),
            "profile.yaml:14: deadlines[1]: village has no deadline for other cases: "
            "add a last line for village without when",
        ),
        (
            *("when: {unit: team}", "when: {unit: 治安联防队}"),
            "profile.yaml:14: deadlines[1]: never applies: what it matches goes to deadlines[0] "
            "(line 13) before; move it up or remove it",
        ),
    ],
)
def test_what_is_wrong_with_units_is_found_when_loaded(
    tmp_path: Path, old: str, new: str, said: str
) -> None:
    assert wrong(tmp_path, old, new) == [said]


def test_a_line_for_one_unit_before_one_for_all_of_its_name_is_right(tmp_path: Path) -> None:
    lines = BASE.splitlines(keepends=True)
    swapped = "".join([*lines[:12], lines[13], lines[12], *lines[14:]])
    assert wrong(tmp_path, BASE, swapped) == []
    profile = load_folder(tmp_path).profile
    for unit, seconds in (("team", 7200), ("other", 3600)):
        found = Address("village", VILLAGE, unit)
        assert deadlines.own_time(profile, {"urgency": "urgent"}, found) == seconds


def test_two_units_of_a_place_have_two_names(tmp_path: Path) -> None:
    again = "team2,治安联防队,village,469002104214\n"
    assert wrong(tmp_path, "when: {unit: team}", "when: {urgency: urgent}", again) == [
        "units.csv:5: name: 治安联防队 is there already, in line 2: write another name"
    ]
