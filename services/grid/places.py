"""Finding the division that an address or place name means (地址匹配)."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from services.grid.directory import Directory, Division

_VILLAGE = r"(?:村民委委?员?会|村委会|村)"
_COMMUNITY = r"(?:(?:社区|居)?居?(?:居民委员会|居委会)|社区|居)"
_SUFFIXES = {
    "county": r"(?:市|县|区)",
    "township": r"(?:镇|乡|街道办事处|街道|农场)",
    "community": _COMMUNITY,
    "farm": r"生活区",
    "village": _VILLAGE,
}
_ENDS = {name: re.compile(f"{suffix}$") for name, suffix in _SUFFIXES.items()}
_STARTS = {name: re.compile(suffix) for name, suffix in _SUFFIXES.items()}
_UPPER_LEVELS = ("county", "township")
_OF_VILLAGES = ("community", "farm", "village")
_ANY_VILLAGE = re.compile(rf"{_COMMUNITY}|{_VILLAGE}")

_NUMBER = r"(?P<{0}>[0-9]{{1,4}}|[零〇一二三四五六七八九十百]{{1,6}})"
_BELOW = re.compile(
    rf"[\s,，]*第?{_NUMBER.format('group')}(?:村民小组|小组|组)"
    rf"(?:[\s,，]*第?{_NUMBER.format('household')}(?:号?网格|户))?",
)
# After one of these a place name can begin; after another character it may be part of a word.
_BEFORE = frozenset("省市县区州镇乡道场村在于住到去往从至是的和与及、")


@dataclass(frozen=True, slots=True)
class Located:
    """What a text means; ``why`` is for the person who looks at it again (分拨)."""

    division: Division
    certain: bool
    why: str


@dataclass(frozen=True, slots=True)
class _Mention:
    """A stretch of the text that names one of these divisions."""

    text: str
    end: int
    divisions: tuple[Division, ...]


@dataclass(frozen=True, slots=True)
class _Name:
    """A division's name without its suffix; ``suffix`` says which kind that was, or none."""

    base: str
    suffix: str | None
    division: Division

    def rank(self, text: str, end: int) -> tuple[int, int]:
        """How well the text goes on after the base, and where the name ends.

        2: with a suffix of the same kind, or it needs none; 1: with that of another kind of
        village (a village became a community); 0: the base alone.
        """
        if self.suffix is None:
            return 2, end
        own = _STARTS[self.suffix].match(text, end)
        if own is not None:
            return 2, own.end()
        if self.suffix in _OF_VILLAGES:
            other = _ANY_VILLAGE.match(text, end)
            if other is not None:
                return 1, other.end()
        return (2 if self.base.endswith("村") else 0), end


class Gazetteer:
    """The names of a directory's places, with and without their suffixes."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._by_base: dict[str, list[_Name]] = {}
        for division in directory.divisions.values():
            name = self._name(division)
            # A number names a group only after its village, which locate reads itself.
            if not _BELOW.fullmatch(division.name) and len(name.base) > 1:
                self._by_base.setdefault(name.base, []).append(name)
        self._longest = max(map(len, self._by_base), default=0)
        # What lies above a village is never as low as an address means.
        self._above = {
            above.code
            for division in directory.divisions.values()
            if division.level == "village"
            for above in directory.ancestors(division.code)[1:]
        }

    def locate(self, text: str, start: Division) -> Located:
        """See :meth:`services.grid.directory.Directory.locate`."""
        text = unicodedata.normalize("NFKC", text).strip()
        within = self._directory.within
        possible, named, end = [start], "", 0
        if _BELOW.match(text) and len(start.code) == 12:
            return self._below(text, end, start, "")
        for mention in self._mentions(text):
            narrowed: dict[str, Division] = {}
            for known in possible:
                for division in mention.divisions:
                    if within(division.code, known.code):
                        narrowed[division.code] = division
                    elif within(known.code, division.code):
                        narrowed[known.code] = known
            if not narrowed:
                return self._contradiction(mention, named, possible, start)
            possible, named = list(narrowed.values()), mention.text
            if len(possible) == 1 and possible[0] in mention.divisions:
                end = mention.end
        if not named:
            return Located(start, False, f"no place of {start.name} is named")
        if len(possible) > 1:
            names = ", ".join(f"{place.code} {place.name}" for place in possible[:5])
            return Located(self._common(possible, start), False, f"{named} can mean {names}")
        return self._below(text, end, possible[0], named)

    def _below(self, text: str, end: int, place: Division, named: str) -> Located:
        """Goes on to the group and household grid that may follow a village's name."""
        lowest = place.level not in _UPPER_LEVELS and place.code not in self._above
        found = _BELOW.match(text, end)
        if found is None or len(place.code) != 12:
            why = f"{named} is {place.code}" if lowest else f"nothing below {place.name} is named"
            return Located(place, lowest, why)
        another = _BELOW.search(text, found.end())
        if another is not None:
            both = " and ".join(match[0].strip(" ,，") for match in (found, another))
            return Located(place, False, f"both {both} of {place.name} are named")
        code = place.code
        for part, digits in (("group", 2), ("household", 3)):
            if found[part] is not None:
                code += _digits(found[part]).zfill(digits)
        # A number too large for its digits makes a code too long for an implied division.
        below = self._directory.division(code) if len(code) in (14, 17) else None
        if below is None:
            return Located(place, False, f"{place.name} has no {found[0].strip(' ,，')}")
        return Located(below, True, f"{named}{found[0]} is {code}")

    def _contradiction(
        self, mention: _Mention, named: str, possible: list[Division], start: Division
    ) -> Located:
        inside = [
            place for place in mention.divisions if self._directory.within(place.code, start.code)
        ]
        if not inside:
            return Located(start, False, f"{mention.text} is not in {start.name}")
        common = self._common([*possible, *inside], start)
        return Located(common, False, f"{mention.text} is not in the same place as {named}")

    def _common(self, places: list[Division], start: Division) -> Division:
        return self._directory.common(place.code for place in places) or start

    def _mentions(self, text: str) -> Iterator[_Mention]:
        position = end = 0
        while position < len(text):
            mention = None
            # A place name begins after another one, or where it isn't the end of a word.
            before = text[position - 1] if position > end else " "
            if not before.isalpha() or before in _BEFORE:
                mention = self._mention(text, position)
            if mention is None:
                position += 1
            else:
                yield mention
                position = end = mention.end

    def _mention(self, text: str, position: int) -> _Mention | None:
        """The best mention that begins here: with its own suffix, then the longest."""
        best: dict[tuple[int, int], list[Division]] = {}
        for name in self._names(text, position):
            rank, end = name.rank(text, position + len(name.base))
            if rank or self._can_end(text, end):
                best.setdefault((rank, end), []).append(name.division)
        if not best:
            return None
        rank, end = max(best)
        return _Mention(text[position:end], end, tuple(best[rank, end]))

    def _can_end(self, text: str, end: int) -> bool:
        """Whether a name without its suffix can end here: it isn't the start of a word."""
        if end == len(text) or not text[end].isalpha() or _BELOW.match(text, end):
            return True
        return any(name.rank(text, end + len(name.base))[0] for name in self._names(text, end))

    def _names(self, text: str, position: int) -> Iterator[_Name]:
        for length in range(2, min(self._longest, len(text) - position) + 1):
            yield from self._by_base.get(text[position : position + length], ())

    def _name(self, division: Division) -> _Name:
        """The name without its suffix and without the name of the place above."""
        above = self._directory.parent(division.code)
        name = division.name.removeprefix(above.name) if above is not None else division.name
        kinds = (division.level,) if division.level in _UPPER_LEVELS else _OF_VILLAGES
        for kind in kinds:
            base = _ENDS[kind].sub("", name)
            if base != name and len(base) > 1:
                return _Name(base, kind, division)
        return _Name(name or division.name, None, division)


def _digits(number: str) -> str:
    """A number in Arabic digits; ``0``, which no group has, for what is not one number."""
    return number.lstrip("0") or "0" if number.isdecimal() else str(_NUMERALS.get(number, 0))


def _numeral(number: int) -> str:
    """``number`` below 1000 in Chinese numerals: 十二, 一百零三."""
    hundreds, rest = divmod(number, 100)
    tens, units = divmod(rest, 10)
    ten = "" if not tens else "十" if number < 20 else f"{_ZERO_TO_NINE[tens]}十"
    unit = _ZERO_TO_NINE[units] if units else ""
    if not hundreds:
        return ten + unit
    return f"{_ZERO_TO_NINE[hundreds]}百{ten or ('零' if unit else '')}{unit}"


# 三四组 means two groups: only what is exactly one numeral is read.
_ZERO_TO_NINE = "零一二三四五六七八九"
_NUMERALS = {_numeral(number): number for number in range(1, 1000)}
_NUMERALS |= {text.replace("零", "〇"): number for text, number in _NUMERALS.items()}
