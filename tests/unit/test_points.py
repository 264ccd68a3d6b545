"""The division of a place on the map: the nearest point that reaches so far."""

from __future__ import annotations

import math
import random
from pathlib import Path

import pytest

from services.grid.atlas import Atlas
from services.grid.directory import Directory, Division
from services.grid.directory_source import read_divisions
from services.grid.points import Point, Points, distance
from services.grid.problems import ProfileError


def place(code: str, point: Point | None) -> Division:
    return Division(code, f"第{code}村", "village", None, "village", point)


def test_a_degree_of_latitude_is_some_111_km() -> None:
    assert distance(19.0, 110.0, Point(20.0, 110.0)) == pytest.approx(111.2, abs=0.1)
    # Where meridians come together a degree of longitude is shorter.
    assert distance(60.0, 0.0, Point(60.0, 1.0)) == pytest.approx(55.6, abs=0.1)
    assert distance(0.0, 179.99, Point(0.0, -179.99)) == pytest.approx(2.2, abs=0.1)


def test_the_nearest_counts_if_it_reaches() -> None:
    near, far = (
        place("469002104214", Point(19.15, 110.58, 2)),
        place("469002104205", Point(19.2, 110.6)),
    )
    points = Points([near, far, place("469002104207", None)])
    assert points.nearest(19.151, 110.581) is near
    assert points.nearest(19.19, 110.6) is far
    # 3 km from the first, which reaches 2, and 3.3 km from the second, which reaches 5.
    assert points.nearest(19.173, 110.594) is far
    assert points.nearest(18.0, 110.58) is None
    assert Points([]).nearest(19.15, 110.58) is None
    assert not Points([place("469002104207", None)])


def test_of_two_at_one_point_it_is_the_lower() -> None:
    point = Point(19.15, 110.58)
    village, group = place("469002104214", point), place("46900210421403", point)
    assert Points([village, group]).nearest(19.15, 110.58) is group
    assert Points([group, village]).nearest(19.15, 110.58) is group


def test_it_finds_what_looking_at_all_finds() -> None:
    generator = random.Random(7)
    for _ in range(50):
        places = [
            place(
                f"469002{number:06}",
                Point(
                    generator.uniform(-90, 90),
                    generator.uniform(-180, 180),
                    generator.uniform(0, 200),
                ),
            )
            for number in range(300)
        ]
        lat, long = math.degrees(math.asin(generator.uniform(-1, 1))), generator.uniform(-180, 180)
        reaching = [
            (distance(lat, long, each.location), each.code)
            for each in places
            if each.location and distance(lat, long, each.location) <= each.location.reach
        ]
        found = Points(places).nearest(lat, long)
        assert (found and found.code) == (min(reaching)[1] if reaching else None)


def test_points_stand_in_the_divisions_file(tmp_path: Path) -> None:
    path = tmp_path / "divisions.csv"
    path.write_text(
        "code,level,name,parent,lat,long,reach\n"
        "469002,county,琼海市,,,,\n"
        "469002104,township,博鳌镇,,19.16,110.58,\n"
        "469002104214,village,沙美村委会,,19.15,110.58,2.5\n"
    )
    county, town, village = read_divisions(path)
    assert county.location is None
    assert town.location == Point(19.16, 110.58, 5.0)
    assert village.location == Point(19.15, 110.58, 2.5)
    path.write_text("code,level,name,parent,lat,long\n469002,county,琼海市,,91,\n")
    with pytest.raises(ProfileError) as error:
        read_divisions(path)
    said = str(error.value)
    assert "lat" in said
    assert "from -90 to 90" in said
    assert "long" in said


def test_an_entry_without_a_point_is_read_as_ever() -> None:
    entry = {
        "code": "469002",
        "name": "琼海市",
        "level": "county",
        "parent": None,
        "kind": "county",
    }
    wrapped = {"kind": "division", "version": 1, "retired": False, "entry": entry}
    with_point = {**entry, "code": "469003", "location": {"lat": 19.5, "long": 109.5, "reach": 30}}
    other = {**wrapped, "entry": with_point}
    directory: Directory = Atlas.of([wrapped, other]).directory
    assert directory.divisions["469002"].location is None
    nearest = directory.points.nearest(19.5, 109.6)
    assert nearest is not None
    assert nearest.code == "469003"
