"""The directory: codes, parents, paths, names, who is on duty, and its files."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.grid.clock import FrozenClock
from services.grid.directory import Directory, Division, DivisionError, Officer
from services.grid.directory_source import read_divisions, read_officers, read_units
from services.grid.problems import ProfileError

QIONGHAI = Path(__file__).parents[2] / "profiles" / "qionghai"
SHAMEI = "469002104214"
AT = FrozenClock().now()

COUNTY = Directory(read_divisions(QIONGHAI / "divisions.csv"))
VILLAGES = sorted(code for code, place in COUNTY.divisions.items() if place.level == "village")

GADE = Directory(
    [
        Division("632623", "甘德县", "county", None, "county"),
        Division("632623100", "柯曲镇", "township", "632623", "township"),
        Division("632623100002", "达协居委会", "village", "632623100", "community"),
        Division("632623100205", "达协村委会", "village", "632623100", "village"),
        Division("632623204", "江千乡", "township", "632623", "township"),
        Division("632623204201", "隆吉村委会", "village", "632623204", "village"),
        Division("632623205", "下藏科乡", "township", "632623", "township"),
        Division("632623205201", "江千村委会", "village", "632623205", "village"),
    ]
)
NINGXIANG = Directory(
    [
        Division("430182", "宁乡市", "county", None, "county"),
        Division("430182001", "玉潭街道", "township", "430182", "township"),
        Division("430182001001", "文中社区居委会", "village", "430182001", "community"),
        Division("430182001013", "楚沩社区", "village", "430182001", "community"),
        Division("430182105", "双江口镇", "township", "430182", "township"),
        Division("430182105221", "罗巷新村村民委委会", "village", "430182105", "village"),
        Division("430182001900", "一片区", "area", "430182001", "area"),
        Division("430182001014", "新山社区", "village", "430182001900", "community"),
    ]
)


def below(villages: list[str] = VILLAGES) -> st.SearchStrategy[str]:
    """The code of a village, or of a group or household grid that is implied under it."""
    return st.one_of(
        st.sampled_from(villages),
        st.builds(lambda v, g: f"{v}{g:02d}", st.sampled_from(villages), st.integers(1, 99)),
        st.builds(
            lambda v, g, h: f"{v}{g:02d}{h:03d}",
            st.sampled_from(villages),
            st.integers(1, 99),
            st.integers(1, 999),
        ),
    )


# -- codes ---------------------------------------------------------------------------------


def test_groups_and_household_grids_are_implied_under_a_known_village() -> None:
    group = COUNTY.division(SHAMEI + "03")
    household = COUNTY.division(SHAMEI + "03007")
    assert group == Division(SHAMEI + "03", "3组", "group", SHAMEI, "group")
    assert household == Division(SHAMEI + "03007", "7户", "household", SHAMEI + "03", "household")


@pytest.mark.parametrize(
    "code",
    [
        SHAMEI + "00",
        SHAMEI + "00001",
        SHAMEI + "03000",
        SHAMEI + "3",
        SHAMEI + "030071",
        "46900210499903",
        SHAMEI + "٠٣",
        SHAMEI + " 3",
        "",
    ],
)
def test_nothing_else_is_implied(code: str) -> None:
    assert COUNTY.division(code) is None
    assert COUNTY.ancestors(code) == ()
    assert not COUNTY.within(code, "469002")


def test_a_listed_group_keeps_its_own_name_and_parent() -> None:
    listed = Division(SHAMEI + "03", "美雅组", "group", SHAMEI, "group")
    county = Directory([*COUNTY.divisions.values(), listed])
    assert county.division(SHAMEI + "03") == listed
    assert county.parent(SHAMEI + "03007") == listed
    assert county.name(SHAMEI + "03007") == "琼海市博鳌镇沙美村委会美雅组7户"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (
            "469002104999",
            "469002104999 is not in the directory: the nearest that is known is 469002104 博鳌镇",
        ),
        (
            SHAMEI + "00",
            "46900210421400 is not in the directory: the nearest that is known is 469002104214 "
            "沙美村委会; below a village write 2 digits for the group (01 to 99) and 3 more for "
            "the household grid (001 to 999)",
        ),
        ("110101", "110101 is not in the directory, which has 469002 琼海市"),
        (
            "Shamei",
            "'Shamei' is not a division code: write digits only, 6 for the county, 9 for the "
            "township, 12 for the village, 14 for the group, 17 for the household grid",
        ),
    ],
)
def test_a_wrong_code_is_answered_with_what_is_allowed(code: str, said: str) -> None:
    assert COUNTY.check_code(code) == said
    with pytest.raises(DivisionError) as raised:
        COUNTY.known(code)
    assert str(raised.value) == said


def test_an_empty_directory_says_so() -> None:
    assert (
        Directory().check_code("469002")
        == "469002 is not in the directory, which has no divisions yet"
    )


@given(below())
def test_ancestors_go_up_to_the_county(code: str) -> None:
    chain = COUNTY.ancestors(code)
    assert chain[0].code == code
    assert [place.code for place in chain[1:]] == [
        code[:length] for length in (14, 12, 9, 6) if length < len(code)
    ]
    assert COUNTY.check_code(code) is None
    for place in chain:
        assert COUNTY.within(code, place.code)
        assert COUNTY.ancestor(code, place.level) == place
    assert not COUNTY.within("469002", code)


# -- paths and names -----------------------------------------------------------------------


def test_the_path_of_a_household_grid() -> None:
    assert COUNTY.path(SHAMEI + "03007") == "46.90.02.104.214.03.007"


@given(below())
def test_a_path_begins_with_its_parents_path(code: str) -> None:
    parent = COUNTY.parent(code)
    assert parent is not None
    assert COUNTY.path(code).rpartition(".")[0] == COUNTY.path(parent.code)


def test_a_path_follows_the_directory_where_parents_are_not_prefixes() -> None:
    county = Directory(
        [
            *COUNTY.divisions.values(),
            Division("469002900", "沿海片区", "area", "469002104", "area"),
            Division("469002104218", "新滩社区", "village", "469002900", "community"),
            Division("46900210421421", "上寮小区", "estate", "469002104218", "estate"),
        ]
    )
    assert county.path("469002900") == "46.90.02.104.469002900"
    assert county.path("46900210421801") == "46.90.02.104.469002900.469002104218.01"
    assert county.path("46900210421421") == ("46.90.02.104.469002900.469002104218.46900210421421")


def test_the_path_of_an_unknown_code_is_split_by_default() -> None:
    assert Directory().path(SHAMEI + "03007") == "46.90.02.104.214.03.007"
    assert Directory().path("46900") == "46.90.0"


def test_a_circle_of_parents_ends() -> None:
    circle = Directory(
        [
            Division("469001", "甲", "county", "469002", "county"),
            Division("469002", "乙", "county", "469001", "county"),
        ]
    )
    assert [place.code for place in circle.ancestors("469001")] == ["469001", "469002"]
    assert circle.path("469001")


def test_full_names() -> None:
    assert COUNTY.name(SHAMEI + "03007") == "琼海市博鳌镇沙美村委会3组7户"
    assert COUNTY.name("469002500500") == "琼海市彬村山华侨农场南片一生活区"
    assert COUNTY.name("123456") == "123456"


def test_common() -> None:
    found = COUNTY.common([SHAMEI + "03", SHAMEI + "04007"])
    assert found is not None
    assert found.code == SHAMEI
    assert COUNTY.common([]) is None
    assert COUNTY.common(["110101", SHAMEI]) is None


# -- finding a place by its name -----------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "code", "certain"),
    [
        ("博鳌镇沙美村文化广场旁", SHAMEI, True),
        ("沙美村", SHAMEI, True),
        ("沙美", SHAMEI, True),
        ("我家在沙美村委会旁边", SHAMEI, True),
        ("海南省琼海市博鳌镇沙美村3组7户", SHAMEI + "03007", True),
        ("博鳌沙美村第十二村民小组 第7户网格", SHAMEI + "12007", True),
        ("沙美村二十一组一百零三户", SHAMEI + "21103", True),
        ("沙美村三组文化广场", SHAMEI + "03", True),
        ("沙美村委会０３组", SHAMEI + "03", True),
        ("北山社区", "469002104215", True),
        ("莫村村委会2组", "46900210421202", True),
        ("东升居", "469002101002", True),
        ("南片一生活区", "469002500500", True),
        ("沙美村二十组", SHAMEI + "20", True),
        ("沙美村一组一百一十户", SHAMEI + "01110", True),
        ("沙美村三组一百〇三户", SHAMEI + "03103", True),
        ("沙美村003组", SHAMEI + "03", True),
        ("沙美村三四组", SHAMEI, False),
        ("沙美村3组和4组之间", SHAMEI, False),
        ("沙美村两组村民", SHAMEI, True),
        ("沙美村100组", SHAMEI, False),
        ("沙美村0组", SHAMEI, False),
        ("沙美村3组1000户", SHAMEI, False),
        ("博鳌", "469002104", False),
        ("博鳌镇", "469002104", False),
        ("博鳌镇东海大道", "469002104", False),
        ("沙美村与北山村交界", "469002104", False),
        ("潭门镇沙美村", "469002", False),
        ("锦绣新村", "469002", False),
        ("半夜三更", "469002", False),
        ("不知道在哪里", "469002", False),
        ("", "469002", False),
    ],
)
def test_locate(text: str, code: str, certain: bool) -> None:
    located = COUNTY.locate(text)
    assert (located.division.code, located.certain) == (code, certain), located.why
    assert located.why


@pytest.mark.parametrize(
    ("county", "text", "code", "certain"),
    [
        (GADE, "达协", "632623100", False),
        (GADE, "达协村", "632623100205", True),
        (GADE, "达协社区", "632623100002", True),
        (GADE, "柯曲镇达协村2组", "63262310020502", True),
        (GADE, "江千", "632623", False),
        (GADE, "江千乡隆吉村", "632623204201", True),
        (GADE, "江千乡江千村", "632623", False),
        (NINGXIANG, "玉潭街道文中社区", "430182001001", True),
        (NINGXIANG, "宁乡市楚沩社区居委会", "430182001013", True),
        (NINGXIANG, "双江口镇罗巷新村", "430182105221", True),
        (NINGXIANG, "玉潭街道一片区", "430182001900", False),
    ],
)
def test_locate_elsewhere(county: Directory, text: str, code: str, certain: bool) -> None:
    located = county.locate(text)
    assert (located.division.code, located.certain) == (code, certain), located.why


@given(below())
def test_a_full_name_is_always_found(code: str) -> None:
    located = COUNTY.locate(COUNTY.name(code))
    assert (located.division.code, located.certain) == (code, True), located.why


@given(st.text(alphabet="博鳌镇沙美村委会社区居组户三十37 ，第小新北山路", max_size=20))
def test_any_text_is_located_somewhere_in_the_county(text: str) -> None:
    located = COUNTY.locate(text)
    assert COUNTY.within(located.division.code, "469002")
    assert not located.certain or located.division.level not in ("county", "township")


@given(st.text(max_size=30), below())
def test_locate_stays_within_what_it_was_given(text: str, code: str) -> None:
    assert COUNTY.within(COUNTY.locate(text, within=code).division.code, code)


def test_locate_within() -> None:
    assert COUNTY.locate("3组7户", within=SHAMEI).division.code == SHAMEI + "03007"
    assert COUNTY.locate("沙美村3组", within="469002104").division.code == SHAMEI + "03"
    outside = COUNTY.locate("潭门镇", within="469002104")
    assert (outside.division.code, outside.certain) == ("469002104", False)
    assert outside.why == "潭门镇 is not in 博鳌镇"
    with pytest.raises(DivisionError, match="the nearest that is known is 469002104 博鳌镇"):
        COUNTY.locate("沙美村", within="469002104999")


def test_locate_asks_for_the_county_where_there_are_several() -> None:
    both = Directory([*COUNTY.divisions.values(), *GADE.divisions.values()])
    with pytest.raises(DivisionError) as raised:
        both.locate("沙美村")
    assert str(raised.value) == ("say in which county the place is: 469002 琼海市, 632623 甘德县")
    assert both.locate("沙美村", within="469002").division.code == SHAMEI
    with pytest.raises(DivisionError, match="no divisions yet"):
        Directory().locate("沙美村")


# -- who is on duty ------------------------------------------------------------------------


def officer(
    id_: str,
    level: str = "village",
    division: str = SHAMEI,
    *,
    unit: str | None = None,
    role: str = "officer",
    on_duty: bool = True,
) -> Officer:
    return Officer(id_, id_, level, division, unit, role, on_duty)


def staffed(*officers: Officer) -> Directory:
    return Directory(COUNTY.divisions.values(), (), officers)


def test_on_duty_in_stable_order_exactly_there() -> None:
    county = staffed(
        officer("b"),
        officer("a"),
        officer("lead", role="lead"),
        officer("away", on_duty=False),
        officer("team", unit="security"),
        officer("group", level="group", division=SHAMEI + "03"),
    )
    assert [person.id for person in county.on_duty("village", SHAMEI, None, AT)] == ["a", "b"]
    assert [person.id for person in county.on_duty("village", SHAMEI, "security", AT)] == ["team"]
    assert county.on_duty("village", "469002104215", None, AT) == ()


def test_a_lead_is_on_duty_where_there_is_no_officer() -> None:
    county = staffed(officer("lead", role="lead"), officer("away", on_duty=False))
    assert [person.id for person in county.on_duty("village", SHAMEI, None, AT)] == ["lead"]


def test_the_lead_is_the_nearest_on_duty() -> None:
    group = SHAMEI + "03"
    county = staffed(
        officer("group", "group", group, role="lead", on_duty=False),
        officer("team", unit="security", role="lead"),
        officer("village", role="lead"),
        officer("another", level="group", role="lead"),
        officer("township", "township", "469002104", role="lead"),
    )
    for level, code, expected in (
        ("household", group + "007", "another"),
        ("village", group, "village"),
        ("village", SHAMEI, "village"),
        ("village", "469002104215", "township"),
    ):
        lead = county.lead(level, code, AT)
        assert lead is not None
        assert lead.id == expected
    assert county.lead("village", "469002100200", AT) is None


# -- files ---------------------------------------------------------------------------------


def written(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    path = folder / "file.csv"
    path.write_bytes(text.encode(encoding))
    return path


def problems(error: ProfileError) -> list[tuple[int, str, str]]:
    return [(problem.line, problem.field, problem.text) for problem in error.problems]


def test_the_county_is_read_with_its_kinds() -> None:
    kinds = {place.code: place.kind for place in COUNTY.divisions.values()}
    assert len(kinds) == 229
    assert kinds["469002100001"] == "community"
    assert kinds["469002101002"] == "community"
    assert kinds["469002500500"] == "farm"
    assert kinds[SHAMEI] == "village"


def test_kind_and_parent_follow_by_default(tmp_path: Path) -> None:
    text = (
        "\ufeffcode,level,name,parent\r\n"
        "430182,county,宁乡市,\r\n430182001,township,玉潭街道,\r\n\r\n"
        "430182001013,village,楚沩社区,\r\n"
    )
    divisions = read_divisions(written(tmp_path, text))
    assert [(place.parent, place.kind) for place in divisions] == [
        (None, "county"),
        ("430182", "township"),
        ("430182001", "community"),
    ]


def test_everything_wrong_with_divisions_is_found(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "code,level,name,parent,kind\n"
        "469002,county,琼海市,,county\n"
        "46900x,Township,,469002,town\n"
        "469002104,township,博鳌镇,469003,township\n"
        "469002104,township,博鳌镇,469002,township\n"
        "46900210421400,group,0组,469002104,group\n"
        "469002105,township,阳江镇,469002105,township\n"
        "469002106,township\n",
    )
    with pytest.raises(ProfileError) as raised:
        read_divisions(path)
    assert problems(raised.value) == [
        (3, "code", "'46900x': write a division code of 6 to 32 digits"),
        (
            3,
            "kind",
            "'town' is not known: did you mean township? Allowed: county, township, village, "
            "community, farm, group, household, area, estate, building, hazard, online, police",
        ),
        (3, "level", "'Township': write a lower-case word, such as village"),
        (3, "name", "write 1 to 80 characters"),
        (4, "parent", "469003 is not in this file: add it or write another code"),
        (5, "code", "469002104 is given twice, first in line 4: keep one of them"),
        (
            6,
            "code",
            "46900210421400: groups are numbered from 01, household grids from 001",
        ),
        (7, "parent", "the parents go round in a circle: 469002105 > 469002105"),
        (8, "", "has 2 columns, the header has 5"),
    ]
    assert str(raised.value).startswith(f"{path}:3: code: '46900x': write a division code")


def test_everything_wrong_with_officers_is_found(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "id,name,level,division,unit,role,on_duty\n"
        "a,沙美村网格长,village,469002104214,,lead,true\n"
        "a,沙美村网格长,village,469002104214,,leader,maybe\n"
        "名,沙美村网格长,village,,,lead,no\n",
    )
    with pytest.raises(ProfileError) as raised:
        read_officers(path)
    assert problems(raised.value) == [
        (3, "id", "a is given twice, first in line 2: keep one of them"),
        (3, "on_duty", "'maybe': write true or false"),
        (3, "role", "'leader' is not known: did you mean lead? Allowed: officer, lead"),
        (4, "division", "'': write a division code of 6 to 32 digits"),
        (4, "id", "'名': write letters, digits, '.', '_' and '-', at most 80"),
    ]


@pytest.mark.parametrize(
    ("text", "encoding", "place", "said"),
    [
        ("id,name,level\n", "utf-8", (1, "division"), "the first line must name the columns id,"),
        ("", "utf-8", (1, "id"), "the first line must name the columns id,name,level,division"),
        (
            "id,name,level,division,name\n",
            "utf-8",
            (1, "name"),
            "names this column twice: keep one",
        ),
        (
            "id,name,level,division,phone\n",
            "utf-8",
            (1, "phone"),
            "'phone' is not known: write one of id, name, level, division",
        ),
        (
            "id,name,level,division\na,治安联防队,village,1",
            "gb18030",
            (2, ""),
            "not UTF-8: save it",
        ),
        ('id,name,level,division\na,"b"c,village,1\n', "utf-8", (2, ""), "not CSV: "),
    ],
)
def test_a_file_that_is_no_table(
    tmp_path: Path, text: str, encoding: str, place: tuple[int, str], said: str
) -> None:
    with pytest.raises(ProfileError) as raised:
        read_units(written(tmp_path, text, encoding))
    (problem,) = raised.value.problems
    assert (problem.line, problem.field) == place
    assert problem.text.startswith(said)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match=r"nowhere\.csv: can't be read: No such file"):
        read_units(tmp_path / "nowhere.csv")
