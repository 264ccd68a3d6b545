"""What is alike: words of any script, places and times."""

from __future__ import annotations

import pytest

from services.grid.clock import Instant, plus
from services.intake import duplicates
from tests.simulator.county import GRID, atlas

START = Instant("2026-11-01T00:00:00.000Z")
DIRECTORY = atlas().directory
DAY = 86400.0


def told(
    title: str,
    description: str | None = None,
    division: str = GRID,
    hours: float = 0,
    category: str = "facility",
) -> dict[str, object]:
    at = plus(START, hours * 3600)
    facts = {"title": title, "division": division, "reported_at": at, "category": category}
    return {
        "facts": facts,
        "report": {"description": description},
    }


@pytest.mark.parametrize(
    ("one", "other", "least", "most"),
    [
        ("文化广场路灯不亮", "文化广场路灯不亮", 1.0, 1.0),
        ("文化广场路灯不亮", "文化广场的路灯坏了", 0.5, 0.7),
        ("文化广场路灯不亮", "鱼塘污水外溢", 0.0, 0.0),
        ("Street lamp, broken!", "street lamp broken", 1.0, 1.0),
        ("Ｎｏ．１２号灯", "no.12号灯", 1.0, 1.0),
        ("", "路灯不亮", 0.0, 0.0),
        ("灯", "灯", 1.0, 1.0),
        ("邻里争吵", "邻居吵架", 0.18, 0.3),
        ("坏灯", "灯坏了", 0.3, 0.5),
        ("井盖没了", "井盖丢失", 0.4, 0.5),
        ("路灯不亮了", "水管不通了", 0.0, 0.0),
        ("lamp", "palm", 0.0, 0.0),
    ],
)
def test_words_are_alike(one: str, other: str, least: float, most: float) -> None:
    assert least <= duplicates.alike(one, other) <= most
    assert duplicates.alike(one, other) == duplicates.alike(other, one)


def test_the_place_and_the_time_count_as_well() -> None:
    lamp = told("路灯不亮")

    def score(other: dict[str, object]) -> duplicates.Likeness:
        return duplicates.likeness(lamp, other, 3 * DAY, DIRECTORY)

    same = score(told("路灯不亮"))
    assert same == duplicates.Likeness(1.0, 1.0, "same", 0.0, same_category=True)
    above = score(told("路灯不亮", division="469002104214", hours=36))
    assert (above.place, above.hours) == ("within", 36.0)
    beside = score(told("路灯不亮", division="46900210421403008", hours=71))
    assert beside.place == "beside"
    assert 1 > above.score > beside.score > duplicates.LEAST
    # Whatever the place and the time, without a word in common it is another matter.
    assert not score(told("邻里争吵")).suspicious


def test_another_category_is_no_hindrance_where_the_rest_is_alike() -> None:
    lamp = told("文化广场路灯不亮", category="facility")

    def score(other: dict[str, object]) -> duplicates.Likeness:
        return duplicates.likeness(lamp, other, 3 * DAY, DIRECTORY)

    same = score(told("文化广场的路灯坏了"))
    other = score(told("文化广场的路灯坏了", category="safety"))
    assert (same.same_category, other.same_category) == (True, False)
    assert same.score > other.score
    assert other.suspicious
    # What is not so much alike must be of the same category.
    little = "广场上灯坏"
    assert score(told(little)).suspicious
    assert not score(told(little, hours=70, category="safety")).suspicious


def test_short_titles_of_one_matter_are_found() -> None:
    one = told("邻里争吵", category="dispute")
    for title in ("邻居吵架", "争吵", "邻里矛盾"):
        other = told(title, category="dispute", hours=3)
        assert duplicates.likeness(one, other, 3 * DAY, DIRECTORY).suspicious, title
    # A single character is enough in the same place at the same time, and nowhere else.
    lamp, places = told("灯坏了"), (GRID, "46900210421403008")
    here, beside = (
        duplicates.likeness(lamp, told("路灯不亮", division=place), 3 * DAY, DIRECTORY)
        for place in places
    )
    assert (here.suspicious, beside.suspicious) == (True, False)


def test_what_a_title_does_not_say_a_description_may() -> None:
    one, other = (told(title, "池塘边护栏断了两米") for title in ("有危险", "快来看看"))
    found = duplicates.likeness(one, other, 3 * DAY, DIRECTORY)
    assert found.words > 0.6
    # Very long ones are not compared to their end.
    long = "池塘边护栏断了" * 700
    assert duplicates.likeness(told("甲", long), told("乙", long), DAY, DIRECTORY).words > 0.9


def test_one_looks_around_the_division_above() -> None:
    assert duplicates.around(GRID, DIRECTORY) == "46900210421403"
    assert duplicates.around("469002", DIRECTORY) == "469002"
    assert duplicates.around("999999", DIRECTORY) == "999999"
