"""The type of the exception says what becomes of the input."""

from __future__ import annotations


class Retry(Exception):
    """Not now: something that this input needs is away or not known yet.

    A consumer keeps the message, backs off in the process and tries again; over HTTP it is
    a 503 with ``Retry-After``.
    """


class BrokerAway(Retry):
    """RabbitMQ can't be reached or did not confirm in time."""


class BrokerRefused(BrokerAway):
    """RabbitMQ is there and refuses one of these messages: a right is missing, or an exchange."""


class DatabaseAway(Retry):
    """MongoDB can't be reached or did not answer in time."""


class Defer(Exception):
    """Not yet, but the others can go on: what only this input needs is not known yet.

    A consumer lets it wait in its queue's ``again``, and parks it when that took too long.
    """


class Reject(Exception):
    """Never: this input can't be processed, now or later.

    A consumer parks it in ``huashi.dead`` with ``reason``, a short word for metrics and
    headers, and the message, one line for a person.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Refused(Exception):
    """A person's action that is not possible in this state of the case: a 409 over HTTP.

    ``detail`` says why and what to do; ``facts`` are further members of the problem
    document, such as who holds the case.
    """

    def __init__(self, detail: str, **facts: object) -> None:
        super().__init__(detail)
        self.detail = detail
        self.facts = facts

    def saying(self, **facts: object) -> Refused:
        """The same with further facts, unless it tells these itself."""
        return Refused(self.detail, **{**facts, **self.facts})


class Collision(Exception):
    """Another document has this value of a field that must be unique; nothing was written."""

    def __init__(self, field: str) -> None:
        super().__init__(f"another document has the same {field}")
        self.field = field
