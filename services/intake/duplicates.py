"""Cases that may be one matter (疑似重复): looked for when somebody asks; people merge them.

What is compared is the category, the place, the time and the words. Descriptions are read here,
where they are kept, and no answer shows any.
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
_READ = 500
"""How many characters of a description are compared."""
_WORDS, _PLACE, _TIME = 0.6, 0.25, 0.15


class Likeness(NamedTuple):
    """How much alike two cases are, from 0 to 1, and in what."""

    score: float
    words: float
    place: str
    hours: float


def likeness(one: Document, other: Document, within: float, directory: Directory) -> Likeness:
    """How much alike two cases of one category are, which were reported ``within`` some seconds."""
    apart = abs(seconds_between(one["facts"]["reported_at"], other["facts"]["reported_at"]))
    words = max(
        alike(one["facts"]["title"], other["facts"]["title"]),
        alike(_told(one), _told(other)),
    )
    places = one["facts"]["division"], other["facts"]["division"]
    place, near = _near(*places, directory)
    close = max(0.0, 1 - apart / within)
    score = _WORDS * words + _PLACE * near + _TIME * close
    return Likeness(round(score, 3), round(words, 3), place, round(apart / 3600, 1))


def alike(one: str, other: str) -> float:
    """How many pairs of neighbouring characters two texts share, from 0 to 1 (Dice).

    That needs no words, so it is for Chinese as for any other; spaces, punctuation and full or
    half width make no difference.
    """
    pairs = _pairs(one), _pairs(other)
    both = sum(pairs[0].values()) + sum(pairs[1].values())
    return 2 * sum((pairs[0] & pairs[1]).values()) / both if both else 0.0


def around(division: str, directory: Directory) -> str:
    """The division in which to look: the one above, with all that are beside this one."""
    above = directory.ancestors(division)
    return above[1].code if len(above) > 1 else division


def _pairs(text: str) -> Counter[str]:
    plain = "".join(
        char for char in unicodedata.normalize("NFKC", text).casefold() if char.isalnum()
    )
    return Counter(plain[at : at + 2] for at in range(len(plain) - 1))


def _told(document: Document) -> str:
    report: dict[str, Any] = document["report"] or {}
    return f"{document['facts']['title']} {(report.get('description') or '')[:_READ]}"


def _near(one: str, other: str, directory: Directory) -> tuple[str, float]:
    if one == other:
        return "same", 1.0
    if directory.within(one, other) or directory.within(other, one):
        return "within", 0.8
    return "beside", 0.4
