"""A process that plays histories by the thousand."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable

import structlog


def quiet() -> Callable[[], None]:
    """From now on nothing is logged, and cycles of rubbish are rarely looked for.

    Histories break everything there is: what the services say of it would be all one sees. What
    is there already is left out of the search for rubbish, as in the services themselves
    (``services/bus/run.py``); it was a fifth of the work.

    :returns: puts both back as they were.
    """
    logs, thresholds = structlog.get_config(), gc.get_threshold()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)

    def restore() -> None:
        gc.set_threshold(*thresholds)
        gc.unfreeze()
        structlog.configure(**logs)

    return restore
