"""The custodian's shell: besides its store it knows its fellow replicas."""

from __future__ import annotations

import uuid

from eventlet.greenpool import GreenPool

from services.bus.config import Config
from services.bus.shell import Shell
from services.escalation import model
from services.escalation.store import Custodians, Custody, Passes

_AT_ONCE = 3


class CustodianShell(Shell[Custody]):
    """What a custodian process is connected to.

    ``shards`` are those of the cases that it fires; none until it has first said that it lives.
    ``firing`` runs the batches of cases that are fired, a few at once.
    """

    def __init__(self, config: Config) -> None:
        super().__init__(config, Custody, "directory_escalation")
        self.custodians = Custodians(self.database[Custodians.name])
        self.passes = Passes(self.database[Passes.name], config.reconcile_seconds)
        self.replica = str(uuid.uuid4())
        self.shards: tuple[int, ...] = ()
        self.firing = GreenPool(_AT_ONCE)

    def prepare(self) -> None:
        """See :class:`services.bus.shell.Shell`."""
        self.custodians.ensure_indexes()
        self.passes.prepare()
        super().prepare()

    def beat(self) -> None:
        """Says that it lives, and takes its share of the cases.

        :raises DatabaseAway: nobody could be told.
        """
        self.shards = model.share(self.replica, self.custodians.beat(self.replica))
