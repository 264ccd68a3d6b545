"""Where a case may be delegated or transferred to, and how a wrong place is named."""

from __future__ import annotations

from typing import Any

import pytest

from services.grid.moving import WrongPlace, target
from services.grid.tokens import Address
from tests.simulator.county import GRID, UNIT, atlas

ATLAS = atlas()
TOWNSHIP, VILLAGE = Address("township", "469002104"), Address("village", "469002104214")


def meant(action: str, here: Address, **to: Any) -> Address:
    (profile,) = ATLAS.current
    return target(action, to, here, profile=profile, ladder="default", directory=ATLAS.directory)


@pytest.mark.parametrize(
    ("action", "here", "to", "found"),
    [
        ("delegate", TOWNSHIP, {"division": "469002104205"}, ("village", "469002104205", None)),
        ("delegate", TOWNSHIP, {"division": GRID}, ("household", GRID, None)),
        ("delegate", TOWNSHIP, {"unit": UNIT}, ("township", "469002104", UNIT)),
        ("transfer", TOWNSHIP, {"unit": UNIT}, ("township", "469002104", UNIT)),
        # By its name: at the holder's place, or at another that is named.
        ("transfer", TOWNSHIP, {"unit": "综治中心"}, ("township", "469002104", UNIT)),
        (
            "transfer",
            VILLAGE,
            {"level": "village", "unit": "治安联防队"},
            ("village", "469002104214", "team"),
        ),
        (
            "delegate",
            TOWNSHIP,
            {"division": "469002104214", "unit": "治安联防队"},
            ("village", "469002104214", "team"),
        ),
        (
            "transfer",
            TOWNSHIP._replace(unit=UNIT),
            {"division": "469002104", "unit": None},
            ("township", "469002104", None),
        ),
        (
            "transfer",
            VILLAGE,
            {"level": "village", "division": "469002104205"},
            ("village", "469002104205", None),
        ),
        # Nobody could place it (分拨): it is held by the last level, for the county.
        ("transfer", Address("township", "469002"), {"division": "469002104"}, TOWNSHIP),
    ],
)
def test_a_unit_or_division_says_the_rest(
    action: str, here: Address, to: dict[str, Any], found: tuple[Any, ...]
) -> None:
    assert meant(action, here, **to) == found


@pytest.mark.parametrize(
    ("action", "here", "to", "field", "said"),
    [
        ("delegate", TOWNSHIP, {}, "to.division", "say where to"),
        ("delegate", TOWNSHIP, {"level": "village"}, "to.division", "say where to"),
        ("delegate", TOWNSHIP, {"division": "469002104999"}, "to.division", "nearest"),
        ("delegate", TOWNSHIP, {"division": "469002"}, "to.level", "not on the case's ladder"),
        ("delegate", TOWNSHIP, {"unit": "center"}, "to.unit", "did you mean centre"),
        # The same name is each village's own team.
        ("delegate", TOWNSHIP, {"unit": "治安联防队"}, "to.unit", "is not known"),
        (
            "delegate",
            TOWNSHIP,
            {"unit": UNIT, "division": "469002104205"},
            "to.unit",
            "centre is at the township 469002104",
        ),
        (
            "delegate",
            TOWNSHIP,
            {"level": "group", "division": "469002104205"},
            "to.level",
            "is a village, not a group",
        ),
        ("delegate", VILLAGE, {"division": "469002104"}, "to.level", "not below village"),
        (
            "delegate",
            VILLAGE,
            {"division": "46900210420501"},
            "to.division",
            "not below 469002104214",
        ),
        ("transfer", VILLAGE, {"division": "469002104214"}, "to", "holds the case already"),
        ("transfer", VILLAGE, {"division": "469002104"}, "to.level", "stays at the level village"),
    ],
)
def test_a_wrong_place_is_named_with_its_cure(
    action: str, here: Address, to: dict[str, Any], field: str, said: str
) -> None:
    with pytest.raises(WrongPlace) as caught:
        meant(action, here, **to)
    assert list(caught.value.errors) == [field]
    assert said in caught.value.errors[field]
