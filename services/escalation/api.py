"""The custodian over HTTP: every deadline of a case, and why."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from services.bus.problems import Problem
from services.bus.web import Answer, Call
from services.escalation import model
from services.escalation.shell import CustodianShell
from services.grid.clock import Instant, instant, seconds_between

READERS = ("officer", "lead", "operator", "auditor")
OPERATORS = ("operator",)
INSPECTORS = ("operator", "auditor")


def deadlines(custodian: CustodianShell, _call: Call, case: str) -> dict[str, Any]:
    """Each past and coming deadline with its rule, and who holds the case."""
    record = custodian.store.read([case]).get(case)
    if record is None or record.document is None:
        raise Problem(404, f"the custodian has not heard of case {case}")
    document = record.document
    rows = model.explain(document)
    for row in rows:
        if "fired_at" in row:
            late = seconds_between(Instant(row["due"]), Instant(row["fired_at"]))
            row["lateness_seconds"] = max(0.0, custodian.clock.real_seconds(late))
    return {
        "case": case,
        "custody": {name: document["state"][name] for name in ("address", "token")},
        "profile": document["facts"]["profile"],
        "next_due": document["next_due"],
        "supervised": document["supervision"]
        and {name: document["supervision"][name] for name in ("times", "last", "due")},
        "late_custody": document["late_custody"],
        "deadlines": rows,
    }


def reconcile(custodian: CustodianShell, _call: Call) -> Answer:
    """Asks for a pass; ``answered`` of ``GET`` reaches ``asked`` when it is done."""
    return Answer({"asked": custodian.passes.request()}, 202)


def reconciliation(custodian: CustodianShell, _call: Call) -> dict[str, Any]:
    """The present pass and the last one; its times are real ones, of the database's clock."""
    known = custodian.passes.look()
    running = known.get("holder") is not None and {
        "by": known["holder"],
        "started": _when(known["started"]),
        **known["progress"],
    }
    last = known.get("last")
    return {
        "asked": known.get("asked", 0),
        "answered": known.get("answered", 0),
        "next": _when(known.get("next")),
        "running": running or None,
        "last": last
        and {
            **last,
            "started": _when(last["started"]),
            "finished": _when(last["finished"]),
            "seconds": (last["finished"] - last["started"]).total_seconds(),
        },
    }


def _when(at: datetime | None) -> Instant | None:
    return None if at is None else instant(at)
