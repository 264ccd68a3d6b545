"""Profiles: what is read, every mistake with its line, and where a case begins and goes on."""

from __future__ import annotations

import copy
import json
import tempfile
from collections.abc import Mapping, Sequence
from datetime import date, time
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.grid import deadlines
from services.grid.calendars import Holidays, Hours
from services.grid.clock import Instant
from services.grid.conditions import FIELDS, Condition, uncovered, unreachable
from services.grid.deadlines import Start
from services.grid.directory import Directory, Division, DivisionError
from services.grid.profile import Profile, ProfileError, load, load_folder, profile_for
from services.grid.tokens import Address

PROFILES = Path(__file__).parents[2] / "profiles"
QIONGHAI = load_folder(PROFILES / "qionghai")
COUNTY = QIONGHAI.directory
SHAMEI = "469002104214"

BASE = """\
profile: sample
title: {zh: 样例, en: Sample}
region: "469002"
timezone: Asia/Shanghai
ladders:
  default:
    - {level: household, title: 户联系}
    - {level: village, title: 村处理}
    - {level: township, title: 云化解}
  short:
    - {level: township, title: 云化解}
categories: {dispute: {zh: 纠纷, en: Dispute}, safety: {zh: 安全, en: Safety}}
urgencies: {ordinary: {zh: 缓事, en: Ordinary}, urgent: {zh: 急事, en: Urgent}}
sources: {hotline: {zh: 热线, en: Hotline}, app: {zh: 手机, en: App}}
outcomes: {settled: {zh: 已化解, en: Settled}}
routing:
  - {when: {category: safety, urgency: urgent}, ladder: short, also_tell: [village]}
  - {when: {urgency: [urgent]}, enter: village}
unstaffed: skip
grace: 5m
deadlines:
  - {level: household, when: {urgency: urgent}, resolve: 1h, source: assumption}
  - {level: household, resolve: 1d, source: assumption}
  - {level: village, acknowledge: 4h, resolve: 3d, remind: [50%], source: assumption}
  - {level: township, resolve: 7d, then: {supervise: 1d, tell: ["469002"]}, source: assumption}
templates:
  - {on: case.assigned, tell: [holder], by: [log], text: "{title} {due}"}
"""


def source(old: str = "", new: str = "") -> str:
    assert old in BASE
    return BASE.replace(old, new, 1) if old else BASE + new


def sample(folder: Path, text: str = BASE) -> Profile:
    (folder / "profile.yaml").write_text(text, encoding="utf-8")
    return load(folder)


def problems(folder: Path, text: str) -> list[tuple[int, str, str]]:
    with pytest.raises(ProfileError) as raised:
        sample(folder, text)
    found = raised.value.problems
    assert {problem.file for problem in found} == {str(folder / "profile.yaml")}
    return [(problem.line, problem.field, problem.text) for problem in found]


# -- what is read --------------------------------------------------------------------------


def test_a_profile_is_read(tmp_path: Path) -> None:
    profile = sample(tmp_path)
    assert profile.name == "sample"
    assert profile.title == {"zh": "样例", "en": "Sample"}
    assert (profile.region, profile.timezone) == ("469002", "Asia/Shanghai")
    assert profile.levels == ("household", "village", "township")
    assert [step.title for step in profile.ladders["default"]] == ["户联系", "村处理", "云化解"]
    assert (profile.unstaffed, profile.grace) == ("skip", 300)
    assert list(profile.urgencies) == ["ordinary", "urgent"]
    assert profile.outcomes == {"settled": {"zh": "已化解", "en": "Settled"}}
    assert profile.duplicates.within == 3 * 86400
    (template,) = profile.templates
    assert (template.on, template.tell, template.by) == ("case.assigned", ("holder",), ("log",))
    village = Address("village", "469002104214")
    assert profile.title_of("default", village, COUNTY) == "村处理"
    # Of a case that went to another ladder's level.
    assert profile.title_of("short", village, COUNTY) == "村处理"
    assert profile.title_of("default", Address("farm", "469002104214"), COUNTY) == "farm"


def test_the_version_is_the_hash_of_the_content(tmp_path: Path) -> None:
    profile = sample(tmp_path)
    name, _, digest = profile.id.partition("@")
    assert name == "sample"
    assert len(digest) == 12
    assert int(digest, 16) >= 0
    same = sample(
        tmp_path,
        "# a comment\n"
        + source("{level: village, title: 村处理}", "{title: 村处理, level: village}"),
    )
    assert same.id == profile.id
    assert sample(tmp_path, source("grace: 5m", "grace: 6m")).id != profile.id


def test_rules_travel_as_json(tmp_path: Path) -> None:
    profile = sample(tmp_path)
    assert Profile.parse(json.loads(json.dumps(profile.rules))) == profile
    assert Profile.parse(profile.rules) is Profile.parse(dict(profile.rules))


def test_rules_that_travel_are_checked_too(tmp_path: Path) -> None:
    rules = sample(tmp_path).rules
    with pytest.raises(ProfileError) as raised:
        Profile.parse({**rules, "grace": "soon", "region": None})
    assert str(raised.value) == (
        "profile.yaml: grace: 'soon': write a duration such as 90s, 10m, 2h or 1d, above 0 and "
        "at most 3660d\nprofile.yaml: region: write a text of 1 to 200 characters"
    )
    with pytest.raises(ProfileError, match="grace: write a text"):
        Profile.parse({**rules, "grace": float("nan")})
    with pytest.raises(ProfileError, match="the rules are not JSON"):
        Profile.parse({**rules, "grace": {1, 2}})


def test_optional_parts_have_defaults(tmp_path: Path) -> None:
    rules = {**sample(tmp_path).rules}
    for name in ("routing", "unstaffed", "grace", "templates"):
        del rules[name]
    profile = Profile.parse(rules)
    assert (profile.unstaffed, profile.grace) == ("deputy", 600)
    assert (profile.routing, profile.templates) == ((), ())


def test_levels_of_several_ladders_are_in_one_order(tmp_path: Path) -> None:
    text = source("  short:\n", "  short:\n    - {level: area, title: 片区}\n").replace(
        "deadlines:\n", "deadlines:\n  - {level: area, resolve: 1d, source: assumption}\n"
    )
    levels = sample(tmp_path, text).levels
    assert sorted(levels) == ["area", "household", "township", "village"]
    assert levels.index("area") < levels.index("township")


# -- every mistake with its line -----------------------------------------------------------

DURATIONS = "write a duration such as 90s, 10m, 2h or 1d"
MISTAKES = [
    (
        "profile: sample",
        "profile: 四级",
        1,
        "profile",
        "'四级': write a lower-case word: a letter, then letters, digits, _",
    ),
    ("profile: sample\n", "", 1, "profile", "is missing: add it"),
    ("title: {zh: 样例, en: Sample}", "title: 样例", 2, "title", "write a mapping of zh, en"),
    ("title: {zh: 样例, en: Sample}", "title: {zh: 样例}", 2, "title.en", "is missing: add it"),
    ('region: "469002"', "region: 469002", 3, "region", 'is 469002, not text: quote it, "469002"'),
    (
        'region: "469002"',
        'region: "46900"',
        3,
        "region",
        "'46900': write a division code in quotes, such as \"469002\"",
    ),
    (
        "Asia/Shanghai",
        "Asia/Shanghia",
        4,
        "timezone",
        "'Asia/Shanghia' is not a time zone: did you mean Asia/Shanghai? "
        "Write an IANA name such as Asia/Shanghai",
    ),
    (
        "Asia/Shanghai",
        "../zone",
        4,
        "timezone",
        "'../zone' is not a time zone: write an IANA name such as Asia/Shanghai",
    ),
    ("  default:", "  usual:", 5, "ladders", "there is no ladder named default: add it"),
    (
        "    - {level: household, title: 户联系}\n    - {level: village, title: 村处理}",
        "    - {level: village, title: 村处理}\n    - {level: household, title: 户联系}",
        8,
        "ladders.default[1].level",
        "a ladder goes upwards, but household is below village: write household before village",
    ),
    (
        "  short:",
        "    - {level: township, title: 镇}\n  short:",
        10,
        "ladders.default[3].level",
        "township stands in this ladder twice: keep one",
    ),
    (
        "{level: village, title: 村处理}",
        "{level: village}",
        8,
        "ladders.default[1].title",
        "is missing: add it",
    ),
    (
        "{level: village, title: 村处理}",
        "{level: village, titel: 村处理, title: 村}",
        8,
        "ladders.default[1].titel",
        "'titel' is not known: did you mean title? Allowed: level, title, unit",
    ),
    (
        "  short:\n    - {level: township, title: 云化解}\n",
        "  short: []\n",
        10,
        "ladders.short",
        "write a list with at least one entry",
    ),
    (
        "{dispute: {zh: 纠纷, en: Dispute}, safety: {zh: 安全, en: Safety}}",
        "{}",
        12,
        "categories",
        "write a mapping with at least one entry",
    ),
    (
        "{category: safety, urgency: urgent}",
        "{category: safty, urgency: urgent}",
        17,
        "routing[0].when.category",
        "'safty' is not known: did you mean safety? Allowed: dispute, safety",
    ),
    (
        "{category: safety, urgency: urgent}",
        "{kind: safety}",
        17,
        "routing[0].when.kind",
        "'kind' is not known: write one of urgency, category, source",
    ),
    (
        "ladder: short",
        "ladder: long",
        17,
        "routing[0].ladder",
        "'long' is not known: write one of default, short",
    ),
    (
        "also_tell: [village]",
        "also_tell: [county]",
        17,
        "routing[0].also_tell",
        "'county' is not known: write one of household, village, township",
    ),
    (
        "enter: village",
        "enter: group",
        18,
        "routing[1].enter",
        "'group' is not known: write one of household, village, township",
    ),
    (
        "ladder: short, also_tell",
        "ladder: short, enter: village, also_tell",
        17,
        "routing[0].enter",
        "'village' is not known: write one of township",
    ),
    (
        "{urgency: [urgent]}",
        "{urgency: [urgent, urgent]}",
        18,
        "routing[1].when.urgency",
        "'urgent' is given twice: keep one",
    ),
    (
        "{when: {category: safety, urgency: urgent}, ladder",
        "{ladder",
        18,
        "routing[1]",
        "never applies: what it matches goes to routing[0] (line 17) before; "
        "move it up or remove it",
    ),
    (
        "unstaffed: skip",
        "unstaffed: skipp",
        19,
        "unstaffed",
        "'skipp' is not known: did you mean skip? Allowed: deputy, skip, hold",
    ),
    ("grace: 5m", "grace: 5", 20, "grace", 'is 5, not text: quote it, "5"'),
    (
        "grace: 5m",
        "grace: 5 minutes",
        20,
        "grace",
        f"'5 minutes': {DURATIONS}, above 0 and at most 3660d",
    ),
    (
        "{level: household, when: {urgency: urgent}, resolve: 1h",
        "{level: houshold, resolve: 1h",
        22,
        "deadlines[0].level",
        "'houshold' is not known: did you mean household? Allowed: household, village, township",
    ),
    (
        "resolve: 1h",
        "resolve: end_of_month",
        22,
        "deadlines[0].resolve",
        f"'end_of_month' is not a deadline: {DURATIONS}, end_of_day, 3 working days, 4 working "
        "hours (or minutes), monthly_window 1-7 (from the 1st to the end of the 7th); with "
        "' since report' after it, it counts from the report on",
    ),
    (
        "resolve: 1h",
        "resolve: 3 working days",
        22,
        "deadlines[0]",
        "'3 working days' needs a calendar: add calendar: one, in a part calendars",
    ),
    (
        "resolve: 1h",
        "resolve: {monthly_window: [1, 7]}",
        22,
        "deadlines[0].resolve",
        "write a list with at least one entry",
    ),
    ("resolve: 1h", "resolve:", 22, "deadlines[0].resolve", "write a list with at least one entry"),
    ("resolve: 1h", "acknowledge: 1h", 22, "deadlines[0].resolve", "is missing: add it"),
    (
        "resolve: 1h",
        "resolve: 1h, calendar: office",
        22,
        "deadlines[0].calendar",
        "there are no calendars: add the part calendars",
    ),
    ("", "calendars: {}\n", 28, "calendars", "write a mapping with at least one entry"),
    (
        "",
        "calendars: {office: {holidays: cn}}\n",
        28,
        "calendars.office.days",
        "is missing: add it",
    ),
    *(
        (
            "",
            f"calendars: {{office: {{days: {days}}}}}\n",
            28,
            "calendars.office.days",
            f"'{days}': write all, a range such as Mon-Fri, or a list of Mon, Tue, Wed, Thu, Fri, "
            "Sat, Sun",
        )
        for days in ("monday", "Mon-", "Mon-Fri-Sun", "mon-fri", "星期一")
    ),
    *(
        (
            "",
            f'calendars: {{office: {{days: all, hours: ["08:00-12:00", "{hours}"]}}}}\n',
            28,
            "calendars.office.hours",
            f"'{hours}'{said}",
        )
        for hours, said in (
            ("8:30-12:00", ': write hours in quotes, such as "08:30-12:00"'),
            ("24:00-24:00", ': write hours in quotes, such as "08:30-12:00"'),
            ("14:00-13:00", " ends before it begins: write the earlier time first"),
            ("14:00-14:00", " ends before it begins: write the earlier time first"),
            ("11:59-13:00", ": write the hours of a day in order, none twice"),
        )
    ),
    (
        "resolve: 1h, source: assumption",
        "resolve: 1h",
        22,
        "deadlines[0].source",
        "is missing: add it",
    ),
    (
        "when: {urgency: urgent}, resolve: 1h",
        "resolve: 1h",
        23,
        "deadlines[1]",
        "never applies: what it matches goes to deadlines[0] (line 22) before; "
        "move it up or remove it",
    ),
    (
        "  - {level: household, resolve: 1d",
        "  - {level: household, when: {urgency: ordinary, source: [app]}, resolve: 1d",
        23,
        "deadlines[1]",
        "household has no deadline for urgency ordinary: "
        "add a last line for household without when",
    ),
    (
        "  - {level: village, acknowledge: 4h, resolve: 3d, remind: [50%], source: assumption}\n",
        "",
        8,
        "ladders.default[1].level",
        "village has no deadline: add a line for it to deadlines",
    ),
    (
        "remind: [50%]",
        "remind: [half]",
        24,
        "deadlines[2].remind",
        "'half' is not a reminder: write a percentage from 1% to 99%, or a duration "
        "with before or after: 2h before",
    ),
    (
        "remind: [50%]",
        "then: {supervise: 1d}",
        24,
        "deadlines[2].then",
        "only for the last level of a ladder (township): "
        "a case that village does not settle goes one level up by itself",
    ),
    (
        "supervise: 1d",
        "supervise: daily",
        25,
        "deadlines[3].then.supervise",
        f"'daily': {DURATIONS}, above 0 and at most 3660d",
    ),
    (
        'tell: ["469002"]',
        "tell: [琼海市]",
        25,
        "deadlines[3].then.tell",
        "'琼海市': write a division code in quotes, such as \"469002\"",
    ),
    (
        "case.assigned",
        "case.assignd",
        27,
        "templates[0].on",
        "'case.assignd' is not known: did you mean case.assigned? "
        "Allowed: case.reported, case.assigned, case.acknowledged, "
        "case.resolved, case.noted, case.suspended, case.resumed, case.extension_requested, "
        "case.extension_granted, case.extension_refused, case.extended, case.reopened, "
        "case.watched, case.updated, case.feedback_given, case.closed, case.withdrawn, "
        "case.escalated, case.transferred, case.delegated, case.returned, "
        "case.reminded, case.deadline_passed, "
        "case.supervised, case.whistled, case.called, case.checked_in, case.finished, "
        "case.unit_overdue, case.unit_released, case.call_ended, "
        "case.linked, case.followed, case.merged, case.lead_resolved",
    ),
    (
        "tell: [holder]",
        "tell: [everybody]",
        27,
        "templates[0].tell",
        "'everybody' is not known: write one of holder, above, also_tell, told, watchers",
    ),
    (
        "by: [log]",
        "by: [sms]",
        27,
        "templates[0].by",
        "'sms' is not known: write one of log, webhook",
    ),
    ("by: [log]", "by: []", 27, "templates[0].by", "write a list with at least one entry"),
    (
        "{title} {due}",
        "{name}",
        27,
        "templates[0].text",
        "{name} can't be filled in: write {title} {tracking} {division} {level} {due} {unit}",
    ),
    (
        "{title} {due}",
        "{title.upper}",
        27,
        "templates[0].text",
        "{title.upper} can't be filled in: "
        "write {title} {tracking} {division} {level} {due} {unit}",
    ),
    (
        "{title} {due}",
        "{title!r}",
        27,
        "templates[0].text",
        "{title} can't be filled in: write {title} {tracking} {division} {level} {due} {unit}",
    ),
    (
        "{title} {due}",
        "{title",
        27,
        "templates[0].text",
        "expected '}' before end of string: write a single brace twice, {{ or }}",
    ),
    (
        "",
        "archive: {days: 30}\n",
        28,
        "archive",
        "'archive' is not known: write one of profile, title, region, timezone, "
        "ladders, categories, urgencies, sources, outcomes, deadlines, "
        "urgency_order, calendars, routing, "
        "unstaffed, grace, templates, suspensions, extension, reopening, returns, feedback, "
        "public, procedures, authority, duplicates, whistle, sensors, emergency",
    ),
    (
        "",
        "duplicates: {within: soon, source: assumption}\n",
        28,
        "duplicates.within",
        "'soon': write a duration such as 90s, 10m, 2h or 1d, above 0 and at most 3660d",
    ),
    ("", "duplicates: {within: 2d}\n", 28, "duplicates.source", "is missing: add it"),
    ("", "grace: 6m\n", 28, "grace", "given twice, first in line 20: keep one of them"),
    ("", "true: 6m\n", 28, "", "true can't be a key: write a word or quote it"),
    ("", "[a, b]: 6m\n", 28, "", "a list or mapping can't be a key: write a word or quote it"),
    (
        "grace: 5m",
        "grace: !!int five",
        20,
        "grace",
        "the tag tag:yaml.org,2002:int is not allowed: leave it out",
    ),
    (
        "grace: 5m",
        "grace: !!python/name:os.system x",
        20,
        "grace",
        "the tag tag:yaml.org,2002:python/name:os.system is not allowed: leave it out",
    ),
    ("grace: 5m", 'grace: "\\ud800"', 20, "grace", "text with half of a surrogate pair"),
    (
        "grace: 5m",
        "grace: *five",
        20,
        "",
        "not YAML: aliases (*name) are not allowed: write the value out",
    ),
    ("grace: 5m", "grace: [5m", 21, "", "not YAML: expected ',' or ']', but got ':'"),
    ("grace: 5m", "grace: 5\x00m", 20, "", "not YAML: special characters are not allowed"),
    ("", "---\nprofile: another\n", 28, "", "not YAML: but found another document"),
]


@pytest.mark.parametrize(("old", "new", "line", "field", "said"), MISTAKES)
def test_a_mistake_is_named_with_its_line(  # noqa: PLR0917
    tmp_path: Path, old: str, new: str, line: int, field: str, said: str
) -> None:
    assert problems(tmp_path, source(old, new)) == [(line, field, said)]


def test_all_mistakes_are_found_at_once(tmp_path: Path) -> None:
    text = BASE.replace("Asia", "Azia").replace("grace: 5m", "grce: 5m").replace("7d", "7x")
    assert [(line, field) for line, field, _ in problems(tmp_path, text)] == [
        (4, "timezone"),
        (20, "grce"),
        (25, "deadlines[3].resolve"),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "write a mapping of profile, title,"),
        ("- a list\n", "write a mapping of profile, title,"),
        ("[" * 3000, "nested too deeply"),
    ],
)
def test_a_file_that_is_no_profile(tmp_path: Path, text: str, said: str) -> None:
    ((_, field, text),) = problems(tmp_path, text)
    assert field == ""
    assert said in text


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(0, 1) | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of everything inside plain rules."""
    found = []
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        found.append((*path, key))
        if isinstance(inner, dict | list):
            found += places(inner, (*path, key))
    return found


@given(st.sampled_from(places(QIONGHAI.profile.rules)), JSON | st.just("469002"))
def test_any_damage_to_the_rules_is_either_read_or_named(path: tuple[Any, ...], value: Any) -> None:
    rules = copy.deepcopy(QIONGHAI.profile.rules)
    part: Any = rules
    for step in path[:-1]:
        part = part[step]
    part[path[-1]] = value
    try:
        assert Profile.parse(rules).rules == rules
    except ProfileError as error:
        assert error.problems


@given(
    st.integers(0, len(BASE) - 1), st.text(alphabet="{}[]:,\"' \n\t#&*!|>-%@`a1村\x00", max_size=3)
)
def test_any_damage_to_the_text_is_either_read_or_named(position: int, inserted: str) -> None:
    text = BASE[:position] + inserted + BASE[position + 1 :]
    with tempfile.TemporaryDirectory() as folder:
        try:
            sample(Path(folder), text)
        except ProfileError as error:
            assert error.problems


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match=r"profile\.yaml: can't be read: No such file"):
        load(tmp_path)
    (tmp_path / "profile.yaml").write_bytes("profile: 琼海".encode("gb18030"))
    with pytest.raises(ProfileError, match=r"profile\.yaml:1: not UTF-8: save it as UTF-8"):
        load(tmp_path)


def test_ladders_that_contradict_each_other(tmp_path: Path) -> None:
    text = source(
        "  short:\n    - {level: township, title: 云化解}\n",
        "  first: [{level: estate, title: 小区}, {level: area, title: 片区}]\n"
        "  second: [{level: area, title: 片区}, {level: estate, title: 小区}]\n",
    ).replace(", ladder: short", "")
    text = text.replace(
        "deadlines:\n",
        "deadlines:\n  - {level: area, resolve: 1d, source: assumption}\n"
        "  - {level: estate, resolve: 1d, source: assumption}\n",
    )
    ((line, field, said),) = problems(tmp_path, text)
    assert (line, field) == (5, "ladders")
    assert said.startswith("the ladders contradict each other: ")
    assert "area < estate" in said


KNOWN = {
    "urgency": ("a", "b"),
    "category": ("a", "b", "c", "d"),
    "source": ("a", "b"),
    "unit": ("a", "b"),
}
CONDITIONS = st.lists(
    st.fixed_dictionaries(
        {},
        optional={name: st.frozensets(st.sampled_from(KNOWN[name]), min_size=1) for name in FIELDS},
    ).map(Condition),
    min_size=1,
    max_size=5,
)


@given(CONDITIONS)
def test_reach_and_cover_are_exact(conditions: list[Condition]) -> None:
    cases = [
        dict(zip(FIELDS, values, strict=True)) for values in product(*(KNOWN[n] for n in FIELDS))
    ]
    first = [
        next((i for i, condition in enumerate(conditions) if condition.matches(case)), None)
        for case in cases
    ]
    assert set(unreachable(conditions, KNOWN)) == set(range(len(conditions))) - set(first)
    gap = uncovered(conditions, KNOWN)
    assert (gap is None) == (None not in first)


# -- where a case begins and goes on -------------------------------------------------------


def entry(profile: Profile, division: str, directory: Directory = COUNTY, **facts: str) -> Any:
    case = {"urgency": "ordinary", "category": "dispute", "source": "app", **facts}
    return profile.enter(case, division, directory)


@pytest.mark.parametrize(
    ("division", "facts", "address", "rule"),
    [
        (SHAMEI + "03007", {}, Address("household", SHAMEI + "03007"), "default"),
        # The ladder has no group level: the next one up.
        (SHAMEI + "03", {}, Address("village", SHAMEI), "default"),
        (SHAMEI, {}, Address("village", SHAMEI), "default"),
        ("469002104", {}, Address("township", "469002104"), "default"),
        (
            SHAMEI + "03007",
            {"urgency": "urgent"},
            Address("village", SHAMEI),
            "profile.yaml routing[1]",
        ),
        (
            "469002104",
            {"urgency": "urgent"},
            Address("township", "469002104"),
            "profile.yaml routing[1]",
        ),
        (
            SHAMEI + "03007",
            {"urgency": "urgent", "category": "safety"},
            Address("township", "469002104"),
            "profile.yaml routing[0]",
        ),
    ],
)
def test_where_a_case_begins(
    tmp_path: Path, division: str, facts: Mapping[str, str], address: Address, rule: str
) -> None:
    found = entry(sample(tmp_path), division, **facts)
    assert (found.address, found.rule, found.triage) == (address, rule, False)
    short = rule == "profile.yaml routing[0]"
    assert found.ladder == ("short" if short else "default")
    assert found.also_tell == (("village",) if short else ())


def test_a_report_from_above_the_ladder_is_for_triage(tmp_path: Path) -> None:
    found = entry(sample(tmp_path), "469002")
    assert found.address == Address("township", "469002")
    assert found.triage


def test_an_unknown_division_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DivisionError, match="the nearest that is known is 469002104 博鳌镇"):
        entry(sample(tmp_path), "469002104999")


def test_one_level_up(tmp_path: Path) -> None:
    profile = sample(tmp_path)
    steps = [Address("household", SHAMEI + "03007", "a-unit")]
    while (above := profile.next_address("default", steps[-1], COUNTY)) is not None:
        steps.append(above)
    assert steps[1:] == [Address("village", SHAMEI), Address("township", "469002104")]
    assert profile.next_address("default", Address("county", "469002"), COUNTY) is None


def test_a_level_that_a_place_does_not_have_is_skipped(tmp_path: Path) -> None:
    tree = Directory(
        [
            Division("469002", "琼海市", "county", None, "county"),
            Division("469002104", "博鳌镇", "township", "469002", "township"),
            Division("469002104901", "海上网格", "household", "469002104", "online"),
            Division("469002900", "直属片区", "village", "469002", "area"),
        ]
    )
    profile = sample(tmp_path)
    first = Address("household", "469002104901")
    assert entry(profile, "469002104901", tree).address == first
    assert profile.next_address("default", first, tree) == Address("township", "469002104")
    assert profile.next_address("default", Address("village", "469002900"), tree) is None


@given(
    st.integers(1, 99), st.integers(1, 999), st.sampled_from(["ordinary", "urgent", "emergency"])
)
def test_every_case_of_qionghai_climbs_to_the_last_level(
    group: int, household: int, urgency: str
) -> None:
    profile = QIONGHAI.profile
    code = f"{SHAMEI}{group:02d}{household:03d}"
    found = entry(profile, code, urgency=urgency)
    address = found.address
    facts = {"urgency": urgency, "category": "dispute", "source": "app"}
    visited = [address.level]
    while True:
        assert deadlines.own_time(profile, facts, address) > 0
        assert COUNTY.within(code, address.division)
        above = profile.next_address(found.ladder, address, COUNTY)
        if above is None:
            break
        address = above
        visited.append(address.level)
    assert visited == (list(profile.levels) if urgency != "emergency" else ["township"])
    assert deadlines.then(profile, facts, address) is not None


def test_the_nearest_region_applies(tmp_path: Path) -> None:
    county = sample(tmp_path)
    township = Profile.parse({**county.rules, "profile": "boao", "region": "469002104"})
    both = [county, township]
    assert profile_for(both, SHAMEI + "03007", COUNTY) == township
    assert profile_for(both, "469002105", COUNTY) == county
    assert profile_for(both, "469002", COUNTY) == county
    assert profile_for([township], "469002105", COUNTY) is None
    assert profile_for(both, "110101", COUNTY) is None
    other = Profile.parse({**county.rules, "grace": "7m"})
    assert profile_for([county, other], "469002", COUNTY) == profile_for(
        [other, county], "469002", COUNTY
    )


@pytest.mark.parametrize(
    ("days", "found"),
    [
        ("all", range(7)),
        ("Mon-Fri", range(5)),
        ("Sat-Mon", (5, 6, 0)),
        ("Sun", (6,)),
        ("[Mon, Wed-Thu]", (0, 2, 3)),
    ],
)
def test_the_days_of_a_calendar(tmp_path: Path, days: str, found: Sequence[int]) -> None:
    text = source("", f"calendars: {{office: {{days: {days}, hours: '08:30-24:00'}}}}\n")
    calendar = sample(tmp_path, text).calendars["office"]
    assert calendar.days == frozenset(found)
    assert calendar.hours == (Hours(time(8, 30), None),)
    assert calendar.holidays is None


def folder_with(tmp_path: Path, holidays: str, calendar: str = "cn") -> Path:
    extra = f"calendars: {{office: {{days: Mon-Fri, holidays: {calendar}}}}}\n"
    (tmp_path / "profile.yaml").write_text(source("", extra), encoding="utf-8")
    divisions = (PROFILES / "qionghai" / "divisions.csv").read_text(encoding="utf-8")
    (tmp_path / "divisions.csv").write_text(divisions, encoding="utf-8")
    (tmp_path / "holidays.csv").write_text(holidays, encoding="utf-8")
    return tmp_path


def test_holidays_of_a_file_beside_the_profile(tmp_path: Path) -> None:
    rows = ("cn,2027-01-01,off,元旦", "cn,2027-01-02,work,", "local,2026-08-08,off,")
    text = "\n".join(("holidays,date,day,name", *rows))
    loaded = load_folder(folder_with(tmp_path, text))
    assert [(year.id, year.days) for year in loaded.holiday_years] == [
        ("cn-2027", {"2027-01-01": "off", "2027-01-02": "work"}),
        ("local-2026", {"2026-08-08": "off"}),
    ]
    assert loaded.holidays.of("cn", date(2027, 1, 1)) == "off"
    assert loaded.holidays.of("cn", date(2026, 10, 1)) == "off"


@pytest.mark.parametrize(
    ("row", "line"),
    [
        ("cn,2027-02-29,off,", "2: date: '2027-02-29': day is out of range for month"),
        ("cn,2027-1-1,off,", "2: date: '2027-1-1': write a date such as 2027-01-01"),
        ("cn,2027-01-01,free,", "2: day: 'free' is not known: write one of off, work"),
        ("节日,2027-01-01,off,", "2: holidays: '节日': write a lower-case word, such as village"),
        (
            "cn,2027-01-01,off,\ncn,2027-01-01,work,",
            "3: date: 2027-01-01 is given twice: keep one of them",
        ),
    ],
)
def test_a_mistake_in_the_holidays_is_named(tmp_path: Path, row: str, line: str) -> None:
    with pytest.raises(ProfileError) as raised:
        load_folder(folder_with(tmp_path, f"holidays,date,day,name\n{row}\n"))
    assert str(raised.value) == f"{tmp_path / 'holidays.csv'}:{line}"


def test_a_calendar_whose_holidays_nobody_has_is_named(tmp_path: Path) -> None:
    with pytest.raises(ProfileError) as raised:
        load_folder(folder_with(tmp_path, "holidays,date,day\n", "local"))
    (problem,) = raised.value.problems
    assert (problem.line, problem.field) == (28, "calendars.office.holidays")
    assert problem.text == "'local' is not known: write one of cn, or add a holidays.csv"


# -- whole folders -------------------------------------------------------------------------


NOON = Instant("2026-11-26T04:00:00.000Z")


def test_qionghai_covers_its_cases() -> None:
    profile = QIONGHAI.profile
    assert profile.levels == ("household", "group", "village", "township")
    start = Start(Instant("2026-01-05T00:00:00.000Z"), Instant("2026-01-05T00:00:00.000Z"))
    lines = (PROFILES / "qionghai" / "cases.jsonl").read_text(encoding="utf-8").splitlines()
    for case in map(json.loads, lines):
        code = case["division"]
        code += f"{case['group']:02d}" if case["group"] else ""
        code += f"{case['grid']:03d}" if case["grid"] else ""
        assert case["category"] in profile.categories
        assert case["urgency"] in profile.urgencies
        assert case["source"] in profile.sources
        found = profile.enter(case, code, COUNTY)
        assert not found.triage
        assert deadlines.for_level(profile, case, found.address, start, Holidays())
        assert COUNTY.lead(*found.address[:2], NOON) is not None


def test_qionghai_has_places_with_nobody_on_duty() -> None:
    assert COUNTY.on_duty("household", "46900210420307009", None, NOON) == ()
    deputy = COUNTY.lead("household", "46900210420307009", NOON)
    assert deputy is not None
    assert (deputy.officer.level, deputy.officer.division) == ("group", "46900210420307")
    assert COUNTY.on_duty("village", "469002104200", None, NOON) == ()
    deputy = COUNTY.lead("village", "469002104200", NOON)
    assert deputy is not None
    assert deputy.officer.division == "469002104"


DIVISIONS = (
    "code,level,name,parent\n469002,county,琼海市,\n469002104,township,博鳌镇,469002\n"
    "469002104214,village,沙美村委会,469002104\n"
)


def folder(path: Path, **files: str) -> Path:
    contents = {"profile": BASE, "divisions": DIVISIONS, **files}
    for name, text in contents.items():
        ending = "yaml" if name == "profile" else "csv"
        (path / f"{name}.{ending}").write_text(text, encoding="utf-8")
    return path


def folder_problems(path: Path) -> list[str]:
    with pytest.raises(ProfileError) as raised:
        load_folder(path)
    return [str(problem).removeprefix(f"{path}/") for problem in raised.value.problems]


def test_units_and_officers_may_be_absent(tmp_path: Path) -> None:
    loaded = load_folder(folder(tmp_path))
    assert (len(loaded.divisions), loaded.units, loaded.officers) == (3, (), ())
    assert loaded.profile == load(tmp_path)


def test_the_mistakes_of_all_files_are_found_at_once(tmp_path: Path) -> None:
    path = folder(
        tmp_path,
        profile=BASE.replace("5m", "5"),
        divisions=DIVISIONS + "x,village,村,469002\n",
        units="id,name,level,division\nno team,联防队,village,469002104214\n",
    )
    assert [line.partition(": ")[0] for line in folder_problems(path)] == [
        "divisions.csv:5",
        "profile.yaml:20",
        "units.csv:2",
    ]


def test_places_that_the_directory_does_not_know(tmp_path: Path) -> None:
    path = folder(
        tmp_path,
        profile=BASE.replace('tell: ["469002"]', 'tell: "469003"'),
        units="id,name,level,division\nsecurity,联防队,village,469002104999\n",
        officers=(
            "id,name,level,division,unit,role,on_duty\n"
            "a,甲,village,46900210421403,,officer,true\n"
            "b,乙,village,469002104214,securty,officer,true\n"
            "c,丙,township,469002104,security,officer,true\n"
            "d,丁,township,469002,,officer,true\n"
        ),
    )
    near = "the nearest that is known is 469002104 博鳌镇"
    assert folder_problems(path) == [
        "officers.csv:3: unit: 'securty' is not known: did you mean security? Allowed: security",
        "officers.csv:4: unit: security is of village 469002104999: write these here too",
        "profile.yaml:25: deadlines[3].then.tell: 469003 is not in the directory, which has "
        "469002 琼海市",
        f"units.csv:2: division: 469002104999 is not in the directory: {near}",
    ]


def test_an_officer_serves_at_the_level_of_the_division(tmp_path: Path) -> None:
    officers = (
        "id,name,level,division,unit,role,on_duty\n"
        "a,甲,village,469002104,,officer,true\nb,乙,township,469002,,lead,true\n"
    )
    assert folder_problems(folder(tmp_path, officers=officers)) == [
        "officers.csv:2: level: 469002104 is a township: write township"
    ]


def test_divisions_outside_the_region(tmp_path: Path) -> None:
    divisions = DIVISIONS + "632623,county,甘德县,\n"
    assert folder_problems(folder(tmp_path, divisions=divisions)) == [
        "divisions.csv:5: code: 632623 is not in the profile's region 469002: leave it out"
    ]


def test_a_ladder_that_the_directory_turns_round(tmp_path: Path) -> None:
    text = BASE.replace("level: village", "level: area")
    text = text.replace("[village]", "[area]").replace("enter: village", "enter: area")
    divisions = DIVISIONS + "469002900,area,片区,469002\n469002901,township,场,469002900\n"
    assert folder_problems(folder(tmp_path, profile=text, divisions=divisions)) == [
        "profile.yaml:9: ladders.default[2].level: stands above area, but 469002901 场 is below "
        "469002900 片区: write township before area",
        "profile.yaml:11: ladders.short[0].level: stands above area, but 469002901 场 is below "
        "469002900 片区: write township before area",
    ]


def test_a_level_that_no_division_has(tmp_path: Path) -> None:
    text = BASE.replace("level: village", "level: vilage")
    text = text.replace("[village]", "[vilage]").replace("enter: village", "enter: vilage")
    (said,) = folder_problems(folder(tmp_path, profile=text))
    assert said == (
        "profile.yaml:8: ladders.default[1].level: 'vilage' is not known: did you mean village? "
        "Allowed: county, group, household, township, village"
    )


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match=r"nowhere: is not a folder with a profile\.yaml"):
        load_folder(tmp_path / "nowhere")


def test_how_urgent_something_is_survives_the_journey() -> None:
    # On the bus and in the store the keys of a mapping have an order of their own.
    travelled = json.loads(json.dumps(QIONGHAI.profile.rules, sort_keys=True))
    assert list(travelled["urgencies"]) == ["emergency", "ordinary", "urgent"]
    arrived = Profile.parse(travelled)
    assert list(arrived.urgencies) == ["ordinary", "urgent", "emergency"]
    assert (arrived.id, arrived.urgencies) == (QIONGHAI.profile.id, QIONGHAI.profile.urgencies)
    # What was published before has the order that it had, and its version.
    before = {name: value for name, value in travelled.items() if name != "urgency_order"}
    assert Profile.parse(before).id != arrived.id
    for order, said in (
        (["ordinary", "urgent"], "write each of"),
        (["ordinary", "urgent", "emergency", "never"], "'never' is not known"),
        (["ordinary", "urgent", "urgent"], "given twice"),
    ):
        with pytest.raises(ProfileError, match=said):
            Profile.parse({**travelled, "urgency_order": order})
