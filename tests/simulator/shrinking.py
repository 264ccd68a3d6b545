"""Histories as hypothesis draws them, so that one that goes wrong becomes short and simple."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import Phase, Verbosity, given, settings
from hypothesis import strategies as st
from hypothesis.database import InMemoryExampleDatabase

from tests.simulator.history import ENDS, HEADER, LONGEST, WIDTH, Broken, play

HEADERS = st.binary(min_size=HEADER, max_size=HEADER)
RECORDS = st.binary(min_size=WIDTH, max_size=WIDTH)


@st.composite
def histories(draw: st.DrawFn) -> bytes:
    """The bytes of a history, a draw a step: so hypothesis can leave any step out.

    It reads the bytes of a seed just as :func:`tests.simulator.history.records` does.
    """
    data = [draw(HEADERS)]
    for _ in range(LONGEST):
        data.append(draw(RECORDS))
        if data[-1][0] < ENDS:
            break
    return b"".join(data)


def holds(history: bytes) -> None:
    """What must hold of every history."""
    play(history)


def shortest(history: bytes) -> Broken:
    """What a history that goes wrong comes to: hypothesis shrinks it, told in words.

    :raises ValueError: it does not go wrong.
    """
    search = settings(
        database=InMemoryExampleDatabase(),
        phases=(Phase.reuse, Phase.shrink),
        verbosity=Verbosity.quiet,
        deadline=None,
        report_multiple_bugs=False,
    )(given(histories())(holds))
    _run(lambda: search.hypothesis.fuzz_one_input(history))
    broken = _run(search)
    if broken is None:
        raise ValueError("this history goes well")
    return broken


def _run(search: Callable[[], object]) -> Broken | None:
    try:
        search()
    except Broken as broken:
        return broken
    return None
