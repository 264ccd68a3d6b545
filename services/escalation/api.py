"""The custodian over HTTP: every deadline of a case, and why."""

from __future__ import annotations

from typing import Any

from services.bus.problems import Problem
from services.bus.web import Call
from services.escalation import model
from services.escalation.shell import CustodianShell
from services.grid.clock import Instant, seconds_between

READERS = ("officer", "lead", "operator", "auditor")


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
