"""Steps of a ladder that are a unit's, steps of a procedure, and a level's authority to settle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from services.bus.errors import Refused
from services.bus.fold import Record
from services.dispatch import model as dispatch
from services.grid import moving
from services.grid.clock import FrozenClock
from services.grid.directory import Directory
from services.grid.events.bindings import Incoming
from services.grid.preview import preview
from services.grid.problems import ProfileError
from services.grid.profile import Profile, load_folder
from services.grid.tokens import Address
from services.intake import acting
from tests.simulator.county import DIVISIONS, GRID, RULES, STEPS, UNITS, atlas
from tests.simulator.world import Step, World

COUNTY = Directory(DIVISIONS, UNITS)
PROFILE = Profile.parse({**RULES, **STEPS})
ATLAS = atlas(**STEPS)
NOW = FrozenClock().now()
VILLAGE, OTHER, TOWNSHIP = "469002104214", "469002104205", "469002104"
TEAM = Address("village", VILLAGE, "team")
CENTRE = Address("township", TOWNSHIP, "centre")
DESK = Address("township", TOWNSHIP)
FACTS = {"urgency": "ordinary", "category": "facility", "source": "app"}


def above(address: Address, profile: Profile = PROFILE) -> Address | None:
    return profile.next_address("default", address, COUNTY)


# -- ladders -------------------------------------------------------------------------------


def test_a_step_may_be_a_units_and_the_desk_above_it() -> None:
    assert above(Address("group", "46900210421403")) == TEAM
    assert above(TEAM) == CENTRE
    assert above(CENTRE) == DESK
    assert above(DESK) is None
    assert PROFILE.steps("default") == ["household", "group", "village", "township"]
    assert PROFILE.levels == ("household", "group", "village", "township")


def test_where_a_place_has_no_such_unit_its_desk_has_the_step() -> None:
    desk = Address("village", OTHER)
    assert above(Address("group", "46900210420501")) == desk
    assert above(desk) == CENTRE
    # The desk of a village that has the team may be given a case by hand: it climbs as well.
    assert above(Address("village", VILLAGE)) == CENTRE
    nobody = Directory(DIVISIONS)
    assert PROFILE.next_address("default", TEAM._replace(unit=None), nobody) == DESK
    assert PROFILE.next_address("default", DESK, nobody) is None


def test_a_unit_that_the_ladder_does_not_name_stands_where_those_do_that_it_names() -> None:
    assert above(Address("township", TOWNSHIP, "another")) == DESK
    assert above(Address("village", VILLAGE, "another")) == CENTRE
    # As without such steps.
    plain = Profile.parse(RULES)
    assert above(Address("township", TOWNSHIP, "another"), plain) is None
    assert above(TEAM, plain) == DESK


def test_a_level_that_is_named_is_its_desk_where_the_ladder_has_it() -> None:
    assert PROFILE.at_level("default", "township", GRID, COUNTY) == DESK
    assert PROFILE.at_level("default", "village", GRID, COUNTY) == TEAM
    assert PROFILE.at_level("default", None, VILLAGE, COUNTY) == TEAM
    route = {"when": {"urgency": "urgent"}, "enter": "township"}
    said = Profile.parse({**RULES, **STEPS, "routing": [route]})
    assert said.enter({**FACTS, "urgency": "urgent"}, GRID, COUNTY).address == DESK


def test_each_step_has_its_own_title() -> None:
    def title(address: Address) -> str:
        return PROFILE.title_of("default", address, COUNTY)

    assert [title(item) for item in (TEAM, CENTRE, DESK)] == [
        *("联防队到现场", "综治中心化解", "云化解")
    ]
    # The desk that stands in is not the team, and no ladder has a word for it.
    assert title(Address("village", OTHER)) == "village"
    assert title(Address("township", TOWNSHIP, "another")) == "云化解"


def test_what_rises_in_an_emergency_rises_from_a_unit_to_its_desk() -> None:
    facts = {**FACTS, "division": GRID, "urgency": "urgent"}
    route = {"when": {"urgency": "urgent"}, "enter": "township"}
    said = Profile.parse({**RULES, **STEPS, "routing": [route]})
    assert said.kept(facts, CENTRE, COUNTY, rises=True)[1] == DESK
    assert said.kept(facts, CENTRE, COUNTY, rises=False)[1] == CENTRE
    entered = Profile.parse({**RULES, **STEPS, "routing": []})
    assert entered.kept(facts, DESK, COUNTY, rises=True)[1] == DESK


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        (["village:a", "village:a"], "a stands in this ladder twice: keep one"),
        (["village", "village"], "village stands in this ladder twice: keep one"),
        (
            ["village", "village:a"],
            "a unit stands below its desk: write the step of a before that of village",
        ),
        (
            ["village:a", "township", "village:b"],
            "write the steps of village one after the other",
        ),
    ],
)
def test_steps_of_one_level_are_in_order(steps: list[str], said: str) -> None:
    ladder = [
        {
            "level": step.partition(":")[0],
            "title": "步",
            **({"unit": "ab"[":b" in step]} if ":" in step else {}),
        }
        for step in ["household", *steps]
    ]
    with pytest.raises(ProfileError) as error:
        Profile.parse({**RULES, "ladders": {"default": ladder}, "emergency": None})
    assert said in str(error.value)


def test_a_unit_that_no_division_has_is_a_mistake(tmp_path: Path) -> None:
    source = Path(__file__).parents[2] / "profiles" / "dachengqiao"
    for name in ("divisions.csv", "officers.csv", "units.csv", "profile.yaml"):
        text = (source / name).read_text(encoding="utf-8")
        wrong = "unit: 社会禁毒协会, title"
        (tmp_path / name).write_text(text.replace(wrong, "unit: 禁毒会, title"), encoding="utf-8")
    with pytest.raises(ProfileError) as error:
        load_folder(tmp_path)
    assert [problem.field for problem in error.value.problems] == ["ladders.drugs[1].unit"]
    assert "社会禁毒协会" in str(error.value)


# -- procedures ----------------------------------------------------------------------------


def at(level: str, *moves: tuple[str, str]) -> tuple[World, str]:
    """A case that came to a desk after these requests, and its entry there."""
    world = World(ATLAS)
    world.report("case-1")
    world.settle()
    for asker, action in moves:
        world.clock.advance(60)
        assert world.act(asker, world.entries(asker)[-1], action), (asker, action)
        world.settle()
    return world, world.entries(level)[-1]


def entry(world: World, level: str, key: str) -> dict[str, Any]:
    return dict(world.nodes[level].store.documents()[key])


def noted(document: dict[str, Any], step: str | None) -> dict[str, Any]:
    decision = dispatch.note(document, "officer", f"{step}", step=step, atlas=ATLAS, now=NOW)
    assert decision.document is not None
    return decision.document


def test_what_binds_is_decided_when_a_case_comes() -> None:
    world, key = at("household")
    procedure = entry(world, "household", key)["procedure"]
    assert procedure["rule"] == "profile.yaml procedures[1]"
    assert [item["id"] for item in procedure["steps"]] == ["proposed", "decided"]
    world, key = at("group", ("household", "escalate"))
    assert "procedure" not in entry(world, "group", key)


def test_a_case_is_resolved_only_when_all_steps_were_done_in_order() -> None:
    world, key = at("household")
    document = entry(world, "household", key)
    with pytest.raises(Refused) as refused:
        dispatch.resolve(document, "officer", "settled", "", atlas=ATLAS, now=NOW)
    assert "提议、决议" in refused.value.detail
    with pytest.raises(Refused, match="提议 comes first"):
        noted(document, "decided")
    document = noted(noted(document, "proposed"), None)
    # More to a step that was done already.
    document = noted(document, "proposed")
    assert [item["step"] for item in document["state"]["steps"]] == ["proposed"]
    with pytest.raises(Refused) as refused:
        dispatch.resolve(document, "officer", "settled", "", atlas=ATLAS, now=NOW)
    assert [item["id"] for item in refused.value.facts["missing"]] == ["decided"]
    document = noted(document, "decided")
    done = dispatch.resolve(document, "officer", "settled", "", atlas=ATLAS, now=NOW)
    assert [event.type for event in done.events] == ["case.resolved"]
    again = dispatch.resolve(done.document, "officer", "settled", "", atlas=ATLAS, now=NOW)
    assert again.events == ()


def test_what_was_done_goes_along_and_stays_done_in_the_next_round() -> None:
    world, key = at("household")
    for _ in range(2):
        world.clock.advance(60)
        assert world.act("household", key, "note")
        world.settle()
    assert world.act("household", key, "escalate")
    world.settle()
    group = entry(world, "group", world.entries("group")[-1])
    assert [item["step"] for item in group["state"]["steps"]] == ["proposed", "decided"]
    assert world.act("group", world.entries("group")[-1], "return")
    world.settle()
    assert world.act("household", world.entries("household")[-1], "resolve")
    world.settle()
    assert world.reopen("case-1")
    world.settle()
    assert world.act("household", world.entries("household")[-1], "resolve")


def test_the_same_note_of_a_step_again_changes_nothing() -> None:
    world, key = at("household")
    document = noted(entry(world, "household", key), "proposed")
    again = dispatch.note(document, "officer", "proposed", step="proposed", atlas=ATLAS, now=NOW)
    assert again.events == ()


@pytest.mark.parametrize(
    ("category", "step", "wrong"),
    [
        ("facility", "decided2", "did you mean decided"),
        ("order", "decided", "no procedure binds here"),
        ("facility", "proposed", None),
    ],
)
def test_a_system_that_names_a_wrong_step_hears_of_it_as_an_officer_does(
    category: str, step: str, wrong: str | None
) -> None:
    world = World(ATLAS)
    world.report("case-1", category=category)
    world.settle()
    # What is a matter of order is the team's at once.
    for level in ("household", "group") if category == "facility" else ():
        assert world.act(level, world.entries(level)[-1], "escalate")
        world.settle()
    record = world.nodes["intake"].store.documents()["case-1"]
    assert record["state"]["address"]["unit"] == "team"
    event = Incoming("e-1", "patrol", "huashi.case.progress.v1", None)
    said = {"act": "progress", "note": "会上提了", "step": step}
    team, by = ATLAS.directory.units["team"], {"system": "patrol", "by": "system.patrol"}
    (asked,) = acting.ask(record, event, "e-1", said, team, **by, atlas=ATLAS, now=NOW).events
    key = world.entries("village")[-1]
    work = dispatch.work(asked, "village", ATLAS, NOW)
    assert work.key == key
    (*acts, told) = work.change(Record(key, 1, entry(world, "village", key))).events
    answered = told.data["answered"]
    if wrong is None:
        assert ([act.type for act in acts], answered["answer"]) == (["case.noted"], "accepted")
    else:
        assert (acts, answered["answer"]) == ([], "refused")
        assert wrong in answered["errors"]["data.step"]


# -- authority -----------------------------------------------------------------------------

UP = (("household", "escalate"), ("group", "escalate"), ("village", "escalate"))


def delegated(authorise: bool) -> tuple[World, dict[str, Any]]:
    """From the township's unit to the village."""
    world, key = at("township", *UP)

    def change(document: Any, replica: Any) -> Any:
        said = {"to": {"division": VILLAGE}, "authorise": authorise}
        about = {"atlas": replica.atlas, "now": replica.now}
        return dispatch.request(document, "officer", "delegate", "村里解决", **said, **about)

    assert world._client(Step(), world.nodes["township"], key, change)
    world.settle()
    return world, entry(world, "village", world.entries("village")[-1])


def test_who_is_authorised_settles_it_as_the_level_above_would() -> None:
    world, village = delegated(True)
    given = village["state"]["authority"]
    assert (given["level"], given["unit"], given["by"]) == ("township", "centre", "officer")
    assert "procedure" not in village
    assert world.act("village", world.entries("village")[-1], "resolve")
    world, village = delegated(False)
    assert "authority" not in village["state"]
    assert village["procedure"]["rule"] == "profile.yaml procedures[0]"
    assert not world.act("village", world.entries("village")[-1], "resolve")


def test_an_authority_ends_when_the_case_moves_on() -> None:
    world, _village = delegated(True)
    assert world.act("village", world.entries("village")[-1], "escalate")
    world.settle()
    assert "authority" not in world.nodes["escalation"].store.documents()["case-1"]["state"]


def test_only_who_may_gives_its_authority() -> None:
    why = moving.no_authority
    assert why(DESK, FACTS, PROFILE) is None
    assert "only the township" in str(why(TEAM, FACTS, PROFILE))
    limited = {"level": "township", "when": {"urgency": "ordinary"}, "source": "日常一般性事件"}
    profile = Profile.parse({**RULES, **STEPS, "authority": limited})
    assert why(DESK, FACTS, profile) is None
    assert "日常一般性事件" in str(why(DESK, {**FACTS, "urgency": "urgent"}, profile))
    assert "no level" in str(why(DESK, FACTS, Profile.parse(RULES)))
    with pytest.raises(ProfileError, match="nobody is below household"):
        Profile.parse({**RULES, "authority": {**limited, "level": "household"}})


# -- the counties' own ---------------------------------------------------------------------

ROOT = Path(__file__).parents[2] / "profiles"


def climbs(county: str, division: str, **facts: str) -> list[tuple[str, str]]:
    loaded = load_folder(ROOT / county)
    found = preview(loaded, facts, division, NOW)
    return [(step.address.level, step.title) for step in found.steps]


def test_dachengqiao_climbs_from_the_grid_manager_to_the_association_to_the_town() -> None:
    grid = "43018211920903002"
    told = climbs("dachengqiao", grid, category="drugs", urgency="ordinary", source="grid")
    assert told == [
        *(("group", "网格管理员"), ("township", "社会禁毒协会"), ("township", "镇党委政府"))
    ]
    told = climbs("dachengqiao", grid, category="relief", urgency="ordinary", source="list")
    assert told == [("township", "志愿者协会"), ("township", "镇党委政府")]


def test_every_association_of_dachengqiao_has_its_matters() -> None:
    loaded = load_folder(ROOT / "dachengqiao")
    assert len(loaded.units) == 7
    entered = {
        loaded.profile.enter(
            {"category": category, "urgency": "ordinary", "source": "whistle"},
            "430182119209",
            loaded.directory,
        ).address.unit
        for category in loaded.profile.categories
    }
    assert entered == {unit.id for unit in loaded.units}


def test_in_qionghai_kind_and_urgency_choose_the_team_where_there_is_one() -> None:
    told = climbs("qionghai", GRID, category="livelihood", urgency="urgent", source="hotline")
    assert [title for _level, title in told] == ["户联系", "组协调", "民生保障队到现场", "云化解"]
    # 潭门镇's villages have no teams.
    told = climbs(
        "qionghai", "46900210720101001", category="public_order", urgency="urgent", source="hotline"
    )
    assert [title for _level, title in told] == ["户联系", "组协调", "村处理", "云化解"]


def test_a_preview_says_which_unit_a_place_lacks() -> None:
    loaded = load_folder(ROOT / "qionghai")
    facts = {"category": "public_order", "urgency": "urgent", "source": "hotline"}
    found = preview(loaded, facts, "46900210720101001", NOW)
    said = "there is no 治安联防队 at 琼海市潭门镇潭门村委会: its desk has that step"
    assert said in found.warnings
    assert not [
        item for item in preview(loaded, facts, GRID, NOW).warnings if "there is no" in item
    ]


def test_a_ladder_of_an_emergency_may_have_a_unit() -> None:
    ladder = [{"level": "township", "unit": "综治中心", "title": "指挥部"}]
    emergency = {
        "title": {"zh": "战时", "en": "Emergency"},
        "source": "assumption",
        "ladders": {"default": ladder},
    }
    profile = Profile.parse({**RULES, "emergency": emergency})
    rules = profile.in_emergency
    assert rules is not None
    facts = {**FACTS, "division": GRID}
    assert rules.enter(facts, GRID, COUNTY).address == CENTRE
    group = Address("group", "46900210421403")
    assert rules.kept(facts, group, COUNTY, rises=True) == ("default", CENTRE)
    # Back again it stays: the unit is not on the ladder, but its level is.
    assert profile.kept(facts, CENTRE, COUNTY, rises=False) == ("default", CENTRE)
    assert profile.next_address("default", CENTRE, COUNTY) is None
