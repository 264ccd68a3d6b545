"""How somebody is told. A channel sends one message and says whether it arrived.

A new one is a module beside this file with a class that fits :class:`Channel`, named in
``services/notify/shell.py`` and allowed in profiles by ``services/grid/profile_rules.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Message:
    """One delivery: its stable ``id`` tells a recipient that it is the same one again."""

    id: str
    recipient: str
    about: str
    case: str
    text: str
    time: str

    def body(self) -> dict[str, Any]:
        """As a log line or a webhook carries it."""
        return {
            "id": self.id,
            "time": self.time,
            "recipient": self.recipient,
            "type": self.about,
            "case": self.case,
            "text": self.text,
        }


class Channel(Protocol):
    """One way to tell somebody."""

    def send(self, message: Message, webhook: str | None) -> str | None:
        """None if it arrived, else why not, in a few words for an operator.

        :param webhook: the recipient's URL, if it has one.
        """
