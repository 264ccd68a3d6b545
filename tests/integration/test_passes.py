"""Whose turn the reconciler is, on a real database and by its clock."""

from __future__ import annotations

from typing import Any

import pytest

from services.escalation.store import Passes
from tests.end_to_end.county import eventually


@pytest.fixture
def passes(database: Any) -> Passes:
    made = Passes(database["custodians"], 3600)
    made.prepare()
    return made


def test_none_is_due_before_its_time(passes: Passes) -> None:
    assert not passes.look()["due"]
    assert not passes.take("a")


def test_one_replica_at_a_time_makes_a_pass(passes: Passes) -> None:
    number = passes.request()
    assert passes.look()["due"]
    assert passes.take("a")
    assert not passes.take("b")
    assert not passes.look()["due"]
    assert passes.renew("a", {"stage": "custody"})
    assert not passes.renew("b", {})
    passes.finish("b", {"found": {}})
    assert passes.look()["answered"] == 0
    passes.finish("a", {"found": {"unarmed": 1}})
    after = passes.look()
    assert (after["answered"], after["due"], after["holder"]) == (number, False, None)
    assert after["last"]["found"] == {"unarmed": 1}
    assert after["last"]["started"] <= after["last"]["finished"] == after["finished"]


def test_who_asks_while_one_runs_gets_another(passes: Passes) -> None:
    passes.request()
    assert passes.take("a")
    passes.request()
    passes.finish("a", {})
    assert passes.look()["answered"] == 1
    assert passes.take("b")


def test_what_a_dead_replica_had_begun_another_begins_anew(
    passes: Passes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Passes, "lease_seconds", 0.3)
    passes.request()
    assert passes.take("a")
    assert not passes.take("b")
    eventually("the turn of a is over", lambda: passes.take("b"))
    assert not passes.renew("a", {})


def test_a_pass_comes_by_itself_and_a_shorter_time_counts_at_once(database: Any) -> None:
    Passes(database["custodians"], 86400).prepare()
    often = Passes(database["custodians"], 0.2)
    often.prepare()
    eventually("it is due", lambda: often.take("a"))
    often.finish("a", {})
    eventually("it is due again", lambda: often.take("a"))


def test_a_record_that_was_lost_is_made_again(passes: Passes, database: Any) -> None:
    database["custodians"].drop()
    assert passes.look() == {"due": False, "lost": True}
    passes.prepare()
    assert not passes.look()["due"]
