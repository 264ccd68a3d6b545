"""One stack for the scenarios that leave it whole, and how to make others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from deploy.local.stack import Stack
from tests.end_to_end.county import County

QUICK = str(Path(__file__).parent / "quick")


@pytest.fixture(scope="session")
def county(make_stack: Callable[..., Stack]) -> County:
    """Ten minutes of deadlines in a second: an hour is six seconds."""
    return County(make_stack(PROFILES=QUICK, TIME_SCALE="600"))
