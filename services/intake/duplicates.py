"""Cases that may be one matter (疑似重复): looked for when somebody asks; people merge them.

What is compared is the category, the place, the time and the words. Another category is possible,
for two people may not see the same in one matter; then the rest must be more alike. Descriptions
are read here, where they are kept, and no answer shows any.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from typing import Any, NamedTuple

from services.bus.fold import Document
from services.grid.clock import seconds_between
from services.grid.directory import Directory

LEAST = 0.45
"""The score from which on a case is shown."""
LEAST_WORDS = 0.12
"""How much alike the words must be at least, whatever the place and the time."""
_READ = 500
"""How many characters of a description are compared."""
_WORDS, _PLACE, _TIME = 0.6, 0.25, 0.15
_OTHER_CATEGORY = 0.15
"""What another category takes off."""
_PAIR, _SINGLE = 2, 1
"""How much a pair of neighbouring characters counts, and a single Chinese one."""
_EVERYWHERE = frozenset("的了是有在不没被把和与及又也都很很就还个")
"""Chinese characters that say nothing of what a text is about."""


class Likeness(NamedTuple):
    """How much alike two cases are, from 0 to 1, and in what."""

    score: float
    words: float
    place: str
    hours: float
    same_category: bool

    @property
    def suspicious(self) -> bool:
        """Whether the two may be one matter."""
        return self.score >= LEAST and self.words >= LEAST_WORDS


def likeness(one: Document, other: Document, within: float, directory: Directory) -> Likeness:
    """How much alike two cases are, which were reported ``within`` some seconds."""
    apart = abs(seconds_between(one["facts"]["reported_at"], other["facts"]["reported_at"]))
    words = max(
        alike(one["facts"]["title"], other["facts"]["title"]),
        alike(_told(one), _told(other)),
    )
    places = one["facts"]["division"], other["facts"]["division"]
    place, near = _near(*places, directory)
    close = max(0.0, 1 - apart / within)
    same = one["facts"]["category"] == other["facts"]["category"]
    score = _WORDS * words + _PLACE * near + _TIME * close - (0.0 if same else _OTHER_CATEGORY)
    hours = round(apart / 3600, 1)
    return Likeness(round(max(score, 0.0), 3), round(words, 3), place, hours, same)


def alike(one: str, other: str) -> float:
    """How many pairs of neighbouring characters two texts share, from 0 to 1 (Dice).

    That needs no words, so it is for Chinese as for any other; spaces, punctuation and full or
    half width make no difference. A single Chinese character says something too: titles are short,
    and 邻居吵架 has no pair of 邻里争吵.
    """
    parts = _parts(one), _parts(other)
    both = sum(map(_weight, parts))
    return 2 * _weight(parts[0] & parts[1]) / both if both else 0.0


def around(division: str, directory: Directory) -> str:
    """The division in which to look: the one above, with all that are beside this one."""
    above = directory.ancestors(division)
    return above[1].code if len(above) > 1 else division


def _parts(text: str) -> Counter[str]:
    """The pairs of neighbouring characters of a text, and each Chinese one by itself."""
    plain = "".join(
        char for char in unicodedata.normalize("NFKC", text).casefold() if char.isalnum()
    )
    single = (char for char in plain if _ideographic(char) and char not in _EVERYWHERE)
    return Counter(plain[at : at + 2] for at in range(len(plain) - 1)) + Counter(single)


def _ideographic(char: str) -> bool:
    return unicodedata.name(char, "").startswith("CJK ")


def _weight(parts: Counter[str]) -> int:
    return sum((_PAIR if len(part) > 1 else _SINGLE) * times for part, times in parts.items())


def _told(document: Document) -> str:
    report: dict[str, Any] = document["report"] or {}
    return f"{document['facts']['title']} {(report.get('description') or '')[:_READ]}"


def _near(one: str, other: str, directory: Directory) -> tuple[str, float]:
    if one == other:
        return "same", 1.0
    if directory.within(one, other) or directory.within(other, one):
        return "within", 0.8
    return "beside", 0.4
