"""Bulk import: what can be told without a stack."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from cli import bulk
from cli.failures import Failure


class Taking:
    """A client whose intake accepts everything."""

    def events(self, events: list[dict[str, Any]]) -> dict[str, Any]:
        case = {"case": "c", "tracking": "t", "reference": "r"}
        return {"accepted": [{"index": at, **case} for at, _ in enumerate(events)], "rejected": []}


def test_the_results_do_not_overwrite_what_is_imported(tmp_path: Path) -> None:
    reports = tmp_path / "reports.ndjson"
    reports.write_text('{"reference": "1"}\n')
    client = cast("Any", Taking())
    (tmp_path / "same.ndjson").symlink_to(reports)
    for results in (reports, tmp_path / "same.ndjson"):
        with pytest.raises(Failure, match="another file"):
            bulk.run(client, reports, "hotline", results, quiet=True)
    assert reports.read_text() == '{"reference": "1"}\n'
    told = tmp_path / "results.ndjson"
    for _ in range(2):
        assert bulk.run(client, reports, "hotline", told, quiet=True)["accepted"] == 1
    assert told.read_text().count("\n") == 1
