"""How somebody is told. A channel sends one message and says what became of it.

``webhook`` is :class:`services.notify.sender.Sender`, by which events go to subscribers too.
Another one is a module beside this file with a class that fits :class:`Channel`, named in
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


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of one try; without a ``reason`` it arrived.

    ``reason`` is a few words for an operator. ``wait`` is how many real seconds the other side
    asks for before the next try. ``gone``: it wants nothing any more (410). ``down``: any other
    message would have fared the same just now. ``blame``: it may be because of this message.
    """

    reason: str | None = None
    wait: float = 0.0
    gone: bool = False
    down: bool = False
    blame: bool = True


class Channel(Protocol):
    """One way to tell somebody."""

    def send(self, message: Message) -> Sent:
        """Sends it, within ten seconds or so; whatever goes wrong is said in the answer."""
