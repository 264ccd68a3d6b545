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
    title: str, description: str | None = None, division: str = GRID, hours: float = 0
) -> dict[str, object]:
    at = plus(START, hours * 3600)
    return {
        "facts": {"title": title, "division": division, "reported_at": at},
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
        ("灯", "灯", 0.0, 0.0),
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
    assert same == duplicates.Likeness(1.0, 1.0, "same", 0.0)
    above = score(told("路灯不亮", division="469002104214", hours=36))
    assert (above.place, above.hours) == ("within", 36.0)
    beside = score(told("路灯不亮", division="46900210421403008", hours=71))
    assert beside.place == "beside"
    assert 1 > above.score > beside.score > duplicates.LEAST
    # Whatever the place and the time, without a word in common it is another matter.
    assert score(told("邻里争吵")).score < duplicates.LEAST


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
