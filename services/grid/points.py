"""Finding the division of a place on the map: the nearest point within its reach (就近匹配)."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from math import asin, cos, radians, sin, sqrt
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from services.grid.directory import Division

REACH_KM = 5.0
"""How far a point reaches if nothing is said."""
FARTHEST_KM = 200.0

_EARTH_KM = 6371.0
# A degree of latitude is never shorter.
_KM_A_DEGREE = 110.5


@dataclass(frozen=True, slots=True)
class Point:
    """Where the middle of a division is (WGS 84, degrees), and how many km around are its own."""

    lat: float
    long: float
    reach: float = REACH_KM


def distance(lat: float, long: float, point: Point) -> float:
    """Kilometres along a great circle."""
    north, other = radians(lat), radians(point.lat)
    half = sin((other - north) / 2) ** 2
    half += cos(north) * cos(other) * sin(radians(point.long - long) / 2) ** 2
    return 2 * _EARTH_KM * asin(min(1.0, sqrt(half)))


class Points:
    """The divisions that have a point, by latitude: a look-up sees those that can reach only."""

    def __init__(self, divisions: Iterable[Division]) -> None:
        found = [(each.location, each) for each in divisions if each.location is not None]
        self._points = sorted(found, key=lambda item: item[0].lat)
        self._lats = [point.lat for point, _ in self._points]
        self._farthest = max((point.reach for point, _ in self._points), default=0.0)

    def __bool__(self) -> bool:
        return bool(self._points)

    def nearest(self, lat: float, long: float) -> Division | None:
        """The division whose point is nearest, of those that reach so far; the lowest of equals."""
        width = self._farthest / _KM_A_DEGREE
        first, last = bisect_left(self._lats, lat - width), bisect_right(self._lats, lat + width)
        reaching = [
            (away, -len(division.code), division.code, division)
            for point, division in self._points[first:last]
            if (away := distance(lat, long, point)) <= point.reach
        ]
        return min(reaching)[3] if reaching else None
