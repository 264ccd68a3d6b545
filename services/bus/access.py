"""Who may reach what: the one place where a token's scope is held against what is touched.

Each route says what it ``touches`` (:class:`Touches`). Where that is known only to the handler,
it asks its call's :class:`Guard`; one that answers without having asked is a defect, and its
answer is withheld.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

from services.bus.auth import ANONYMOUS, REPORTERS, Identity
from services.bus.errors import Retry
from services.bus.problems import Problem
from services.grid.atlas import Atlas
from services.grid.scope import RULE, WHOLE, Scope
from services.grid.tokens import Address

_OWN_RULE = "one who reports sees what they reported themselves"
_COUNTY_RULE = "this is for those whose token is for the whole county"


class Touches(Enum):
    """What a route touches, and so how far a token must reach."""

    CASES = "what the caller's scope covers"
    """Certain cases or divisions: the handler asks the guard, for lists how to narrow them."""
    COUNTY = "the whole county"
    """Something that belongs to all: only tokens without a scope."""
    ANYWHERE = "anywhere"
    """Nothing of a part: a report may be made for any place, an emergency, and who is on duty, are
    for all to know."""


@dataclass
class Guard:
    """Holds one caller's scope against what a request touches.

    ``asked`` is whether it was asked at all, ``desk`` the level of the desk that asks for the
    caller, if one does: it reaches no further than that, whoever it says is calling.
    """

    identity: Identity = ANONYMOUS
    asked: bool = False
    desk: str | None = None

    @property
    def reports(self) -> bool:
        """Whether the caller sees just what they reported themselves."""
        return self.identity.role in REPORTERS

    def must_reach(self, atlas: Atlas, *addresses: Address) -> None:
        """That the caller's scope covers one of these addresses.

        :raises Problem: a 403 with the rule.
        :raises Retry: the directory, by which it is decided, has not arrived yet.
        """
        if not self.reaches(atlas, *addresses):
            raise self.refusal()

    def refusal(self, **facts: Any) -> Problem:
        """The 403 of what the caller's scope does not cover."""
        at_desk = f"; at the {self.desk} desk what is addressed to its level or below it"
        return forbidden(self.identity, RULE + (at_desk if self.desk else ""), **facts)

    def reaches(self, atlas: Atlas, *addresses: Address) -> bool:
        """Whether the caller's scope covers one of these addresses.

        :raises Retry: the directory, by which it is decided, has not arrived yet.
        """
        self.asked = True
        scope, desk = self._known(atlas), Scope(level=self.desk)
        return any(
            scope.covers(address, atlas) and desk.covers(address, atlas) for address in addresses
        )

    def own(self) -> str:
        """By whom the cases of a list must have been reported: the caller."""
        self.asked = True
        return self.identity.subject

    def must_have_reported(self, subject: str | None) -> None:
        """That the caller is who reported it.

        :raises Problem: a 403 with the rule.
        """
        self.asked = True
        if subject != self.identity.subject:
            raise forbidden(self.identity, _OWN_RULE)

    def narrowed(
        self,
        atlas: Atlas,
        division: str | None,
        level: str | None = None,
        unit: str | None = None,
    ) -> Scope:
        """The part of the caller's scope that a list is about.

        What is asked for must be in the scope, and what is not is limited by it: ``division`` is
        the scope's where none was named, and so is ``unit``; ``level`` the highest.

        :raises Problem: a 403 with the rule.
        :raises Retry: the directory, by which it is decided, has not arrived yet.
        """
        self.asked = True
        scope = self._known(atlas)
        inside = (
            (division is None or scope.covers_division(division, atlas))
            and (level is None or scope.covers_level(level, atlas))
            and (unit is None or scope.unit in (None, unit))
        )
        if not inside:
            raise forbidden(self.identity, RULE)
        return Scope(division or scope.division, scope.level, unit or scope.unit)

    def must_be_of_the_county(self) -> None:
        """That the caller's token is for everything.

        :raises Problem: a 403 with the rule.
        """
        if self.identity.scope != WHOLE:
            raise forbidden(self.identity, _COUNTY_RULE)

    def _known(self, atlas: Atlas) -> Scope:
        scope = self.identity.scope
        if (scope != WHOLE or self.desk) and not atlas.directory.divisions:
            raise Retry("the directory has not arrived yet")
        return scope


def forbidden(identity: Identity, rule: str, **facts: Any) -> Problem:
    """The 403 of a caller who may not do this: the rule in words, and how far the token reaches."""
    return Problem(
        403,
        f"{rule}: this token has the role {identity.role}, for {identity.scope}",
        kind="forbidden",
        headers={"WWW-Authenticate": 'Bearer realm="huashi", error="insufficient_scope"'},
        rule=rule,
        role=identity.role,
        scope=identity.scope.as_dict(),
        **facts,
    )
