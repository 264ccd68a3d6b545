"""What all tests of the simulator share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.simulator.quiet import quiet


@pytest.fixture(autouse=True, scope="package")
def _quiet() -> Iterator[None]:
    restore = quiet()
    yield
    restore()
